"""What all readers together may leave unread: whose stream ends when it is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from app.hub.listener import Listener


def over_limit(listeners: Iterable[Listener], max_bytes: int) -> list[Listener]:
    """The listeners to close, so that what the others hold is within the bound; those with most first.

    An event that many hold is in memory once, and is counted once.

    Args:
        listeners: all listeners.
        max_bytes: the bound, in bytes, as events count themselves.
    """
    holding = [each for each in listeners if each.buffer.size]
    if sum(each.buffer.size for each in holding) <= max_bytes:
        return []
    holders: Counter[int] = Counter()
    total = 0
    for listener in holding:
        for event in listener.buffer:
            if not holders[id(event)]:
                total += event.size
            holders[id(event)] += 1
    closing: list[Listener] = []
    for listener in sorted(holding, key=lambda each: each.buffer.size, reverse=True):
        if total <= max_bytes:
            break
        closing.append(listener)
        for event in listener.buffer:
            holders[id(event)] -= 1
            if not holders[id(event)]:
                total -= event.size
    return closing
