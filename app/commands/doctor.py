"""``tidegate doctor``: the way to a broker or a bridge, checked step by step.

The steps are those of ``app.diagnosis``.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from app.credentials.in_use import active_in
from app.credentials.store import CredentialStore, CredentialStoreError
from app.diagnosis.advice import StepError
from app.diagnosis.credential import describe
from app.diagnosis.handshake import Seen
from app.diagnosis.path import BrokerPath
from app.diagnosis.steps import STEP_SECONDS, Report, Step, Work
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError, MQTTError, TLSError
from tidegate.tls import TLS, make_context
from tidegate.url import parse_url


def _ignore(_: Step) -> None:
    return None


async def examine_broker(
    options: ConnectOptions,
    *,
    schemas_file: Path | None = None,
    store: CredentialStore | None = None,
    tell: Callable[[Step], None] = _ignore,
) -> Report:
    """Check the way to a broker: name, TCP, TLS, CONNECT, and a message there and back.

    Args:
        options: where and how to connect.
        schemas_file: the schemas of payloads, looked at first where there are some.
        store: what is in use there goes before what the options have; of no meaning without TLS.
        tell: called with each step when it ends.
    """
    report = Report(tell)
    if schemas_file is not None and not await report.step("schemas", lambda: _read_schemas(schemas_file)):
        return report
    if store is not None and options.tls is not None:

        async def read_credential() -> Seen | str:
            nonlocal options
            options, seen = await _with_what_is_in_use(store, options)
            return seen

        if not await report.step("credential", read_credential):
            return report
    path = BrokerPath(options)
    steps: list[tuple[str, Work]] = [
        ("URL", path.read),
        ("DNS", path.resolve),
        ("TCP", path.reach),
    ]
    if options.tls is not None:
        steps.append(("TLS", path.shake_hands))
    steps += [("CONNECT", path.connect), ("round trip", path.round_trip)]
    try:
        await report.take(steps)
    finally:
        await path.close()
    return report


async def _with_what_is_in_use(
    store: CredentialStore, options: ConnectOptions
) -> tuple[ConnectOptions, Seen | str]:
    try:
        active = await active_in(store)
        if active is None:
            return options, "none of the store is in use; the files of the settings are"
        bundle = (await store.read(active.name, active.revision or None)).bundle
        return replace(options, tls=bundle.context()), describe(bundle)
    except (CredentialStoreError, MQTTError) as error:
        raise StepError(str(error), "docs/credentials.md says what a store holds.") from error


async def _read_schemas(file: Path) -> str:
    from app.publishing.schema_file import load_schemas  # noqa: PLC0415 - the library is loaded where it is used

    try:
        schemas = load_schemas(file)
    except ConfigurationError as error:
        raise StepError(str(error), "docs/schemas.md shows what TIDEGATE_SCHEMAS_FILE may hold.") from error
    return f"{len(schemas)} in {file}"


async def examine_bridge(
    url: str, *, ca_file: Path | None = None, tell: Callable[[Step], None] = _ignore
) -> Report:
    """Check the way to a bridge: name, TCP, TLS, ``/livez`` and ``/readyz``.

    Args:
        url: the bridge's, ``http`` or ``https``.
        ca_file: authorities to trust, as PEM; the system's where it is left out.
        tell: called with each step when it ends.
    """
    report = Report(tell)
    options = ConnectOptions()

    async def read() -> str:
        nonlocal options
        try:
            parts = urlsplit(parse_url(url).bridge_url)
        except ConfigurationError as error:
            raise StepError(str(error), "Write it as http://127.0.0.1:8080.") from error
        try:
            trust: TLS = True if ca_file is None else {"ca_certs": ca_file}
            tls = make_context(trust) if parts.scheme == "https" else None
        except TLSError as error:
            raise StepError(str(error), "--ca-file takes the certificates of authorities.") from error
        port = parts.port or (443 if tls else 80)
        options = ConnectOptions(host=parts.hostname or "", port=port, tls=tls, path=parts.path)
        return f"a bridge, {options.host}, port {options.port}{', with TLS' if tls else ''}"

    if not await report.step("URL", read):
        return report
    path = BrokerPath(options, kind="bridge")
    if not await report.take((("DNS", path.resolve), ("TCP", path.reach))):
        return report
    if options.tls is not None and not await report.step("TLS", path.shake_hands):
        return report
    for name in ("livez", "readyz"):
        if not await report.step(f"/{name}", lambda name=name: _probe(options, name)):  # type: ignore[misc]
            break
    return report


async def _probe(options: ConnectOptions, name: str) -> str:
    try:
        status, body = await asyncio.to_thread(_get, options, f"{options.path}/{name}")
    except (OSError, http.client.HTTPException) as error:
        raise StepError(
            f"no answer that is HTTP: {str(error) or type(error).__name__}", "Is this port a bridge's?"
        ) from error
    if status == 200:
        return f"{status}"
    if name == "readyz" and status == 503:
        raise StepError(
            f"503: {body[:300]}", "The bridge runs and cannot use its broker; check that with its URL."
        )
    raise StepError(
        f"{status}: {body[:300]}", "Is this a bridge's URL? A proxy in between may answer instead."
    )


def _get(options: ConnectOptions, target: str) -> tuple[int, str]:
    connection: http.client.HTTPConnection
    if options.tls is None:
        connection = http.client.HTTPConnection(options.host, options.port, timeout=STEP_SECONDS)
    else:
        connection = http.client.HTTPSConnection(
            options.host, options.port, timeout=STEP_SECONDS, context=options.tls
        )
    try:
        connection.request("GET", target, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("utf-8", "replace")
    finally:
        connection.close()
