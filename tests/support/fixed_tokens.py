"""A way to show who one is for tests: a table of tokens, which a test may change while the bridge runs."""

from __future__ import annotations

from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any, Final

from app.problems import ProblemError, ProblemType
from app.security.authentication import AMBIENT, Authentication, Ended, Scope
from app.security.grants import Grant, Grants
from app.security.principal import Principal, Source

COOKIE: Final = "session"
COOKIES: Final[dict[str, Any]] = {"jwt_cookie": COOKIE, "jwt_key": "k" * 32, "jwt_algorithms": ("HS256",)}
"""Settings of a bridge that takes a cookie."""


class FixedTokens:
    """Takes ``Authorization: Bearer`` with a token of the table (``app.security.authentication.Method``).

    Args:
        principals: who has which token.

    Attributes:
        principals: the table.
        revoked: principals that are good no more.
        is_ambient: the cookie ``session`` holds a token, too.
    """

    challenge = "Bearer"
    is_ambient = False

    def __init__(self, **principals: Principal) -> None:
        self.principals = principals
        self.revoked: set[Principal] = set()

    def recall(self, scope: Scope) -> Principal | None:
        """The principal, where its token is in the table."""
        principal = self.principals.get(self._token(scope))
        return None if principal is None or self.why_ended(principal) else principal

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The principal; a token that is not in the table is refused."""
        if not self._token(scope):
            return None
        principal = self.recall(scope)
        if principal is None:
            raise ProblemError(ProblemType.UNAUTHENTICATED, "the token is not known", field="Authorization")
        return principal

    def why_ended(self, principal: Principal) -> Ended | None:
        """Whether it was revoked or has expired."""
        if any(each.identity == principal.identity for each in self.revoked):
            return Ended.REVOKED
        return Ended.EXPIRED if principal.has_expired() else None

    async def close(self) -> None:
        """There is nothing to release."""

    def revoke(self, token: str) -> None:
        """End a token's principal."""
        self.revoked.add(self.principals[token])

    def _token(self, scope: Scope) -> str:
        headers: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if b"authorization" in headers:
            return headers[b"authorization"].removeprefix("Bearer ")
        cookies = SimpleCookie(headers.get(b"cookie", ""))
        if not self.is_ambient or COOKIE not in cookies:
            return ""
        scope[AMBIENT] = True
        return cookies[COOKIE].value


def principal(
    subject: str,
    *,
    publish: Iterable[str | Grant] = (),
    subscribe: Iterable[str | Grant] = (),
    scopes: Iterable[str] = (),
    expires_at: float | None = None,
) -> Principal:
    """A principal with these grants."""
    grants = Grants(
        [each if isinstance(each, Grant) else Grant(each) for each in publish],
        [each if isinstance(each, Grant) else Grant(each) for each in subscribe],
        subject=subject,
    )
    return Principal(subject, Source.API_KEY, grants, frozenset(scopes), expires_at)


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def tokens_of(*principals: Principal, takes_cookies: bool = False) -> tuple[Authentication, FixedTokens]:
    """Authentication where the token of each principal is its subject, and the table behind it."""
    method = FixedTokens(**{each.subject: each for each in principals})
    method.is_ambient = takes_cookies
    return Authentication([method]), method
