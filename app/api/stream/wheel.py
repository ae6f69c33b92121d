"""Wakes many at coarse times: one timer of the loop for all that are due together.

A timer for each stream would be exact, which nobody needs, and cost more than the rest of what an idle stream
has of its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final, Protocol

logger = logging.getLogger("tidegate.streams")

RESOLUTION_SECONDS: Final = 0.1


class Sleeper(Protocol):
    """What can be woken."""

    def look_after(self) -> None:
        """The time has come."""


class Wheel:
    """Sleepers by the time at which they are due, in steps of the resolution."""

    def __init__(self) -> None:
        self._due: dict[int, set[Sleeper]] = {}

    def add(self, sleeper: Sleeper, at: float) -> int:
        """Have a sleeper woken, not before ``at``, which is seconds on the loop's clock.

        Returns:
            What to give to ``discard``.
        """
        step = math.ceil(at / RESOLUTION_SECONDS)
        sleepers = self._due.get(step)
        if sleepers is None:
            sleepers = self._due[step] = set()
            asyncio.get_running_loop().call_at(step * RESOLUTION_SECONDS, self._wake, step)
        sleepers.add(sleeper)
        return step

    def discard(self, sleeper: Sleeper, step: int) -> None:
        """Let a sleeper be; it may have been woken already."""
        sleepers = self._due.get(step)
        if sleepers is not None:
            sleepers.discard(sleeper)

    def _wake(self, step: int) -> None:
        for sleeper in self._due.pop(step, ()):
            try:
                sleeper.look_after()
            except Exception:
                logger.exception("a stream could not be looked after")
