"""Principals for a test: tokens that are known beforehand, in a header or in a cookie."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from http.cookies import SimpleCookie
from typing import Final

from app.api.origin import AMBIENT
from app.problems import ProblemError, ProblemType
from app.security.authentication import Authentication, Ended, Scope
from app.security.grants import Grant, Grants
from app.security.principal import Principal, Source

COOKIE: Final = "session"


class FixedTokens:
    """A way to show who one is (``Method``): ``Authorization: Bearer`` with one of these tokens.

    Args:
        principals: each token's.
        takes_cookies: the cookie ``session`` holds a token too.

    Attributes:
        revoked: the ids of credentials that are good no more.
    """

    challenge = "Bearer"

    def __init__(self, principals: Mapping[str, Principal], *, takes_cookies: bool = False) -> None:
        self._principals = dict(principals)
        self.is_ambient = takes_cookies
        self.revoked: set[str] = set()

    def recall(self, scope: Scope) -> Principal | None:
        """Nothing is remembered: each token is looked at."""
        return None

    async def authenticate(self, scope: Scope) -> Principal | None:
        """``Method.authenticate``."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        token = headers.get(b"authorization", "").removeprefix("Bearer ")
        if not token and self.is_ambient:
            cookies = SimpleCookie(headers.get(b"cookie", ""))
            token = cookies[COOKIE].value if COOKIE in cookies else ""
            scope[AMBIENT] = True
        if not token:
            return None
        found = self._principals.get(token)
        if found is None or found.has_expired() or self.why_ended(found) is not None:
            raise ProblemError(ProblemType.UNAUTHENTICATED, "the token is not good", field="Authorization")
        return found

    def why_ended(self, principal: Principal) -> Ended | None:
        """``Method.why_ended``."""
        return Ended.REVOKED if principal.credential_id in self.revoked else None

    async def close(self) -> None:
        """``Method.close``."""


def principal(
    subject: str,
    *,
    publish: Iterable[str] = (),
    subscribe: Iterable[str] = (),
    scopes: Iterable[str] = (),
    lives_seconds: float | None = None,
) -> Principal:
    """A principal whose API key has the id ``{subject}-key``."""
    return Principal(
        subject,
        Source.API_KEY,
        Grants([Grant(each) for each in publish], [Grant(each) for each in subscribe], subject=subject),
        frozenset(scopes),
        None if lives_seconds is None else time.time() + lives_seconds,
        f"{subject}-key",
    )


def tokens_of(*principals: Principal, takes_cookies: bool = False) -> tuple[Authentication, FixedTokens]:
    """Authentication where the token of each principal is its subject, and the method behind it."""
    method = FixedTokens({each.subject: each for each in principals}, takes_cookies=takes_cookies)
    return Authentication([method]), method


def bearer(subject: str) -> dict[str, str]:
    """The header with a principal's token."""
    return {"Authorization": f"Bearer {subject}"}
