"""Replies: which message from the broker answers which request (MQTT 5 §4.10).

Rules:

1. Each request has a token that nobody can guess. It is the last level of the request's reply topic, under a
   prefix of this run of the bridge alone, and it is the request's correlation data.
2. The token in the topic finds the request; where a device echoes correlation data, that has to agree.
3. A retained message is not a reply: it was there before.
4. What nobody waits for, or not any more, is dropped and counted. It is never given to somebody else.
5. A lost connection ends no wait: the subscription comes back with it, and replies may come after all.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from app.problems import ProblemError, ProblemType
from tidegate.message import Message

MAX_GATHERED_BYTES: Final = 16 * 1_048_576
"""The payloads that one request may gather; it is answered with what it has when they are reached."""

QOS: Final = 1
"""That of the subscriptions for replies: a kept session loses none."""


class End(Enum):
    """Why a request waits no longer, other than that its time is up."""

    ANSWERED = auto()
    SHUTDOWN = auto()
    REFUSED = auto()


@dataclass(slots=True)
class ReplyCounts:
    """What became of requests and replies since the start.

    Attributes:
        waiting: requests that wait for a reply, or for their turn.
        answered: requests that were answered, in part maybe.
        timed_out: requests that were sent and got no reply in time.
        late_replies: replies to requests that waited no longer.
        unmatched_replies: messages on a reply topic that answer no request.
    """

    waiting: int = 0
    answered: int = 0
    timed_out: int = 0
    late_replies: int = 0
    unmatched_replies: int = 0


class Pending:
    """One request that waits.

    Args:
        wanted: how many replies it waits for.

    Attributes:
        token: its name at the broker.
        replies: those that came, in order.
        ended: done when it need not wait any longer.
        is_sent: it was handed to the connection, and may have reached a device.
        was_cut_off: the connection to the broker was lost meanwhile.
    """

    __slots__ = ("_before_loss", "_size", "_wanted", "ended", "is_sent", "replies", "token", "was_cut_off")

    def __init__(self, wanted: int = 1) -> None:
        self.token = secrets.token_hex(12)
        self.replies: list[Event] = []
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.is_sent = False
        self.was_cut_off = False
        self._wanted = wanted
        self._size = 0
        self._before_loss: Counter[Hashable] = Counter()

    @property
    def may_be_answered_late(self) -> bool:
        """Whether a reply may come that nobody waits for."""
        return self.is_sent and not (self.ended.done() and self.ended.result() is End.ANSWERED)

    @property
    def correlation_data(self) -> bytes:
        """What a device that speaks MQTT 5 sends back (§3.3.2.3.6)."""
        return self.token.encode("ascii")

    def sent(self) -> None:
        """It is handed to the connection; what comes from now on may be its reply."""
        self.is_sent = True

    def agrees(self, message: Message) -> bool:
        """Whether a message carries this request's correlation data, or none."""
        found = message.properties.correlation_data
        return found is None or found == self.correlation_data

    def take(self, event: Event) -> None:
        """Keep a reply; only as long as the request waits.

        A broker that resumes a session sends again what it believes unacknowledged, and marks it (MQTT 5
        §4.4). Such a copy is left out where the same came before the connection was lost, once for each
        time that it did: two devices may well say the same.
        """
        message = event.message
        if message.duplicate and self._before_loss[_content(message)] > 0:
            self._before_loss[_content(message)] -= 1
            return
        self.replies.append(event)
        self._size += len(message.payload)
        if len(self.replies) >= self._wanted or self._size >= MAX_GATHERED_BYTES:
            self.end(End.ANSWERED)

    def cut_off(self) -> None:
        """The connection to the broker was lost."""
        self.was_cut_off = True
        self._before_loss = Counter(_content(each.message) for each in self.replies)

    def end(self, end: End) -> None:
        """Wait no longer; the first reason stays."""
        if not self.ended.done():
            self.ended.set_result(end)


def _content(message: Message) -> Hashable:
    properties = message.properties
    return message.topic, message.payload, properties.correlation_data, properties.user_properties


class Inbox(Listener, ABC):
    """A subscription on which replies come: a listener that keeps nothing, and takes each message at once.

    Args:
        topic_filter: where they come.
        counts: where it counts what it drops.

    Attributes:
        pending: the requests that wait here, by token.
        is_open: the broker granted it.
    """

    is_internal = True

    def __init__(self, topic_filter: str, counts: ReplyCounts) -> None:
        super().__init__([topic_filter], qos=QOS, retained=False, is_resumable=False)
        self.pending: dict[str, Pending] = {}
        self._counts = counts
        self._joining: asyncio.Task[object] | None = None
        self.is_open = False

    async def open(self, hub: Hub) -> None:
        """Subscribe, once: those that ask meanwhile wait for the same answer.

        Raises:
            MQTTError: the broker refuses, is away or does not answer; the next caller tries again.
            ProblemError: the subscription has ended; nothing was sent.
        """
        while True:
            if self.close_reason is not None:
                raise self.has_ended()
            if self.is_open:
                return
            if self._joining is None:
                self._joining = asyncio.create_task(hub.join(self))
                self._joining.add_done_callback(self._joined)
            joining = self._joining
            # Whoever gives up must not take the subscription from the others.
            await asyncio.wait({joining})
            if not joining.cancelled():
                joining.result()

    def has_ended(self) -> ProblemError:
        """The refusal of a request that came too late for this subscription, or waited for its turn."""
        if self.close_reason is CloseReason.SHUTDOWN:
            return ProblemError(ProblemType.SHUTTING_DOWN, "the bridge stops; nothing was sent")
        return ProblemError(
            ProblemType.BROKER_UNAVAILABLE,
            f"the subscription for replies to {self.filters[0]!r} has ended; nothing was sent",
        )

    def _joined(self, joining: asyncio.Task[object]) -> None:
        self._joining = None
        with contextlib.suppress(asyncio.CancelledError):
            self.is_open = joining.exception() is None

    def offer(self, event: Event | ControlEvent) -> None:
        """Give a message to the request that it answers; remember that the connection was lost."""
        if isinstance(event, Event):
            self.receive(event)
        elif event.name == "broker" and event.facts["state"] == "down":
            for pending in self.pending.values():
                pending.cut_off()

    def close(self, reason: CloseReason) -> None:
        """The subscription ends, and with it every wait."""
        if self.close_reason is not None:
            return
        super().close(reason)
        if self._joining is not None:
            self._joining.cancel()
        end = End.SHUTDOWN if reason is CloseReason.SHUTDOWN else End.REFUSED
        for pending in self.pending.values():
            pending.end(end)

    @abstractmethod
    def receive(self, event: Event) -> None:
        """A message came; the hub hands a listener that asks for none no retained ones."""


class OwnInbox(Inbox):
    """The reply topics of this run of the bridge: one for each request, all under one subscription.

    Args:
        prefix: what they begin with, shared by all bridges.
        counts: where it counts what it drops.
    """

    def __init__(self, prefix: str, counts: ReplyCounts) -> None:
        self._root = f"{prefix}/{secrets.token_hex(8)}/"
        super().__init__(self._root + "+", counts)

    def topic_of(self, pending: Pending) -> str:
        """Where the reply to a request is expected (MQTT 5 §3.3.2.3.5)."""
        return self._root + pending.token

    def receive(self, event: Event) -> None:
        """Rules 2 and 4."""
        pending = self.pending.get(event.message.topic[len(self._root) :])
        if pending is None or pending.ended.done():
            self._counts.late_replies += 1
        elif pending.agrees(event.message):
            pending.take(event)
        else:
            self._counts.unmatched_replies += 1
