"""Where idempotency keys are kept: what is known of each, the protocol of a store, and one in memory.

Rules:

1. A key has one holder, the request that claimed it. Only the holder changes what is known, and only
   forwards: working, open, then lost or answered. Or it frees the key, and there is nothing.
2. A key whose request is under way, or whose outcome is open, is never pushed out. Finished ones are, the
   oldest first, and all of them after the window.
3. A store sees neither key nor request, but digests of both.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from app.problems import RETRY_AFTER_SECONDS, ProblemError, ProblemType

logger = logging.getLogger("tidegate.publishing")

HEADER: Final = "Idempotency-Key"
ENTRY_BYTES: Final = 700
"""About what an entry takes beside its answer."""

MAX_ANSWER_BYTES: Final = 262_144
"""Bound on the body of an answer that is kept."""

_ANSWERS_MIN: Final = 16
"""So many of the largest answers find room in memory."""
_TOLD_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request, as it was or will be sent.

    Attributes:
        status: the HTTP status.
        headers: names in lower case, and values; without Content-Length.
        body: the body.
        brief: what is kept instead of a body that is too large to keep, where there is such; a store never
            has it.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    brief: bytes | None = None


class State(IntEnum):
    """How far the request that claimed a key has come; it never goes back."""

    WORKING = 0
    """It is under way."""
    OPEN = 1
    """It was sent, its time was up, and the broker's answer may still come."""
    LOST = 2
    """It may have been sent, and whether it arrived will never be known."""
    ANSWERED = 3
    """It was answered, and that is the answer to every repetition."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a key.

    Attributes:
        fingerprint: the digest of the request that the key belongs to.
        qos: the QoS of what it publishes; of several messages the highest.
        holder: 16 bytes that no other claim has.
        state: how far it has come.
        answer: the answer, where the state is ANSWERED.
    """

    fingerprint: bytes
    qos: int
    holder: bytes
    state: State = State.WORKING
    answer: Answer | None = None


class Store(Protocol):
    """What keeps entries, each under the digest of a key.

    Attributes:
        memory: names what it keeps them in; where that is forgotten, the next has another name.
    """

    memory: str

    @property
    def max_answer_bytes(self) -> int:
        """Bound on the body of an answer, so that no key pushes out many others; the caller keeps to it."""

    async def claim(self, name: bytes, entry: Entry) -> Entry | None:
        """Put an entry where there is none, in one step.

        Returns:
            None where it was put, else the entry that is there.

        Raises:
            ProblemError: TOO_MANY_REQUESTS or IDEMPOTENCY_UNAVAILABLE: it cannot be kept.
        """

    async def put(self, name: bytes, entry: Entry) -> None:
        """Tell how far the holder has come; what cannot be told now is told later."""

    async def free(self, name: bytes, entry: Entry) -> None:
        """Forget what the holder claimed; what cannot be forgotten now is forgotten later."""

    async def close(self) -> None:
        """Let go of whatever the store has open."""


class _Finished(NamedTuple):
    entry: Entry
    ends_at: float
    size: int


class MemoryStore:
    """Keeps entries in this process.

    Args:
        window_seconds: how long a finished one is kept.
        max_keys: how many there may be in all.
        max_bytes: about the memory that they may take.
        clock: tells the time in seconds.
    """

    def __init__(
        self,
        *,
        window_seconds: float,
        max_keys: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.memory = secrets.token_hex(8)
        self._window_seconds = window_seconds
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: dict[bytes, Entry] = {}
        self._finished: OrderedDict[bytes, _Finished] = OrderedDict()
        self._bytes = 0
        self._told_at = -_TOLD_SECONDS

    @property
    def max_answer_bytes(self) -> int:
        """``Store.max_answer_bytes``."""
        return min(MAX_ANSWER_BYTES, self._max_bytes // _ANSWERS_MIN)

    @property
    def key_count(self) -> int:
        """How many keys are kept."""
        return len(self._held) + len(self._finished)

    @property
    def byte_count(self) -> int:
        """About the memory that they take."""
        return self._bytes

    async def claim(self, name: bytes, entry: Entry) -> Entry | None:
        """``Store.claim``."""
        self._forget_old()
        finished = self._finished.get(name)
        found = self._held.get(name) if finished is None else finished.entry
        if found is not None:
            return found
        while self.key_count >= self._max_keys or self._bytes + ENTRY_BYTES > self._max_bytes:
            if not self._finished:
                raise self._full()
            self._push_out()
        self._held[name] = entry
        self._bytes += ENTRY_BYTES
        return None

    async def put(self, name: bytes, entry: Entry) -> None:
        """``Store.put``."""
        if entry.state < State.LOST:
            self._held[name] = entry
            return
        del self._held[name]
        size = ENTRY_BYTES
        if entry.answer is not None:
            size += len(entry.answer.body) + sum(len(n) + len(v) for n, v in entry.answer.headers)
        self._bytes += size - ENTRY_BYTES
        self._finished[name] = _Finished(entry, self._clock() + self._window_seconds, size)
        while self._bytes > self._max_bytes and self._finished:
            self._push_out()

    async def free(self, name: bytes, entry: Entry) -> None:
        """``Store.free``."""
        del self._held[name]
        self._bytes -= ENTRY_BYTES

    async def close(self) -> None:
        """``Store.close``; nothing is open."""

    def _forget_old(self) -> None:
        now = self._clock()
        while self._finished and next(iter(self._finished.values())).ends_at <= now:
            self._forget_oldest()

    def _push_out(self) -> None:
        now = self._clock()
        if now - self._told_at >= _TOLD_SECONDS:
            self._told_at = now
            logger.warning(
                "idempotency keys are forgotten before their window is over: there are more than "
                "TIDEGATE_IDEMPOTENCY_MAX_KEYS or TIDEGATE_IDEMPOTENCY_MAX_BYTES allows"
            )
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._bytes -= self._finished.popitem(last=False)[1].size

    def _full(self) -> ProblemError:
        is_many = self.key_count >= self._max_keys
        bound = "TIDEGATE_IDEMPOTENCY_MAX_KEYS" if is_many else "TIDEGATE_IDEMPOTENCY_MAX_BYTES"
        return ProblemError(
            ProblemType.TOO_MANY_REQUESTS,
            f"{self.key_count} requests with an Idempotency-Key are under way, as many as {bound} allows; "
            "nothing was sent",
            field=HEADER,
            hint="make the same request again in a moment",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
