"""Sending from the hub's turn of the loop: ASGI's ``send``, without a task as long as it does not wait.

A stream's request has a task, but waking it for each delivery costs more than the delivery. ``send`` waits
only while the connection's buffer is full. So it is called where the message arrives, and taken its first
step by hand; nearly always that was all. Where it waits, a task takes over from there, and ``is_blocked``
holds until it is through.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from types import coroutine
from typing import Any, Protocol

from starlette.types import Send

logger = logging.getLogger("tidegate.streams")


class Sender(Protocol):
    """Whose messages are sent."""

    def write(self) -> None:
        """The connection takes something again, or never will."""

    def give_up(self) -> None:
        """It took nothing for too long; nothing can be sent any more."""


class Sending:
    """Sends over one connection.

    Args:
        send: ASGI's.
        sender: whose messages they are.
        timeout_seconds: how long the connection may take nothing.
        unsent_bytes: how much was written and is not with the kernel yet; where it cannot be known, the whole
            of one message has to be taken in the time.

    Attributes:
        is_blocked: nothing may be sent at the moment.
        has_failed: nothing can be sent any more.
    """

    __slots__ = (
        "_send",
        "_sender",
        "_task",
        "_timeout_seconds",
        "_timer",
        "_unsent_bytes",
        "has_failed",
        "is_blocked",
    )

    def __init__(
        self,
        send: Send,
        sender: Sender,
        *,
        timeout_seconds: float,
        unsent_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._send = send
        self._unsent_bytes = unsent_bytes or _unknown
        self._timeout_seconds = timeout_seconds
        self._sender = sender
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_blocked = False
        self.has_failed = False

    def send(self, message: MutableMapping[str, Any]) -> None:
        """Send an ASGI message; must not be called while blocked."""
        try:
            steps = self._send(message).__await__()
            waits_for = next(steps)
        except StopIteration:
            return
        except Exception:  # what a server raises for a connection that is gone is its own affair
            logger.debug("sending failed", exc_info=True)
            self.is_blocked = self.has_failed = True  # ``receive`` tells the request's task
            return
        self.is_blocked = True
        self._task = asyncio.get_running_loop().create_task(self._finish(_rest(steps, waits_for)))

    def cancel(self) -> None:
        """Give up what waits."""
        if self._task is not None:
            self._task.cancel()

    async def _finish(self, rest: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(None) as bound:
                self._watch(bound, None)
                await rest
        except TimeoutError:
            self.has_failed = True
            self._sender.give_up()
            return
        except Exception:
            logger.debug("sending failed", exc_info=True)
            self.has_failed = True
        else:
            self.is_blocked = False
        finally:
            self._task = None
            if self._timer is not None:
                self._timer.cancel()
        self._sender.write()

    def _watch(self, bound: asyncio.Timeout, before: int | None) -> None:
        """End the wait where nothing went since the last look; look again later where something did."""
        loop = asyncio.get_running_loop()
        unsent = self._unsent_bytes()
        if before is not None and unsent >= before:
            bound.reschedule(loop.time())
        else:
            self._timer = loop.call_later(self._timeout_seconds, self._watch, bound, unsent)


def _unknown() -> int:
    return 0


@coroutine
def _rest(steps: Generator[Any, None, None], waits_for: Any) -> Generator[Any, None, None]:
    """What is left of an awaitable whose first step was taken, and yielded what it waits for."""
    try:
        yield waits_for
    except BaseException as error:
        steps.throw(error)
        raise
    yield from steps
