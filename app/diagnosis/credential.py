"""A credential, tried at a broker: DNS, TCP, TLS and CONNECT, and nothing published."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from app.diagnosis.handshake import Seen
from app.diagnosis.path import BrokerPath
from app.diagnosis.steps import Report, Step
from tidegate.bundles import Bundle
from tidegate.connection import ConnectOptions


def _ignore(_: Step) -> None:
    return None


async def examine_credential(
    bundle: Bundle,
    options: ConnectOptions,
    *,
    may_reach: Callable[[str], bool] | None = None,
    tell: Callable[[Step], None] = _ignore,
) -> Report:
    """Try a credential: what it is, then the way to the broker, up to an accepted CONNECT.

    Args:
        bundle: the credential.
        options: where and how to connect, with a context made from the bundle.
        may_reach: says of each address of the host whether it may be connected to; any, where it is left out.
        tell: called with each step when it ends.
    """
    name = options.client_id or "tidegate"
    options = replace(
        options,
        client_id=f"{name}-test-{secrets.token_hex(3)}",
        clean_start=True,
        session_expiry_seconds=0,
    )

    async def show() -> Seen:
        return describe(bundle)

    report = Report(tell)
    path = BrokerPath(options, may_reach)
    try:
        await report.take(
            (
                ("credential", show),
                ("DNS", path.resolve),
                ("TCP", path.reach),
                ("TLS", path.shake_hands),
                ("CONNECT", path.connect),
            )
        )
    finally:
        await path.close()
    return report


async def why_refused(bundle: Bundle, options: ConnectOptions) -> str:
    """The step that fails and why, in words; "" where none does."""
    report = await examine_credential(bundle, options)
    return "" if report.is_ok else f"{report.steps[-1].name}: {report.steps[-1].detail}"


def describe(bundle: Bundle) -> Seen:
    """What a credential is; that it has expired is told, and whether that matters is the broker's to say."""
    trusts = (
        ", ".join(each.label for each in bundle.authorities)
        if bundle.authorities
        else "the system's authorities"
    )
    certificate = bundle.certificate
    if certificate is None:
        return Seen(f"trusts {trusts}; no client certificate")
    days = certificate.days_left()
    advice = ""
    if days < 0:
        advice = f"The client certificate has expired, on {certificate.not_after:%Y-%m-%d}: renew it."
    elif not certificate.may_be_a_client:
        advice = "The certificate is not meant for TLS clients, by its extended key usage."
    return Seen(f"{certificate.label}, {days} days left; trusts {trusts}", advice)
