"""What a program publishes after it decorated a handler reaches the handler.

A decorated handler begins to listen in the background. Until the broker has granted its filters, publishes of
the process to the same broker or bridge wait.

Rules:

1. SUBACK is waited for. That PUBLISH follows SUBSCRIBE on one connection is enough for many brokers, but no
   clause of MQTT 5 says so: §4.6 orders PUBLISH packets alone. With two connections it is never enough.
2. A refusal ends the wait, and so does any other answer. While there is no connection, the wait goes on.
3. Publishes wait ``WAIT_SECONDS`` at most, from when they could have been sent; a handler that was waited for
   so long is not waited for again. Their own time-out counts meanwhile, and their order stays.
4. Where nothing begins, ``pending`` is empty, and to see that is all that a publish does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Hashable
from typing import Final

from tidegate.background import at_fork_in_child

logger = logging.getLogger("tidegate")

WAIT_SECONDS: Final = 5.0
"""How long publishes wait for handlers of which nothing is heard."""

_lock = threading.Lock()


class Beginning:
    """One handler that begins to listen.

    Args:
        place: what tells one broker or bridge from another; ``Transport.broker``.
    """

    def __init__(self, place: Hashable) -> None:
        self._place = place
        self._told: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        with _lock:
            pending.setdefault(place, {})[self] = None

    def end(self) -> None:
        """It listens, or need not be waited for; from any thread, and as often as one likes."""
        with _lock:
            here = pending.get(self._place, {})
            if self not in here:
                return
            del here[self]
            if not here:
                del pending[self._place]
            told, self._told = self._told, []
        for loop, call in told:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(call)

    def tell(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Have a function called on a loop when it ends; under the lock."""
        self._told.append((loop, call))


pending: Final[dict[Hashable, dict[Beginning, None]]] = {}
"""What begins, by place; read without the lock for whether there is anything."""


@at_fork_in_child
def _forget() -> None:
    """In a child process: the handlers are the parent's."""
    global _lock  # noqa: PLW0603 - another thread of the parent's may have held the lock
    _lock = threading.Lock()
    pending.clear()


class Deference:
    """Holds the publishes of one transport back while handlers begin; on the transport's loop.

    Args:
        place: the transport's; ``Transport.broker``.
        hold: called to have what is published from now on wait.
        release: called when it need not wait any more.
    """

    def __init__(self, place: Hashable, hold: Callable[[], None], release: Callable[[], None]) -> None:
        self._place = place
        self._hold = hold
        self._release = release
        self._awaited: set[Beginning] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_free = asyncio.Event()
        self._is_free.set()

    def defer(self, *, is_connected: bool) -> None:
        """Before a publish: let it wait for what begins now.

        Args:
            is_connected: whether it could be sent now.
        """
        loop = asyncio.get_running_loop()
        with _lock:
            found = [each for each in pending.get(self._place, ()) if each not in self._awaited]
            for each in found:
                each.tell(loop, functools.partial(self._over, each))
        if not found:
            return
        if not self._awaited:
            self._is_free.clear()
            self._hold()
        self._awaited.update(found)
        if is_connected:
            self.connected()

    def connected(self) -> None:
        """What waits could be sent now: the time counts from here."""
        if self._awaited and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WAIT_SECONDS, self._give_up)

    async def passed(self) -> None:
        """Wait until nothing is held back."""
        await self._is_free.wait()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._awaited:
            self._awaited.clear()
            self._free()

    def _over(self, beginning: Beginning) -> None:
        if beginning in self._awaited:
            self._awaited.remove(beginning)
            if not self._awaited:
                self._free()

    def _free(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_free.set()
        self._release()

    def _give_up(self) -> None:
        self._timer = None  # what begins from now on has a time of its own
        logger.warning(
            "publishes no longer wait for %d handlers that cannot listen yet; these may miss them",
            len(self._awaited),
        )
        for each in tuple(self._awaited):
            each.end()
