"""Tickets: what a browser shows where it can set no header, for one stream or one WebSocket.

Rules:

1. A ticket is 256 random bits. Only its hash is kept, and what is kept with it is sealed with the ticket
   itself, so that nothing that is kept can be read or used.
2. It is good for half a minute, and once: it is taken from the store in one step, before anything is asked
   of it, and is used up whatever comes of it.
3. It holds what the request for it showed. That is looked at again when it is used, so that it makes the
   principal that whoever asked is then, at any replica, with part of its grants and none of its scopes.
4. There is room for so many, and so large; nobody has more than a tenth of it.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
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
"""How many may wait, in the memory of one bridge or of all that share a store."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""What they may hold together: the headers that asked for them, and filters."""
SHARES: Final = 10
"""One caller may have so much less than all together."""
OF_ALL: Final = "tickets of all callers together"

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

    async def put(self, name: bytes, value: bytes, owner: str) -> None:
        """Keep a value for ``LIFETIME_SECONDS``, and count it for its owner.

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
        max_bytes: how much they may hold.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        *,
        max_tickets: int = MAX_TICKETS,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_tickets = max_tickets
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: dict[bytes, tuple[float, bytes, str]] = {}
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._all_bytes = 0

    async def put(self, name: bytes, value: bytes, owner: str) -> None:
        """``TicketStore.put``."""
        now = self._clock()
        self._forget(now)
        if (
            self._counts[owner] >= self._max_tickets // SHARES
            or self._bytes[owner] + len(value) > self._max_bytes // SHARES
        ):
            raise too_many(f"{self._counts[owner]} tickets of yours")
        if len(self._kept) >= self._max_tickets or self._all_bytes + len(value) > self._max_bytes:
            raise too_many(OF_ALL)
        self._kept[name] = (now + LIFETIME_SECONDS, value, owner)
        self._counts[owner] += 1
        self._bytes[owner] += len(value)
        self._all_bytes += len(value)

    async def take(self, name: bytes) -> bytes | None:
        """``TicketStore.take``."""
        ends_at, value = self._drop(name)
        return value if self._clock() < ends_at else None

    async def close(self) -> None:
        """``TicketStore.close``."""
        self._kept.clear()

    def _forget(self, now: float) -> None:
        """Drop what is over; the oldest come first, as all live equally long."""
        while self._kept:
            name = next(iter(self._kept))
            if self._kept[name][0] > now:
                return
            self._drop(name)

    def _drop(self, name: bytes) -> tuple[float, bytes | None]:
        """Forget one, and give what it was until when."""
        found = self._kept.pop(name, None)
        if found is None:
            return 0.0, None
        ends_at, value, owner = found
        self._all_bytes -= len(value)
        self._counts[owner] -= 1
        self._bytes[owner] -= len(value)
        if not self._counts[owner]:
            del self._counts[owner], self._bytes[owner]
        return ends_at, value


class Tickets:
    """Gives tickets, and takes them.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: TicketStore) -> None:
        self._store = store

    async def issue(
        self, scope: Mapping[str, Any], purpose: Purpose, grants: Grants | None, owner: str = ""
    ) -> str:
        """A new ticket, good for ``LIFETIME_SECONDS``.

        Args:
            scope: the request for it (ASGI).
            purpose: what it is for.
            grants: the part of the principal's grants that it carries; None for all.
            owner: whose bound it counts for: ``Principal.bounded_as``.

        Raises:
            ProblemError: TOO_MANY_REQUESTS or TICKETS_UNAVAILABLE.
        """
        ticket = secrets.token_urlsafe(_BYTES)
        sealed = _seal(ticket).encrypt(_NONCE, _write(scope, purpose, grants), None)
        await self._store.put(_name(ticket), sealed, owner)
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


def too_many(whose: str) -> ProblemError:
    """The refusal of a store that has no room.

    Args:
        whose: the tickets that take it.
    """
    return ProblemError(
        ProblemType.TOO_MANY_REQUESTS,
        f"{whose} wait to be used, or what they hold is as much as may be",
        headers={"Retry-After": str(LIFETIME_SECONDS)},
    )


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
