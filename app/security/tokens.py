"""Requests with a JSON Web Token (RFC 7519): ``Authorization: Bearer``, or a cookie that an application sets.

Rules (RFC 8725):

1. The algorithms are those that the keys are good for, out of those configured; a token chooses among them
   and no further. Keys, URLs and certificates inside a token are not looked at; ``crit`` is refused.
2. ``exp`` and ``sub`` have to be there. A token for an audience is refused where none is configured.
3. Its size is bounded before anything of it is decoded.
4. A token is verified once. Its principal is kept by the token's digest, for as long as it holds.
5. A token from a cookie was sent by the browser and maybe not by the page: the request is marked, and its
   ``Origin`` has to be checked.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import jwt
from jwt.exceptions import InvalidSubjectError

from app.problems import ProblemError
from app.security.authentication import AMBIENT, Ended, Scope
from app.security.authorization_header import CHALLENGE, bearer_of, has_authorization, refusal
from app.security.claims import TokenPrincipal, principal_of_claims
from app.security.cookies import cookie_of
from app.security.key_records import PREFIX
from app.security.principal import Principal
from app.security.revoked_tokens import Revoked
from app.security.verification_keys import KeySource
from app.security.watched_file import WatchedFile

MAX_TOKEN_BYTES: Final = 8192
_KEPT: Final = 10_000
"""Principals kept; the one that was seen the longest ago goes first."""

_HINT: Final = "ask whoever issued it for a new one"

_FAULTS: Final[tuple[tuple[type[jwt.PyJWTError], str], ...]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet (nbf or iat)"),
    (jwt.InvalidIssuerError, "the token is of another issuer (iss)"),
    (jwt.InvalidAudienceError, "the token is for another audience (aud)"),
    (InvalidSubjectError, "the token's subject (sub) is no text"),
    (jwt.InvalidSignatureError, "the token's signature is wrong"),
)


class Tokens:
    """A way to show who one is (``Method``).

    Args:
        keys: what verifies tokens; whoever made it starts and closes it.
        issuer: who has to have issued them; anybody with the key where it is empty.
        audience: whom they have to be for, one of them.
        leeway_seconds: how far clocks may be apart.
        cookie: the name of a cookie that may hold one; none where it is empty.
        revoked: which hold no more; whoever made it starts and closes it.
    """

    challenge = CHALLENGE

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str = "",
        audience: Sequence[str] = (),
        leeway_seconds: float = 10,
        cookie: str = "",
        revoked: WatchedFile[Revoked] | None = None,
    ) -> None:
        self._keys = keys
        self._issuer = issuer or None
        self._audience = list(audience) or None
        self._leeway_seconds = leeway_seconds
        self._cookie = cookie.encode()
        self._revoked = revoked
        self._seen: OrderedDict[bytes, TokenPrincipal] = OrderedDict()

    def recall(self, scope: Scope) -> Principal | None:
        """The principal of a request with a token that was seen before and still holds."""
        token, _ = self._token_of(scope)
        if token is None:
            return None
        digest = hashlib.sha256(token).digest()
        principal = self._seen.get(digest)
        if principal is None:
            return None
        if principal.has_expired() or self._is_revoked(principal):
            del self._seen[digest]
            return None
        self._seen.move_to_end(digest)
        return principal

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The principal of a request with a token; None where it has none.

        Raises:
            ProblemError: UNAUTHENTICATED where the token is not good; the detail says why.
                AUTHENTICATION_UNAVAILABLE where the keys cannot be had.
        """
        token, field = self._token_of(scope)
        if token is None:
            return None
        try:
            principal = await self._verify(token)
        except ProblemError as problem:
            problem.field = problem.field and field
            raise
        kept = self._seen.setdefault(hashlib.sha256(token).digest(), principal)
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        return kept

    def why_ended(self, principal: Principal) -> Ended | None:
        """Whether a token is revoked, or was signed with a key that is good no more."""
        if isinstance(principal, TokenPrincipal) and self._is_revoked(principal):
            return Ended.REVOKED
        return None

    async def close(self) -> None:
        """Forget everybody."""
        self._seen.clear()

    def _token_of(self, scope: Scope) -> tuple[bytes | None, str]:
        """The token of a request, and where it was."""
        token = bearer_of(scope)
        if token is not None:
            return (None if token.startswith(PREFIX) else token), "Authorization"
        if not self._cookie or has_authorization(scope):
            return None, "Authorization"
        token = cookie_of(scope, self._cookie)
        if token is not None:
            scope[AMBIENT] = True
        return token, "Cookie"

    def _is_revoked(self, principal: TokenPrincipal) -> bool:
        if principal.key is not None and not self._keys.has(principal.key):
            return True
        return self._revoked is not None and self._revoked.value.has(principal)

    async def _verify(self, token: bytes) -> TokenPrincipal:
        if len(token) > MAX_TOKEN_BYTES:
            raise refusal(f"the token has {len(token)} bytes; at most {MAX_TOKEN_BYTES} are taken", _HINT)
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise refusal("the token is no signed JWT that can be read", "send it as it was issued") from None
        if "crit" in header or "b64" in header:
            raise refusal("the token asks for an extension (crit) that the bridge does not have", _HINT)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._keys.algorithms:
            raise refusal("the token is signed with an algorithm that is not taken", _HINT)
        key = await self._keys.find(header)
        try:
            principal = principal_of_claims(
                self._claims(token, key.key, algorithm), key, leeway_seconds=self._leeway_seconds
            )
        except jwt.PyJWTError as error:
            raise refusal(_words(error), _HINT) from None
        except (ValueError, OverflowError, RecursionError) as error:
            raise refusal(f"the token cannot be used: {error}", _HINT) from None
        if self._is_revoked(principal):
            raise refusal("the token is revoked", _HINT)
        return principal

    def _claims(self, token: bytes, key: Any, algorithm: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=self._leeway_seconds,
            options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
        )


def _words(error: jwt.PyJWTError) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token has no claim {error.claim}"
    return next((words for kind, words in _FAULTS if isinstance(error, kind)), "the token cannot be read")
