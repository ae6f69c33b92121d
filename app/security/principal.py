"""Who makes a request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Final

from app.security.grants import EveryGrant, Grants


class Source(Enum):
    """How a principal showed who it is."""

    NONE = "none"
    API_KEY = "api_key"
    JWT = "jwt"
    TICKET = "ticket"
    CLIENT_CERTIFICATE = "client_certificate"


class Permission(Enum):
    """The scopes: what is allowed beyond topics (OAuth 2.0, RFC 6749 §3.3)."""

    CREDENTIALS_READ = "credentials:read"
    CREDENTIALS_WRITE = "credentials:write"
    STATUS_READ = "status:read"
    METRICS_READ = "metrics:read"


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """Who makes a request, and what it may do. Two requests with one token have one and the same principal.

    Attributes:
        subject: its name: the ``sub`` of a JWT, the name of an API key, the subject of a certificate.
        source: how that was shown.
        grants: the topics.
        scopes: what else it may do; names that the bridge does not know mean nothing.
        expires_at: when it ends, in seconds since 1970; None where it does not by itself; may move.
        credential_id: which key or token it was: the id of an API key, the ``jti`` of a JWT; never a secret.
        asked_by: of a ticket, the principal that asked for it.
        address: where the request came from, of a bridge without authentication; else empty.
    """

    subject: str
    source: Source
    grants: Grants = field(repr=False)
    scopes: frozenset[str] = frozenset()
    expires_at: float | None = None
    credential_id: str | None = None
    asked_by: Principal | None = None
    address: str = ""

    @property
    def identity(self) -> str:
        """One text for each principal that there can be, as the owner of idempotency keys and of bounds.

        A ticket is no principal of its own: it stands for whoever asked for it.
        """
        return f"{(self.asked_by or self).source.value}:{self.subject}"

    @property
    def bounded_as(self) -> str:
        """Whose bounds count: its own, and without authentication those of the address."""
        return f"{(self.asked_by or self).source.value}:{self.address or self.subject}"

    def move_end(self, expires_at: float | None) -> None:
        """Let it end at another time, and whatever it holds with it.

        Args:
            expires_at: in seconds since 1970; None where it is not to end by itself.
        """
        object.__setattr__(self, "expires_at", expires_at)

    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and time.time() >= self.expires_at


ANYBODY: Final = Principal(
    "anonymous", Source.NONE, EveryGrant(), frozenset(each.value for each in Permission)
)
"""Whoever makes a request of a bridge without authentication."""


@lru_cache(maxsize=1024)
def anybody_at(address: str) -> Principal:
    """``ANYBODY``, from an address."""
    return replace(ANYBODY, address=address)
