"""Has listeners written: at once while there is time, in bigger pieces as soon as there is not.

Listeners that have something to write stand in line. One round writes those that stand there when it
begins, a slice of them in each turn of the loop. After a round the flusher rests for as long as the round
took: writing takes half of the loop's time at most, and the other half is for reading from the broker and for
requests. What arrives meanwhile leaves with the next round, several events in one write. So the cost of a
delivery falls as the load rises, and a bridge that has little to do writes without delay.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import perf_counter
from typing import Final

from app.hub.listener import Writer

logger = logging.getLogger("tidegate.streams")

SLICE: Final = 128
"""Listeners written in one turn of the loop."""

SHORT_SECONDS: Final = 0.002
"""A round that took less is not worth a rest."""


class Flusher:
    """The line of listeners with something to write."""

    def __init__(self) -> None:
        self._line: deque[Writer] = deque()
        self._round = 0
        self._took_seconds = 0.0
        self._is_scheduled = False

    def add(self, writer: Writer) -> None:
        """Have a listener written soon."""
        self._line.append(writer)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._write_slice)

    def _write_slice(self) -> None:
        began = perf_counter()
        line = self._line
        if self._round <= 0:
            self._round = len(line)
            self._took_seconds = 0.0
        for _ in range(min(SLICE, self._round)):
            writer = line.popleft()
            try:
                writer.write()
            except Exception:
                logger.exception("writing to a stream failed")
        self._round -= SLICE
        self._took_seconds += perf_counter() - began
        loop = asyncio.get_running_loop()
        if self._round > 0:
            loop.call_soon(self._write_slice)
        elif self._took_seconds >= SHORT_SECONDS:
            loop.call_later(self._took_seconds, self._write_slice)
        elif line:
            loop.call_soon(self._write_slice)
        else:
            self._is_scheduled = False
