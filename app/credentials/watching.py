"""When to look at a folder again: as soon as something in it changes, and every few seconds besides.

A network file system tells nothing of what another machine does, and neither does a system that has no watch
left to give; so whoever looks compares what is there with what was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

from watchfiles import awatch

POLL_SECONDS: Final = 5.0

_DEBOUNCE_MILLISECONDS: Final = 200
_STEP_MILLISECONDS: Final = 20


async def wake_ups(
    path: Path, stop: asyncio.Event, *, poll_seconds: float = POLL_SECONDS
) -> AsyncGenerator[None, None]:
    """Yield whenever it is time to look at a folder, whether it is there or not, until told to stop.

    The first time is at once, and from then on no change is missed.

    Args:
        path: the folder; what lies in folders within does not count.
        stop: ends it, soon after it is set; may be set by this too, at its end.
        poll_seconds: the longest time between two looks.
    """
    while not stop.is_set():
        try:
            async with aclosing(
                awatch(
                    path,
                    watch_filter=None,
                    debounce=_DEBOUNCE_MILLISECONDS,
                    step=_STEP_MILLISECONDS,
                    stop_event=stop,
                    rust_timeout=int(poll_seconds * 1000),
                    yield_on_timeout=True,
                    recursive=False,
                )
            ) as changes:
                first = asyncio.ensure_future(anext(changes, None))
                try:
                    await asyncio.sleep(0)  # in which the watch begins
                    yield
                    await first
                finally:
                    first.cancel()
                    with suppress(asyncio.CancelledError, OSError, RuntimeError):
                        await first
                yield
                async for _ in changes:
                    yield
        except (OSError, RuntimeError):  # it is not there, or the system has no watch left
            await _sleep(stop, poll_seconds)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
