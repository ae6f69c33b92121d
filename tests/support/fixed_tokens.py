"""A way to show who one is for tests: a table of tokens, which a test may change while the bridge runs."""

from __future__ import annotations

from app.problems import ProblemError, ProblemType
from app.security.authentication import Ended, Scope
from app.security.grants import Grant, Grants
from app.security.principal import Principal, Source


class FixedTokens:
    """Takes ``Authorization: Bearer`` with a token of the table (``app.security.authentication.Method``).

    Args:
        principals: who has which token.

    Attributes:
        principals: the table.
        revoked: principals that are good no more.
    """

    challenge = "Bearer"

    def __init__(self, **principals: Principal) -> None:
        self.principals = principals
        self.revoked: set[Principal] = set()

    def recall(self, scope: Scope) -> Principal | None:
        """The principal, where its token is in the table."""
        principal = self.principals.get(_token(scope))
        return None if principal is None or self.why_ended(principal) else principal

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The principal; a token that is not in the table is refused."""
        if not _token(scope):
            return None
        principal = self.recall(scope)
        if principal is None:
            raise ProblemError(ProblemType.UNAUTHENTICATED, "the token is not known", field="Authorization")
        return principal

    def why_ended(self, principal: Principal) -> Ended | None:
        """Whether it was revoked or has expired."""
        if principal in self.revoked:
            return Ended.REVOKED
        return Ended.EXPIRED if principal.has_expired() else None

    async def close(self) -> None:
        """There is nothing to release."""


def principal(
    subject: str,
    *,
    publish: tuple[str | Grant, ...] = (),
    subscribe: tuple[str | Grant, ...] = (),
    scopes: tuple[str, ...] = (),
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


def _token(scope: Scope) -> str:
    value = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"authorization"), "")
    return value.removeprefix("Bearer ")
