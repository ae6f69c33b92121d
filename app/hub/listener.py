"""One listener: a bounded buffer between the hub, which never waits, and a reader, which may be slow.

Rules:

1. ``offer`` is synchronous and never fails, whatever the writer does. A buffer that is full is written out
   first where the reader takes it, also in the pause of an ``interval``; where it does not, the policy
   decides, and ``resume`` closes the listener with ``TOO_SLOW``.
2. What was offered before the close can still be taken; the reason comes last.
3. Only the hub offers, only the writer takes. Anybody may close; the first reason stays.
4. The writer is called by the flusher, and not while it is ``blocked``: it then goes on by itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from enum import Enum
from typing import ClassVar, Final, Protocol

from app.hub.buffers import Buffer, Policy, make_buffer, take_head
from app.hub.control import CloseFacts
from app.hub.event import ControlEvent, Event
from tidegate.topics import matches, split_share

logger = logging.getLogger("tidegate.streams")

RETAINED_SECONDS: Final = 5.0
"""How long after the last of them more of the retained messages of a stream's beginning may come."""


class CloseReason(Enum):
    """Why a stream ended, and whether the same request may be made again."""

    CLIENT_LEFT = ("client_left", True)
    SHUTDOWN = ("shutdown", True)
    LIFETIME = ("lifetime", True)
    TOKEN_EXPIRED = ("token_expired", False)
    TOKEN_REVOKED = ("token_revoked", False)
    TOO_SLOW = ("too_slow", True)
    REFUSED = ("refused", False)
    SERVER_LIMIT = ("server_limit", True)
    LIMIT = ("limit", False)
    IDLE_TIMEOUT = ("idle_timeout", False)
    GAP = ("gap", True)

    def __init__(self, reason: str, may_reconnect: bool) -> None:
        self.reason = reason
        self.may_reconnect = may_reconnect

    @property
    def is_pressing(self) -> bool:
        """Whether a reader that takes nothing is not waited for."""
        return self in (CloseReason.SHUTDOWN, CloseReason.TOKEN_EXPIRED, CloseReason.TOKEN_REVOKED)

    def event(self) -> ControlEvent:
        """The last event of the stream."""
        return CloseFacts(self.reason, self.may_reconnect).event()


class Writer(Protocol):
    """Writes what a listener has pending."""

    def schedule(self) -> None:
        """See to it that ``write`` is called soon: there is something to take."""

    def write(self) -> None:
        """Take what is pending and write it; or be blocked, and do so later."""


class Owner(Protocol):
    """Whoever counts a listener as its own."""

    def left(self, listener: Listener) -> None:
        """The listener has left the hub."""


class Listener:
    """A stream's end of the hub.

    Args:
        filters: topic filters, valid, in the order given by the client.
        qos: the highest QoS wanted.
        retained: whether retained messages are wanted on joining.
        policy: what happens when the reader does not keep up.
        interval_seconds: nothing is given away more often than this, and of each topic the newest alone.
        limit: end after this many messages.
        max_messages: bound of the buffer in events.
        max_bytes: bound of the buffer in bytes.
        is_resumable: what it may miss is kept for a while after it left.
        form: what it is counted as; empty for one that is no stream.

    Attributes:
        is_internal: it belongs to the bridge itself, and counts as no stream.
        own_filters: the filters that are not shared, in an order that does not depend on the client's.
        owner: who counts it as its own; None for nobody.
        digest: that of the filters, for ids; set by the hub.
        is_due: there is something to take, or the listener was closed since it was taken from last.
        close_reason: why it was closed; None as long as it is open.
        retained_until: until when retained messages of the beginning may come, in seconds on the loop's
            clock; 0 where none are expected.
        replay_bytes: what is left of the replay, as events count themselves.
        replays_since: what the journal had let go when the replay was taken from it.
    """

    is_internal: ClassVar[bool] = False

    __slots__ = (
        "_begun",
        "_buffer",
        "_interval_seconds",
        "_left",
        "_max_messages",
        "_pause",
        "_replay",
        "_writer",
        "close_reason",
        "digest",
        "filters",
        "form",
        "is_due",
        "is_resumable",
        "own_filters",
        "owner",
        "owner",
        "qos",
        "replay_bytes",
        "replays_since",
        "retained",
        "retained_until",
    )

    def __init__(
        self,
        filters: Sequence[str],
        *,
        qos: int = 1,
        retained: bool = True,
        policy: Policy = Policy.RESUME,
        interval_seconds: float | None = None,
        limit: int | None = None,
        max_messages: int = 1000,
        max_bytes: int = 8 * 1024 * 1024,
        is_resumable: bool = True,
        form: str = "",
    ) -> None:
        self.filters = tuple(dict.fromkeys(filters))
        self.digest = ""
        self.owner: Owner | None = None
        own = tuple(sorted(each for each in self.filters if split_share(each)[0] is None))
        self.own_filters = self.filters if own == self.filters else own
        self.qos = qos
        self.retained = retained
        self.is_resumable = is_resumable
        self.form = form
        self.close_reason: CloseReason | None = None
        self.retained_until = 0.0
        self._begun: set[str] | None = None
        self._left = limit
        self._interval_seconds = interval_seconds
        self._pause: asyncio.TimerHandle | None = None
        self.is_due = False
        self._replay: list[Event | ControlEvent] = []
        self.replay_bytes = 0
        self.replays_since = 0
        self._writer: Writer | None = None
        self._max_messages = max_messages
        # Until there is a writer no reader can be slow, and the bytes alone bound what waits.
        self._buffer = make_buffer(
            policy, max_messages=max_bytes, max_bytes=max_bytes, conflates=interval_seconds is not None
        )

    @property
    def buffer(self) -> Buffer:
        """What waits."""
        return self._buffer

    @property
    def lacks_retained(self) -> bool:
        """Whether retained messages of the stream's beginning may still be on their way."""
        return self.retained_until > 0

    def attach(self, writer: Writer) -> None:
        """Begin to write."""
        self._writer = writer
        self._buffer.max_messages = self._max_messages
        if self.is_due:
            writer.schedule()

    def takes(self, topic: str, topic_filter: str) -> bool:
        """Whether a copy sent for this filter is the one to keep.

        Of several overlapping filters the first that matches is; the broker sends a copy for each.
        """
        own = self.own_filters
        if len(own) <= 1 or topic_filter not in own:
            return True
        for each in own:
            if each == topic_filter:
                return True
            if matches(each, topic):
                return False
        return True

    def replay(self, events: list[Event | ControlEvent], since: int = 0) -> None:
        """Have these taken before anything that is offered; once, before there is a writer.

        The journal bounds them, and not the buffer, so that a client can always catch up.

        Args:
            events: what was missed.
            since: what the journal has let go up to now.
        """
        if self._interval_seconds is not None:
            newest = {each.message.topic: each.sequence for each in events if isinstance(each, Event)}
            kept = set(newest.values())
            events = [each for each in events if isinstance(each, ControlEvent) or each.sequence in kept]
        self._replay = events
        self.replay_bytes = sum(event.size for event in events)
        self.replays_since = since
        self.is_due = bool(events)

    def offer(self, event: Event | ControlEvent) -> None:
        """Put an event into the buffer; where it does not fit, do what the policy says."""
        if self.close_reason is not None:
            return
        if not (self._buffer.add(event) or self._write_out(event)):
            return
        if not self.is_due and self._pause is None:
            self._fall_due()

    def close(self, reason: CloseReason) -> None:
        """Take no more; the first reason stays."""
        if self.close_reason is None:
            self.close_reason = reason
            self._stop_pausing()
            self._fall_due()

    def take(self, max_bytes: int) -> list[Event | ControlEvent]:
        """The oldest events that wait, up to about ``max_bytes``; empty where nothing does."""
        if self._left == 0:
            self.is_due = False
            return []
        if self._replay:
            events = take_head(self._replay, max_bytes)
            self.replay_bytes -= sum(event.size for event in events)
        else:
            events = self._buffer.take(max_bytes)
        if not self._buffer and not self._replay:
            self.is_due = False
        if self._left is not None:
            events = self._cut(events, self._left)
        if self.retained_until:
            self._see_retained(events)
        if (
            self._interval_seconds is not None
            and events
            and self._pause is None
            and self.close_reason is None
        ):
            self._pause = asyncio.get_running_loop().call_later(self._interval_seconds, self._end_pause)
        return events

    def _write_out(self, event: Event | ControlEvent) -> bool:
        """Make room for an event, and whether it was taken: the reader may be quick, and only the turn of the
        loop a long one, or the pause.
        """
        if self._pause is not None:
            self._stop_pausing()
            self.is_due = True
        if self._writer is not None:
            try:
                self._writer.write()
            except Exception:
                logger.exception("writing to a stream failed")
            if self.close_reason is not None:  # by what was written, such as the last of a limit
                return False
        if self._buffer.add(event) or self._buffer.squeeze_in(event):
            return True
        self.close(CloseReason.TOO_SLOW)
        return False

    def _fall_due(self) -> None:
        self.is_due = True
        if self._writer is not None:
            try:
                self._writer.schedule()
            except Exception:
                logger.exception("a stream could not be scheduled")

    def _end_pause(self) -> None:
        self._pause = None
        if self._buffer and not self.is_due:
            self._fall_due()

    def _stop_pausing(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def expect_retained(self) -> None:
        """Retained messages are on their way, and a client that leaves now has not seen them all."""
        self.retained_until = asyncio.get_running_loop().time() + RETAINED_SECONDS

    def expect_retained_anew(self) -> None:
        """They will be on their way once the connection to the broker is back."""
        self.retained_until = math.inf
        self._begun = None

    def begins(self, topic: str) -> bool:
        """Whether a retained message is the first that this listener sees of a topic, and is to be."""
        if not self.retained_until:
            return False
        if self._begun is None:
            self._begun = set()
        if topic in self._begun:
            return False
        self._begun.add(topic)
        return True

    def sees(self, topic: str) -> None:
        """A live message came: a retained one of the topic would be older."""
        if self.retained_until:
            self.begins(topic)

    def settle(self) -> bool:
        """Whether retained messages may still be on their way, now that some time has gone by."""
        self._see_retained([])
        return self.lacks_retained

    def discard(self) -> None:
        """Throw away what waits."""
        self._replay = []
        self.replay_bytes = 0
        self._buffer.take(self._buffer.size)

    def _see_retained(self, events: list[Event | ControlEvent]) -> None:
        if self.retained_until == math.inf:
            return
        if any(isinstance(event, Event) and event.message.retain for event in events):
            self.expect_retained()
        elif not self._buffer and asyncio.get_running_loop().time() > self.retained_until:
            self.retained_until = 0.0
            self._begun = None

    def _cut(self, events: list[Event | ControlEvent], left: int) -> list[Event | ControlEvent]:
        for index, event in enumerate(events):
            if isinstance(event, Event):
                left -= 1
                if left <= 0:
                    self._left = 0
                    self.close(CloseReason.LIMIT)
                    return events[: index + 1]
        self._left = left
        return events
