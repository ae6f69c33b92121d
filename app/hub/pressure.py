"""What all readers together may leave unread: whose stream ends when it is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from app.hub.listener import Listener


def over_limit(listeners: Iterable[Listener], max_bytes: int, let_go: int = 0) -> list[Listener]:
    """The listeners to close, so that what the others hold is within the bound.

    First those in the middle of a replay, the oldest first; then those whose buffers hold most. An event that
    many hold is in memory once, and is counted once. What the journal still has of a replay costs nothing: a
    replay counts as far as the journal has let go since it was taken.

    Args:
        listeners: all listeners.
        max_bytes: the bound, in bytes, as events count themselves.
        let_go: what the journal has let go up to now, in bytes.
    """
    holding: list[Listener] = []
    replaying: list[Listener] = []
    for each in listeners:
        if each.buffer.size:
            holding.append(each)
        if each.replay_bytes and each.replays_since < let_go:
            replaying.append(each)
    replayed = sum(_pinned(each, let_go) for each in replaying)
    if sum(each.buffer.size for each in holding) + replayed <= max_bytes:
        return []
    buffered = _Buffered(holding)
    closing: dict[Listener, None] = {}
    for listener in sorted(replaying, key=lambda each: each.replays_since):
        if buffered.size + min(replayed, let_go - listener.replays_since) <= max_bytes:
            return list(closing)
        closing[listener] = None
        replayed -= _pinned(listener, let_go)
        buffered.discard(listener)
    for listener in sorted(holding, key=lambda each: each.buffer.size, reverse=True):
        if buffered.size <= max_bytes:
            break
        if listener not in closing:
            closing[listener] = None
            buffered.discard(listener)
    return list(closing)


def _pinned(listener: Listener, let_go: int) -> int:
    """At most so much of a listener's replay is in memory for it alone."""
    return min(listener.replay_bytes, let_go - listener.replays_since)


class _Buffered:
    """What buffers hold. Attributes: ``size``, in bytes, each event counted once."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self.size = 0
        self._holders: Counter[int] = Counter()
        for listener in listeners:
            for event in listener.buffer:
                if not self._holders[id(event)]:
                    self.size += event.size
                self._holders[id(event)] += 1

    def discard(self, listener: Listener) -> None:
        """Without what this one alone holds."""
        for event in listener.buffer:
            self._holders[id(event)] -= 1
            if not self._holders[id(event)]:
                self.size -= event.size
