"""What was delivered lately, kept for clients that come back.

Rules:

1. One journal for the hub, one track for each filter. An event stands once, however many tracks it is on.
2. Bounded in messages, bytes and age, over all tracks together: the oldest goes first, whoever's it is.
3. A track knows how far back it reaches. What it can't give back, it says it can't: no hole is silent.
4. Retained copies are not kept: a broker gives them again for the asking.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence

from app.hub.event import Event


class Track:
    """The events of one filter, in order.

    Attributes:
        events: what is kept.
        begins_after: every event of this filter with a higher sequence number is in ``events``.
        lost_connection_at: messages may have been missed just before this sequence number.
        lost_qos_0_at: the same for who wants no more than QoS 0, for which no broker queues anything.
    """

    __slots__ = ("begins_after", "events", "lost_connection_at", "lost_qos_0_at")

    def __init__(self, begins_after: int) -> None:
        self.events: deque[Event] = deque()
        self.begins_after = begins_after
        self.lost_connection_at = 0
        self.lost_qos_0_at = 0

    def after(self, sequence: int) -> list[Event]:
        """What is kept of the events after this one, in order."""
        found: list[Event] = []
        for event in reversed(self.events):
            if event.sequence <= sequence:
                break
            found.append(event)
        found.reverse()
        return found


class Journal:
    """All tracks, and the bounds on them together.

    Args:
        max_messages: how many events are kept.
        max_bytes: about how much memory they may take.
        max_age_seconds: for how long.
    """

    def __init__(
        self,
        *,
        max_messages: int = 100_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_age_seconds: float = 300.0,
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._size = 0
        self._let_go = 0
        self._kept: OrderedDict[int, tuple[Event, tuple[Track, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """About how many bytes the events take."""
        return self._size

    @property
    def let_go(self) -> int:
        """What was let go since the beginning, in bytes, as events count themselves."""
        return self._let_go

    def add(self, event: Event, tracks: Sequence[Track]) -> None:
        """Keep an event, which is newer than any before."""
        self._kept[event.sequence] = (event, tuple(tracks))
        self._size += _weight(event)
        for track in tracks:
            track.events.append(event)
        self.trim()

    def trim(self) -> None:
        """Let go what is beyond the bounds."""
        kept = self._kept
        oldest_allowed = time.time() - self._max_age_seconds
        while kept:
            event, tracks = next(iter(kept.values()))
            if (
                len(kept) <= self._max_messages
                and self._size <= self._max_bytes
                and event.message.received_at >= oldest_allowed
            ):
                return
            kept.popitem(last=False)
            self._size -= _weight(event)
            self._let_go += event.size
            for track in tracks:
                track.events.popleft()
                track.begins_after = event.sequence

    def forget(self, track: Track) -> None:
        """Let go all that only this track needs."""
        for event in track.events:
            others = tuple(each for each in self._kept[event.sequence][1] if each is not track)
            if others:
                self._kept[event.sequence] = (event, others)
            else:
                del self._kept[event.sequence]
                self._size -= _weight(event)
                self._let_go += event.size
        track.events.clear()


def _weight(event: Event) -> int:
    """The memory of an event: the message, and the journal's own share."""
    return event.size + 400
