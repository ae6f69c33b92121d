"""Whether one topic filter covers another: all that the other matches, it matches too (MQTT 5 §4.7).

Rules:

1. Filters are compared as the sets of topic names that they match. ``a/#`` covers ``a/+/b``; ``a/+`` does not
   cover ``a/#``, which also matches ``a`` and ``a/b/c``.
2. A wildcard in the first level does not reach topics that begin with ``$`` (§4.7.2).
3. Of a shared subscription the filter behind ``$share/{name}/`` counts: that is what it delivers (§4.8.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.topics import split_share


def levels_of(topic_filter: str) -> tuple[str, ...]:
    """The levels of a valid filter, without ``$share/{name}/``; ``+/#`` is what ``#`` is, and becomes it."""
    levels = split_share(topic_filter)[1].split("/")
    return ("#",) if levels == ["+", "#"] else tuple(levels)


def covers(granted: str, asked: str) -> bool:
    """Whether every topic name that ``asked`` matches is one that ``granted`` matches; both are valid."""
    return covers_levels(levels_of(granted), levels_of(asked))


def covers_levels(granted: Sequence[str], asked: Sequence[str]) -> bool:
    """``covers``, for what ``levels_of`` returns."""
    if granted[0] in ("+", "#") and asked[0].startswith("$"):
        return False
    for index, level in enumerate(granted):
        if level == "#":
            return True
        if index == len(asked):
            return False
        other = asked[index]
        if other == "#" or level not in ("+", other):
            return False
    return len(asked) == len(granted)
