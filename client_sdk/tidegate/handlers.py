"""How a message reaches a handler.

Rules:

1. What kind of callable a handler is, is decided once, when it is given.
2. Each handler has a queue of its own and gets its messages one after the other, in order. One that blocks,
   or raises, holds up nobody else; what it raises is logged.
3. A synchronous handler runs in a thread of its own, a coroutine function on the loop that was running when
   it was given, else on the SDK's loop for handlers.
4. A queue is bounded; when it is full the oldest message is dropped, and the log says how many were.
5. A message that does not fit what the handler's parameters are annotated with is logged, and the handler is
   not called (``tidegate.binding``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from tidegate.background import handlers as handlers_loop
from tidegate.binding import Binding
from tidegate.formatters import Formatter
from tidegate.levels import NamedFilter
from tidegate.message import Message
from tidegate.typed import UnfitError

logger = logging.getLogger("tidegate")

MAX_QUEUED_MESSAGES: Final = 10_000


class Dispatch:
    """Hands the messages of one subscription to one handler.

    Args:
        handler: a function or coroutine function.
        formatter: what reads payloads.
        filters: the topic filters, whose named levels the handler may ask for.
        loop: where a coroutine function runs; the SDK's loop for handlers where it is left out.
        with_topic: the handler takes ``(topic, payload)``; else ``(payload)``.

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
        self._handler = handler
        self._arguments = Binding(handler, formatter, filters, with_topic=with_topic).arguments
        self._name = getattr(handler, "__name__", type(handler).__name__)
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._dropped = 0
        self._is_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._start: Callable[[], None] | None = self._start_thread
        if is_coroutine_function(handler):
            self._loop = loop or handlers_loop.loop
            self._start = self._start_task

    def receive(self, message: Message) -> None:
        """Take a message; called on the connection's loop, and never waits."""
        if self._is_ended:
            return
        if self._loop is not None and self._loop.is_closed():
            self._is_ended = True
            logger.error("handler %s gets no more messages: its event loop is closed", self._name)
            return
        if self._start is not None:
            start, self._start = self._start, None
            start()
        if self._messages.qsize() >= MAX_QUEUED_MESSAGES:
            self._drop_oldest()
        self._messages.put(message)
        self._wake_task()

    def replace_handler(self, handler: Callable[..., Any]) -> None:
        """Call something else with the same parameters, of the same kind, from the next message on."""
        self._handler = handler

    def end(self) -> None:
        """Hand over nothing more; what is queued already is dropped."""
        self._is_ended = True
        self._messages.put(None)
        self._wake_task()

    def _wake_task(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._wake.set)

    def _drop_oldest(self) -> None:
        try:
            self._messages.get_nowait()
        except queue.Empty:
            return
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # at 1, 2, 4, 8 …
            logger.warning("handler %s is too slow: %d messages dropped so far", self._name, self._dropped)

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name=f"tidegate handler {self._name}", daemon=True).start()

    def _run(self) -> None:
        while (message := self._messages.get()) is not None and not self._is_ended:
            try:
                arguments, named = self._arguments(message)
                self._handler(*arguments, **named)
            except UnfitError as error:
                self._log_unfit(message, error)
            except Exception:
                logger.exception("handler %s failed on a message from %r", self._name, message.topic)

    def _start_task(self) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._run_task(), self._loop)

    async def _run_task(self) -> None:
        while not self._is_ended:
            try:
                message = self._messages.get_nowait()
            except queue.Empty:
                self._wake.clear()
                if self._messages.empty():
                    await self._wake.wait()
                continue
            if message is None:
                return
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
            except Exception:
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


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
