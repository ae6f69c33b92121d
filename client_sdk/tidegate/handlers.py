"""How a message reaches a handler.

Rules:

1. What kind of callable a handler is, is decided once, when it is given.
2. Each handler has a queue of its own and gets its messages one after the other, in order. One that blocks,
   or raises, holds up nobody else; what it raises is logged.
3. A synchronous handler runs in a thread of its own, a coroutine function on the loop that was running when
   it was given, else on the SDK's loop for handlers.
4. A queue is bounded; when it is full the oldest message is dropped, and the log says how many were.
5. Whoever waits for messages is woken once for all that came meanwhile. When they come thick and fast, the
   waking is put off by a millisecond: to change threads for each costs more than to handle it.
6. A message that does not fit what the handler's parameters are annotated with is logged, and the handler is
   not called (``tidegate.binding``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from tidegate.background import handlers as handlers_loop
from tidegate.background import running_loop
from tidegate.binding import Binding
from tidegate.formatters import Formatter
from tidegate.levels import NamedFilter
from tidegate.message import Message
from tidegate.typed import UnfitError

logger = logging.getLogger("tidegate")

MAX_QUEUED_MESSAGES: Final = 10_000

THICK_SECONDS: Final = 0.000_25
"""Messages that come at a shorter distance, on average, are handed over in batches."""

PUT_OFF_SECONDS: Final = 0.001
"""How long a batch is gathered."""


class Dispatch:
    """Hands the messages of one subscription to one handler.

    Args:
        handler: a function or coroutine function.
        formatter: what reads payloads.
        filters: the topic filters, whose named levels the handler may ask for.
        loop: where a coroutine function runs; the SDK's loop for handlers where it is left out.
        with_topic: the handler takes ``(topic, payload)``; else ``(payload)``.

    Attributes:
        owner: whose handler it is, kept from being collected as long as messages come for it.

    Raises:
        ConfigurationError: the handler has a parameter that nothing fills.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        formatter: Formatter,
        filters: Sequence[NamedFilter] = (),
        *,
        loop: asyncio.AbstractEventLoop | None,
        with_topic: bool,
    ) -> None:
        self.owner: object = None
        self._handler = handler
        self._arguments = Binding(handler, formatter, filters, with_topic=with_topic).arguments
        self._name = getattr(handler, "__name__", type(handler).__name__)
        self._messages: deque[Message] = deque()
        self._dropped = 0
        self._is_ended = False
        self._is_idle = False
        self._is_put_off = False
        self._came_at = 0.0
        self._distance = 1.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._turn = threading.Lock()
        self._turn.acquire()
        self._start: Callable[[], None] | None = self._start_thread
        if is_coroutine_function(handler):
            self._loop = loop or handlers_loop.loop
            self._start = self._start_task

    @property
    def is_of_module(self) -> bool:
        """Whether the handler is a function of a module, and not one that a call made."""
        return inspect.isfunction(self._handler) and "<locals>" not in self._handler.__qualname__

    def receive(self, message: Message) -> None:
        """Take a message; called on the connection's loop, and never waits."""
        if self._is_ended:
            return
        if self._loop is not None and self._loop.is_closed():
            self._is_ended = True
            logger.error("handler %s gets no more messages: its event loop is closed", self._name)
            return
        if len(self._messages) >= MAX_QUEUED_MESSAGES:
            self._drop_oldest()
        self._messages.append(message)
        now = time.monotonic()
        self._distance += (min(now - self._came_at, 1.0) - self._distance) / 8
        self._came_at = now
        if self._start is not None:
            start, self._start = self._start, None
            start()
        elif self._is_idle and not self._is_put_off:
            if self._distance < THICK_SECONDS:
                self._is_put_off = True
                asyncio.get_running_loop().call_later(PUT_OFF_SECONDS, self._wake_put_off)
            else:
                self._wake()

    def replace_handler(self, handler: Callable[..., Any]) -> None:
        """Call something else with the same parameters, of the same kind, from the next message on."""
        self._handler = handler

    def end(self) -> None:
        """Hand over nothing more; what is queued already is dropped."""
        self._is_ended = True
        self.owner = None
        self._wake()

    def _wake_put_off(self) -> None:
        self._is_put_off = False
        if self._is_idle:
            self._wake()

    def _wake(self) -> None:
        self._is_idle = False
        if self._loop is None:
            with contextlib.suppress(RuntimeError):  # it is awake, or is being woken
                self._turn.release()
        elif running_loop() is self._loop:
            self._arrived.set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._arrived.set)

    def _drop_oldest(self) -> None:
        try:
            self._messages.popleft()
        except IndexError:  # the handler took it meanwhile
            return
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # at 1, 2, 4, 8 …
            logger.warning("handler %s is too slow: %d messages dropped so far", self._name, self._dropped)

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name=f"tidegate handler {self._name}", daemon=True).start()

    def _run(self) -> None:
        while not self._is_ended:
            try:
                message = self._messages.popleft()
            except IndexError:
                self._is_idle = True
                if not self._messages and not self._is_ended:  # looked at again, since one may have come
                    self._turn.acquire()
                continue
            try:
                arguments, named = self._arguments(message)
                self._handler(*arguments, **named)
            except UnfitError as error:
                self._log_unfit(message, error)
            except BaseException:
                logger.exception("handler %s failed on a message from %r", self._name, message.topic)

    def _start_task(self) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._run_task(), self._loop)

    async def _run_task(self) -> None:
        while not self._is_ended:
            try:
                message = self._messages.popleft()
            except IndexError:
                self._arrived.clear()
                self._is_idle = True
                if not self._messages and not self._is_ended:  # looked at again, since one may have come
                    await self._arrived.wait()
                continue
            try:
                arguments, named = self._arguments(message)
                await self._handler(*arguments, **named)
            except UnfitError as error:
                self._log_unfit(message, error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                logger.exception("handler %s was cancelled by what it awaited", self._name)
            except GeneratorExit:
                raise
            except BaseException:
                logger.exception("handler %s failed on a message from %r", self._name, message.topic)

    def _log_unfit(self, message: Message, error: UnfitError) -> None:
        logger.warning(
            "handler %s was not called: the message from %r does not fit: %s",
            self._name,
            message.topic,
            error,
        )


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine; looks through ``functools.partial`` and ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method is looked at, not called
    )
