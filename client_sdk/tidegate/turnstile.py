"""A place where many may be at once, or one who has it alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turnstile:
    """Lets tasks through, until somebody closes it."""

    def __init__(self) -> None:
        self._inside = 0
        self._is_closed = False
        self._change = asyncio.Event()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Be inside, together with others; waits while it is closed."""
        while self._is_closed:
            await self._change.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._tell()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Have it alone: nobody comes in, and those who are inside leave first."""
        while self._is_closed:
            await self._change.wait()
        self._is_closed = True
        try:
            while self._inside:
                await self._change.wait()
            yield
        finally:
            self._is_closed = False
            self._tell()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
