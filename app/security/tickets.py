"""Tickets: what a browser shows where it can set no header, for one stream or one WebSocket.

Rules:

1. A ticket is 256 random bits. Only its hash is kept, so that nothing that is kept can be used.
2. It is good for half a minute, and once: it is taken from the store in one step, before anything is asked
   of it, and is used up whatever comes of it.
3. It stands for the principal that asked for it, with part of its grants and none of its scopes, and for no
   longer than that one is good.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Protocol

import orjson

from app.problems import ProblemError, ProblemType
from app.security.grants import EveryGrant, Grant, Grants
from app.security.principal import Principal, Source

LIFETIME_SECONDS: Final = 30
MAX_TICKETS: Final = 10_000
"""How many may wait in the memory of one bridge."""

_BYTES: Final = 32


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
    """What a ticket was good for."""

    principal: Principal
    purpose: Purpose


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

    async def issue(self, principal: Principal, purpose: Purpose, grants: Grants) -> str:
        """A new ticket, good for ``LIFETIME_SECONDS``.

        Args:
            principal: who asks.
            purpose: what it is for.
            grants: the part of the principal's grants that it carries.

        Raises:
            ProblemError: TOO_MANY_REQUESTS or TICKETS_UNAVAILABLE.
        """
        ticket = secrets.token_urlsafe(_BYTES)
        await self._store.put(_name(ticket), _write(principal, purpose, grants))
        return ticket

    async def redeem(self, ticket: str) -> Redeemed | None:
        """What a ticket is good for; None where there is no such ticket, or no more.

        Raises:
            ProblemError: TICKETS_UNAVAILABLE.
        """
        found = await self._store.take(_name(ticket))
        return None if found is None else _read(found)

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()


def _name(ticket: str) -> bytes:
    """The hash; looking it up tells nothing about a ticket, however long it takes."""
    return sha256(ticket.encode("utf-8", "surrogatepass")).digest()


def _write(principal: Principal, purpose: Purpose, grants: Grants) -> bytes:
    return orjson.dumps(
        {
            "purpose": purpose.name,
            "subject": principal.subject,
            "source": principal.source,
            "expires_at": principal.expires_at,
            "credential_id": principal.credential_id,
            "publish": _listed(grants.publish),
            "subscribe": _listed(grants.subscribe),
            "is_all": isinstance(grants, EveryGrant),
        }
    )


def _listed(grants: tuple[Grant, ...]) -> list[tuple[str, int, bool]]:
    return [(each.topic_filter, each.max_qos, each.may_retain) for each in grants]


def _read(value: bytes) -> Redeemed:
    kept: dict[str, Any] = orjson.loads(value)
    grants = (
        EveryGrant()
        if kept["is_all"]
        else Grants([Grant(*each) for each in kept["publish"]], [Grant(*each) for each in kept["subscribe"]])
    )
    asked_by = Principal(
        kept["subject"],
        Source(kept["source"]),
        grants,
        expires_at=kept["expires_at"],
        credential_id=kept["credential_id"],
    )
    principal = Principal(
        asked_by.subject,
        Source.TICKET,
        grants,
        expires_at=asked_by.expires_at,
        credential_id=asked_by.credential_id,
        asked_by=asked_by,
    )
    return Redeemed(principal, Purpose[kept["purpose"]])
