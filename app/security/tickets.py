"""Tickets: what a browser shows where it can set no header, for one stream or one WebSocket.

Rules:

1. A ticket is 256 random bits. Only its hash is kept, and what is kept with it is sealed with the ticket
   itself, so that nothing that is kept can be read or used.
2. It is good for half a minute, and once: it is taken from the store in one step, before anything is asked
   of it, and is used up whatever comes of it.
3. It holds what the request for it showed. That is looked at again when it is used, so that it makes the
   principal that whoever asked is then, at any replica, with part of its grants and none of its scopes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Protocol

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.problems import ProblemError, ProblemType
from app.security.grants import Grant, Grants
from app.security.principal import Principal, Source

LIFETIME_SECONDS: Final = 30
MAX_TICKETS: Final = 10_000
"""How many may wait in the memory of one bridge."""

_BYTES: Final = 32
_NONCE: Final = bytes(12)


class Purpose(Enum):
    """What a ticket is for.

    Attributes:
        words: the same, for people.
    """

    SUBSCRIBE = ("subscribe", "a stream")
    WEBSOCKET = ("websocket", "a WebSocket")

    def __init__(self, label: str, words: str) -> None:
        self.label = label
        self.words = words


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a ticket was good for.

    Attributes:
        purpose: what it is for.
        scope: what the request for it showed: headers and address, as in its scope (ASGI).
        grants: what it carries; None for all that who asked is granted.
    """

    purpose: Purpose
    scope: dict[str, Any]
    grants: Grants | None

    def principal(self, asked_by: Principal) -> Principal | None:
        """The principal that it makes; None where who asked is not granted as much any more.

        Args:
            asked_by: who asked for it, as that one is now.
        """
        grants = asked_by.grants if self.grants is None else self.grants
        if self.grants is not None and not asked_by.grants.include(self.grants):
            return None
        return Principal(
            asked_by.subject,
            Source.TICKET,
            grants,
            expires_at=asked_by.expires_at,
            credential_id=asked_by.credential_id,
            address=asked_by.address,
            asked_by=asked_by,
        )


class TicketStore(Protocol):
    """Keeps what tickets are good for, under their hashes."""

    async def put(self, name: bytes, value: bytes) -> None:
        """Keep a value for ``LIFETIME_SECONDS``.

        Raises:
            ProblemError: TOO_MANY_REQUESTS or TICKETS_UNAVAILABLE: it cannot be kept.
        """

    async def take(self, name: bytes) -> bytes | None:
        """Hand over a value and forget it, in one step: of several who ask, one gets it.

        Raises:
            ProblemError: TICKETS_UNAVAILABLE.
        """

    async def close(self) -> None:
        """Let go of whatever the store has open."""


class MemoryTicketStore:
    """Keeps them in this process.

    Args:
        max_tickets: how many there may be.
        clock: tells the time in seconds.
    """

    def __init__(
        self, *, max_tickets: int = MAX_TICKETS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_tickets = max_tickets
        self._clock = clock
        self._kept: dict[bytes, tuple[float, bytes]] = {}

    async def put(self, name: bytes, value: bytes) -> None:
        """``TicketStore.put``."""
        now = self._clock()
        self._forget(now)
        if len(self._kept) >= self._max_tickets:
            raise ProblemError(
                ProblemType.TOO_MANY_REQUESTS,
                f"{self._max_tickets} tickets wait to be used: as many as may be",
                headers={"Retry-After": str(LIFETIME_SECONDS)},
            )
        self._kept[name] = (now + LIFETIME_SECONDS, value)

    async def take(self, name: bytes) -> bytes | None:
        """``TicketStore.take``."""
        ends_at, value = self._kept.pop(name, (0.0, None))
        return value if self._clock() < ends_at else None

    async def close(self) -> None:
        """``TicketStore.close``."""
        self._kept.clear()

    def _forget(self, now: float) -> None:
        """Drop what is over; the oldest come first, as all live equally long."""
        for name, (ends_at, _) in tuple(self._kept.items()):
            if ends_at > now:
                return
            del self._kept[name]


class Tickets:
    """Gives tickets, and takes them.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: TicketStore) -> None:
        self._store = store

    async def issue(self, scope: Mapping[str, Any], purpose: Purpose, grants: Grants | None) -> str:
        """A new ticket, good for ``LIFETIME_SECONDS``.

        Args:
            scope: the request for it (ASGI).
            purpose: what it is for.
            grants: the part of the principal's grants that it carries; None for all.

        Raises:
            ProblemError: TOO_MANY_REQUESTS or TICKETS_UNAVAILABLE.
        """
        ticket = secrets.token_urlsafe(_BYTES)
        sealed = _seal(ticket).encrypt(_NONCE, _write(scope, purpose, grants), None)
        await self._store.put(_name(ticket), sealed)
        return ticket

    async def redeem(self, ticket: str) -> Redeemed | None:
        """What a ticket is good for; None where there is no such ticket, or no more.

        Raises:
            ProblemError: TICKETS_UNAVAILABLE.
        """
        found = await self._store.take(_name(ticket))
        return None if found is None else _read(_seal(ticket).decrypt(_NONCE, found, None))

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()


def _name(ticket: str) -> bytes:
    """The hash; looking it up tells nothing about a ticket, however long it takes."""
    return sha256(ticket.encode("utf-8", "surrogatepass")).digest()


def _seal(ticket: str) -> AESGCM:
    """What seals a ticket's record; each ticket has a key of its own, used once."""
    return AESGCM(sha256(b"seal " + ticket.encode("utf-8", "surrogatepass")).digest())


def _write(scope: Mapping[str, Any], purpose: Purpose, grants: Grants | None) -> bytes:
    return orjson.dumps(
        {
            "purpose": purpose.name,
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]
            ],
            "client": scope.get("client"),
            "grants": None if grants is None else [_listed(grants.publish), _listed(grants.subscribe)],
        }
    )


def _listed(grants: tuple[Grant, ...]) -> list[tuple[str, int, bool]]:
    return [(each.topic_filter, each.max_qos, each.may_retain) for each in grants]


def _read(record: bytes) -> Redeemed:
    kept: dict[str, Any] = orjson.loads(record)
    scope = {
        "type": "http",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept["headers"]],
        "client": None if kept["client"] is None else tuple(kept["client"]),
    }
    grants = kept["grants"]
    if grants is not None:
        publish, subscribe = ([Grant(*each) for each in listed] for listed in grants)
        grants = Grants(publish, subscribe)
    return Redeemed(Purpose[kept["purpose"]], scope, grants)
