"""What waits for one reader: bounded in messages and in bytes, and what happens when it is full.

A full buffer takes nothing more with ``add``, whatever the policy: what it holds is to be written out first.
Where the reader does not take it, ``squeeze_in`` does what the policy says. ``resume`` gives up, so that the
stream ends and the client comes back with its last event id; ``latest`` keeps the newest message of each
topic; ``drop`` lets the oldest go. The last two say what they did: a ``lag`` event stands in front of what is
left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from app.hub.control import LagFacts
from app.hub.counts import HubCounts
from app.hub.event import ControlEvent, Event

MAX_SPARED_CONTROLS: Final = 16
"""Control events that outlive their place in a buffer that drops."""


class Policy(StrEnum):
    """What happens when a reader does not keep up."""

    RESUME = "resume"
    LATEST = "latest"
    DROP = "drop"


class Buffer:
    """Takes events in order until it is full.

    Args:
        max_messages: bound in events.
        max_bytes: bound in bytes, as events count themselves.
    """

    __slots__ = ("_events", "max_bytes", "max_messages", "size")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.size = 0
        self._events: list[Event | ControlEvent] = []

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event | ControlEvent]:
        return iter(self._events)

    def count_into(self, counts: HubCounts) -> None:
        """Name where it is counted what is let go; here nothing ever is."""
        del counts

    @property
    def first_sequence(self) -> int | None:
        """The number of the oldest message, or None where there is none."""
        return next((event.sequence for event in self if isinstance(event, Event)), None)

    def add(self, event: Event | ControlEvent) -> bool:
        """Take an event; False where there is no room. An empty buffer has room for any event."""
        if self._events and (
            len(self._events) >= self.max_messages or self.size + event.size > self.max_bytes
        ):
            return False
        self._events.append(event)
        self.size += event.size
        return True

    def squeeze_in(self, event: Event | ControlEvent) -> bool:
        """Take an event for which there is no room; False where the policy is to give up."""
        del event
        return False

    def take(self, max_bytes: int) -> list[Event | ControlEvent]:
        """Give away the oldest events, up to about this many bytes, and at least one if there is any."""
        events = self._events
        if self.size <= max_bytes:
            self._events = []
            self.size = 0
            return events
        head = take_head(events, max_bytes)
        self.size -= sum(event.size for event in head)
        return head


class DroppingBuffer(Buffer):
    """Lets the oldest go where there is no room."""

    __slots__ = ("_counts", "_dropped", "_spared")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        super().__init__(max_messages, max_bytes)
        self._counts: HubCounts | None = None
        self._dropped = 0
        self._spared: list[ControlEvent] = []

    def count_into(self, counts: HubCounts) -> None:
        """Name where it is counted what is let go."""
        self._counts = counts

    def squeeze_in(self, event: Event | ControlEvent) -> bool:
        """Take an event in any case."""
        while not super().add(event):
            oldest = self._events.pop(0)
            self.size -= oldest.size
            self._let_go(oldest)
        return True

    def take(self, max_bytes: int) -> list[Event | ControlEvent]:
        """As ``Buffer.take``, with a ``lag`` event in front where something was let go."""
        return self._told() + super().take(max_bytes)

    def _let_go(self, event: Event | ControlEvent) -> None:
        if isinstance(event, ControlEvent):
            self._spared = [*self._spared[1 - MAX_SPARED_CONTROLS :], event]
        else:
            self._dropped += 1

    def _told(self) -> list[Event | ControlEvent]:
        told: list[Event | ControlEvent] = []
        if self._dropped:
            told.append(LagFacts(dropped=self._dropped).event())
            if self._counts is not None:
                self._counts.lagged += 1
                self._counts.dropped += self._dropped
            self._dropped = 0
        told += self._spared
        self._spared = []
        return told


class ConflatingBuffer(DroppingBuffer):
    """Keeps the newest message of each topic: from the first overflow on until it is empty, or always.

    Args:
        max_messages: bound in events; beyond it the topic that was silent for longest is let go.
        max_bytes: bound in bytes.
        always: conflate from the start, and do not tell of it, since it was asked for.
        gives_up: where the topics alone are too many, be full rather than let one go.
    """

    __slots__ = ("_always", "_conflated", "_gives_up", "_newest")

    def __init__(
        self, max_messages: int, max_bytes: int, *, always: bool = False, gives_up: bool = False
    ) -> None:
        super().__init__(max_messages, max_bytes)
        self._always = always
        self._gives_up = gives_up
        self._conflated = 0
        self._newest: OrderedDict[object, Event | ControlEvent] | None = OrderedDict() if always else None

    def __len__(self) -> int:
        return len(self._events) if self._newest is None else len(self._newest)

    def __iter__(self) -> Iterator[Event | ControlEvent]:
        return iter(self._events if self._newest is None else self._newest.values())

    def add(self, event: Event | ControlEvent) -> bool:
        """Take an event; False where there is no room beside the newest of other topics."""
        newest = self._newest
        if newest is None:
            return Buffer.add(self, event)
        key = _key(event)
        earlier = newest.get(key)
        others, size = len(newest), self.size
        if earlier is not None:
            others -= 1
            size -= earlier.size
        if others and (others >= self.max_messages or size + event.size > self.max_bytes):
            return False
        if earlier is not None:
            del newest[key]
            self._conflated += 1
        newest[key] = event
        self.size = size + event.size
        return True

    def squeeze_in(self, event: Event | ControlEvent) -> bool:
        """Conflate from now on, and let the topics go that are silent for longest; False where it
        ``gives_up``.
        """
        if self._gives_up:
            return False
        if self._newest is None:
            self._newest = OrderedDict()
            events, self._events, self.size = self._events, [], 0
            for each in events:
                self._press(self._newest, each)
        self._press(self._newest, event)
        return True

    def take(self, max_bytes: int) -> list[Event | ControlEvent]:
        """As ``Buffer.take``, with a ``lag`` event in front where messages were let go or conflated."""
        told = self._told()
        if self._newest is not None:
            self._events = list(self._newest.values())
            self._newest.clear()
        taken = Buffer.take(self, max_bytes)
        if self._newest is not None and (self._events or self._always):
            for each in self._events:
                self._newest[_key(each)] = each
            self._events = []
        else:
            self._newest = None
        return told + taken

    def _press(self, newest: OrderedDict[object, Event | ControlEvent], event: Event | ControlEvent) -> None:
        earlier = newest.pop(_key(event), None)
        if earlier is not None:
            self.size -= earlier.size
            self._conflated += 1
        while not self.add(event):
            _, oldest = newest.popitem(last=False)
            self.size -= oldest.size
            self._let_go(oldest)

    def _told(self) -> list[Event | ControlEvent]:
        conflated, self._conflated = self._conflated, 0
        told = super()._told()
        counts = self._counts
        if conflated and not self._always:
            told.insert(0, LagFacts(conflated=conflated).event())
            if counts is not None:
                counts.lagged += 1
                counts.conflated += conflated
        elif conflated and counts is not None:
            counts.thinned += conflated
        return told


def take_head(events: list[Event | ControlEvent], max_bytes: int) -> list[Event | ControlEvent]:
    """Take the first events off a list, up to about this many bytes, and at least one if there is any."""
    size = 0
    count = 0
    for event in events:
        count += 1
        size += event.size
        if size >= max_bytes:
            break
    head = events[:count]
    del events[:count]
    return head


def _key(event: Event | ControlEvent) -> object:
    """What conflation goes by: the topic; a control event is one of its own."""
    return event if isinstance(event, ControlEvent) else event.message.topic


def make_buffer(policy: Policy, *, max_messages: int, max_bytes: int, conflates: bool) -> Buffer:
    """The buffer for a policy.

    Args:
        policy: what happens when it is full.
        max_messages: bound in events.
        max_bytes: bound in bytes.
        conflates: keep the newest of each topic alone from the start (``interval``).
    """
    if conflates:
        return ConflatingBuffer(max_messages, max_bytes, always=True, gives_up=policy is Policy.RESUME)
    if policy is Policy.LATEST:
        return ConflatingBuffer(max_messages, max_bytes)
    if policy is Policy.DROP:
        return DroppingBuffer(max_messages, max_bytes)
    return Buffer(max_messages, max_bytes)
