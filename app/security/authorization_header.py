"""What a request's ``Authorization`` header carries (RFC 9110 §11.6.2, RFC 6750 §2.1)."""

from __future__ import annotations

from typing import Any, Final

from app.problems import ProblemError, ProblemType

CHALLENGE: Final = 'Bearer realm="tidegate"'
_NAME: Final = b"authorization"
_SCHEME: Final = b"bearer "


def bearer_of(scope: Any) -> bytes | None:
    """The API key or token behind ``Bearer``; None where there is none, or where there are several headers.

    Args:
        scope: the request's (ASGI).
    """
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == _NAME:
            if found is not None:
                return None
            found = value
    if found is None or found[:7].lower() != _SCHEME:
        return None
    return found[7:].strip()


def has_authorization(scope: Any) -> bool:
    """Whether a request has the header, whatever is in it."""
    return any(name == _NAME for name, _ in scope["headers"])


def refusal(detail: str, hint: str, *, field: str = "Authorization") -> ProblemError:
    """The answer to an API key or a token that is not good (RFC 6750 §3.1).

    Args:
        detail: what is wrong with it.
        hint: what to do about it.
        field: where it was.
    """
    return ProblemError(
        ProblemType.UNAUTHENTICATED,
        detail,
        field=field,
        hint=hint,
        headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
    )
