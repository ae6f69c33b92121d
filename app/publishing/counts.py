"""What became of messages to publish, counted where their outcome is known.

Rules:

1. A message that came as far as the gate has one outcome: ``accepted``, ``refused`` (by a check or by the
   broker), ``unavailable`` (nothing was sent, and the same may be tried again) or ``unknown`` (it was sent,
   and nobody answered). So has a message of a batch that could not be read, whose QoS nobody knows.
2. The reason is the broker's reason code, or the type of the problem that the caller was answered with.
3. How long it took is kept of single messages that were accepted. In a batch a message waits for others of
   the same batch, which says nothing about the broker.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from app.problems import ProblemError, problem_of
from tidegate.errors import MQTTError, refusal
from tidegate.message import Message
from tidegate.reason_codes import describe

REFUSING: Final = 0x80
"""The first reason code that stands for a failure (MQTT 5 §2.4)."""

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds. A broker beside the bridge answers in one millisecond, one overseas in 200."""


class Outcome(NamedTuple):
    """What messages are counted by; few values each, whatever callers send.

    Attributes:
        qos: ``0``, ``1``, ``2`` or ``none``.
        outcome: see rule 1.
        reason: see rule 2.
    """

    qos: str
    outcome: str
    reason: str


class Durations:
    """How often something took how long.

    Attributes:
        counts: how often it fell into each bucket of ``BUCKETS``, and last how often beyond.
        seconds: all of it together.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0


class PublishCounts:
    """Counted since the start.

    Attributes:
        durations: from the gate to the broker's answer, by QoS; with QoS 0 to the socket.
    """

    def __init__(self) -> None:
        self._accepted = tuple([0] * REFUSING for _ in range(3))
        self._failed: Counter[Outcome] = Counter()
        self.durations = (Durations(), Durations(), Durations())

    def accept(self, qos: int, reason_code: int) -> None:
        """A message was handed over (QoS 0) or the broker took it (QoS 1 and 2)."""
        self._accepted[qos][reason_code] += 1

    def accept_single(self, qos: int, reason_code: int, seconds: float) -> None:
        """So was one that waited for no other, and took so long."""
        self._accepted[qos][reason_code] += 1
        durations = self.durations[qos]
        durations.counts[bisect_left(BUCKETS, seconds)] += 1
        durations.seconds += seconds

    def fail(self, qos: int | None, error: ProblemError | MQTTError) -> None:
        """A message was not, or nobody knows."""
        kind = (error if isinstance(error, ProblemError) else problem_of(error)).kind
        outcome = {503: "unavailable", 504: "unknown"}.get(kind.status, "refused")
        self._failed[Outcome("none" if qos is None else str(qos), outcome, kind.slug)] += 1

    def settle(
        self, message: Message, future: asyncio.Future[int], seconds: float | None = None
    ) -> MQTTError | None:
        """Count a message that was submitted; return what made it fail, if it did.

        Args:
            message: the message.
            future: that of ``submit``, which is done.
            seconds: how long it took, where it waited for no other.
        """
        error = future.exception()
        if error is None:
            reason_code = future.result()
            if reason_code < REFUSING:
                if seconds is None:
                    self.accept(message.qos, reason_code)
                else:
                    self.accept_single(message.qos, reason_code, seconds)
                return None
            error = refusal("publish", reason_code, topic=message.topic, qos=message.qos)
        if not isinstance(error, MQTTError):
            raise error
        self.fail(message.qos, error)
        return error

    def __iter__(self) -> Iterator[tuple[Outcome, int]]:
        """Each outcome that there was, and how often."""
        for qos, counted in enumerate(self._accepted):
            for reason_code, count in enumerate(counted):
                if count:
                    reason = describe(reason_code).lower().replace(" ", "-")
                    yield Outcome(str(qos), "accepted", reason), count
        yield from self._failed.items()
