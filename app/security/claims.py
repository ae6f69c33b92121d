"""What the claims of a verified token say about its bearer (RFC 7519 §4).

    {"sub": "line-4", "exp": 1790000000, "scope": "status:read",
     "mqtt": {"publish": ["plant-7/line-4/#"], "subscribe": [{"filter": "plant-7/#", "qos": 1}]}}

A claim that is malformed makes the whole token worthless. It is never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.problems import did_you_mean
from app.security.grant_lists import read_grants, read_scopes
from app.security.grants import Grants
from app.security.principal import Principal, Source
from app.security.verification_keys import VerificationKey

_MAX_SUBJECT: Final = 256
_MAX_TIME: Final = 253_402_300_799
"""The last second of the year 9999."""

_LISTS: Final = ("publish", "subscribe")


@dataclass(frozen=True, slots=True, eq=False)
class TokenPrincipal(Principal):
    """The bearer of a token.

    Attributes:
        issued_at: when it was issued, in seconds since 1970; None where it does not say so.
        key: what verified it.
    """

    issued_at: float | None = None
    key: VerificationKey | None = field(default=None, repr=False)


def principal_of_claims(
    claims: Mapping[str, Any], key: VerificationKey, *, leeway_seconds: float
) -> TokenPrincipal:
    """The principal of a token.

    Args:
        claims: of a token whose signature, times, issuer and audience are good.
        key: what verified it.
        leeway_seconds: how long after ``exp`` it still holds.

    Raises:
        ValueError: a claim is malformed; the text says which, and how.
    """
    subject = _text(claims, "sub")
    if not subject:
        raise ValueError("the claim sub is empty")
    publish, subscribe = _grants(claims.get("mqtt", {}))
    try:
        scopes = read_scopes(claims.get("scope", claims.get("scp", "")))
    except ValueError as error:
        raise ValueError(f"the claim scope: {error}") from None
    expires_at = _time(claims, "exp")
    assert expires_at is not None  # required when it was verified
    return TokenPrincipal(
        subject,
        Source.JWT,
        Grants(publish, subscribe, subject=subject),
        scopes,
        expires_at + leeway_seconds,
        _text(claims, "jti") or None,
        issued_at=_time(claims, "iat"),
        key=key,
    )


def _grants(claim: Any) -> list[Any]:
    if not isinstance(claim, dict):
        raise ValueError("the claim mqtt is an object with publish and subscribe")  # noqa: TRY004 - the token's
    for name in claim:
        if name not in _LISTS:
            raise ValueError(f"the claim mqtt has no member {name!r}; {did_you_mean(name, _LISTS)}")
    lists = []
    for name in _LISTS:
        try:
            lists.append(read_grants(claim.get(name, ())))
        except ValueError as error:
            raise ValueError(f"the claim mqtt, {name}: {error}") from None
    return lists


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_SUBJECT:
        raise ValueError(f"the claim {name} is no text of at most {_MAX_SUBJECT} characters")
    if any(each < " " or "\x7f" <= each <= "\x9f" or "\ud800" <= each <= "\udfff" for each in value):
        raise ValueError(f"the claim {name} holds characters that no name has")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise ValueError(f"the claim {name} is no time in seconds since 1970")
    return float(value)
