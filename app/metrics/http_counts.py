"""How often HTTP requests were answered how, and how long it took.

Rules:

1. A request is counted once: when the last of its answer is written, or when it is clear that there will be
   none. A stream is counted when it begins, since it ends when its reader likes.
2. What it is counted by has few values, whatever clients send: a method of HTTP, the template of a route, and
   a status that the bridge answers with.
3. Where a stream is written, nothing is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from app.publishing.counts import BUCKETS, Durations

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
"""Those of RFC 9110 §9.3 and RFC 5789."""

OTHER: Final = "other"
"""Every other method, and that of a head which could not be read."""

NO_ANSWER: Final = 0
"""In place of a status, where the client left before there was one."""


class Counted:
    """The requests of one method to one route.

    Attributes:
        by_status: how many were answered with each status.
        durations: from the head of a request to the end of its answer; of a stream to its beginning.
    """

    __slots__ = ("by_status", "durations")

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.durations = Durations()


class HttpCounts:
    """Counted since the start.

    Attributes:
        in_progress: requests that are neither answered nor given up; streams that began are not among them.
    """

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str], Counted] = {}
        self.in_progress = 0

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request that was in progress was answered.

        Args:
            method: as it came.
            route: the template of its path.
            status: that of the answer, or ``NO_ANSWER``.
            seconds: how long it took.
        """
        self.in_progress -= 1
        counted = self._counted.get((method, route)) or self._at(method, route)
        by_status = counted.by_status
        by_status[status] = by_status.get(status, 0) + 1
        durations = counted.durations
        durations.counts[bisect_left(BUCKETS, seconds)] += 1
        durations.seconds += seconds

    def count_refused_head(self, method: str, route: str, status: int) -> None:
        """A head was refused that did not become a request; how long that took says nothing."""
        by_status = self._at(method, route).by_status
        by_status[status] = by_status.get(status, 0) + 1

    def _at(self, method: str, route: str) -> Counted:
        return self._counted.setdefault((method if method in METHODS else OTHER, route), Counted())

    def __iter__(self) -> Iterator[tuple[tuple[str, str], Counted]]:
        """Each method and route that was asked for, with what became of its requests."""
        yield from self._counted.items()
