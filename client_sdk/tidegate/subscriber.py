"""Subscribing: an asynchronous class, and the same with calls that block."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, Unpack

from tidegate.background import engine
from tidegate.client import AsyncClient
from tidegate.configuration import Where
from tidegate.errors import ConfigurationError, RefusedError, TopicError, UnsupportedError
from tidegate.handlers import Dispatch, running_loop
from tidegate.publisher import require_qos, topic_list
from tidegate.topics import validate_filter

logger = logging.getLogger("tidegate")

Handler = Callable[..., Any]

RETRY_MIN_SECONDS: Final = 0.2
RETRY_MAX_SECONDS: Final = 30.0


class AsyncSubscriber(AsyncClient):
    """Follows topic filters; connects with the first, and again whenever the connection is lost."""

    async def subscribe(self, topic: str | Iterable[str], handler: Handler, qos: int = 1) -> None:
        """Hand the messages of a filter, or of several, to a handler; returns when the broker granted them.

        Args:
            topic: a topic filter (MQTT 5 §4.7), or several; a message that matches several comes once.
            handler: a function or coroutine function that takes ``(topic, payload)``, or one parameter
                annotated with ``Message``.
            qos: the highest quality of service wanted.

        Raises:
            TopicError: a filter is not allowed.
            RefusedError: the broker refuses a filter.
            NotConnectedError: there was no connection in time.
        """
        filters = checked([(each, qos) for each in topic_list(topic)])
        await self.attach(filters, self._dispatch(handler))

    async def subscribe_multiple(self, topics: Sequence[tuple[str, int] | str], handler: Handler) -> None:
        """Like ``subscribe``, with several filters that each have a QoS of their own."""
        filters = checked([(each, 1) if isinstance(each, str) else each for each in topics])
        await self.attach(filters, self._dispatch(handler))

    async def start_listening(self) -> None:
        """Wait until ``disconnect`` is called; handlers run meanwhile, as they do without this call."""
        self._open()
        stopped = asyncio.Event()
        self._at_disconnect.append(stopped.set)
        await stopped.wait()

    async def attach(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        """Subscribe, with a dispatch made elsewhere; raises what ``subscribe`` raises."""
        transport = self._open()
        await transport.subscribe(filters, dispatch.receive)
        self._at_disconnect.append(dispatch.end)

    async def attach_in_background(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        """Like ``attach``, but returns at once; what is wrong is tried again, unless the broker refuses."""
        task = asyncio.create_task(self._insist(filters, dispatch), name=f"tidegate follow {filters[0][0]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _insist(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        delay = RETRY_MIN_SECONDS
        has_failed = False
        while True:
            try:
                await self.attach(filters, dispatch)
            except (RefusedError, TopicError, UnsupportedError) as error:
                logger.error("no longer trying: %s", error)  # noqa: TRY400 - the text has it all
                return
            except Exception as error:  # noqa: BLE001 - a token's function may raise anything
                if not has_failed:
                    logger.warning("cannot follow %s yet: %s; trying until it works", filters[0][0], error)
                has_failed = True
            else:
                return
            await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
            delay = min(delay * 2, RETRY_MAX_SECONDS)

    def _dispatch(self, handler: Handler) -> Dispatch:
        return Dispatch(handler, self.formatter, loop=running_loop(), with_topic=True)


class Subscriber:
    """``AsyncSubscriber`` with calls that block; the arguments are the same.

    Messages arrive in the background as soon as ``subscribe`` returned; ``loop_forever`` only waits.
    """

    def __init__(self, url: str | None = None, **where: Unpack[Where]) -> None:
        self._asynchronous = AsyncSubscriber(url, **where)
        self._stopped = threading.Event()

    def connect(self) -> None:
        """``AsyncSubscriber.connect``, waiting."""
        engine.run(self._asynchronous.connect())

    def disconnect(self) -> None:
        """``AsyncSubscriber.disconnect``, waiting; ends ``loop_forever``."""
        engine.run(self._asynchronous.disconnect())
        self._stopped.set()

    def subscribe(self, topic: str | Iterable[str], handler: Handler, qos: int = 1) -> None:
        """``AsyncSubscriber.subscribe``, waiting. A synchronous handler runs in a thread of its own."""
        self.subscribe_multiple([(each, qos) for each in topic_list(topic)], handler)

    def subscribe_multiple(self, topics: Sequence[tuple[str, int] | str], handler: Handler) -> None:
        """``AsyncSubscriber.subscribe_multiple``, waiting."""
        filters = checked([(each, 1) if isinstance(each, str) else each for each in topics])
        dispatch = Dispatch(handler, self._asynchronous.formatter, loop=running_loop(), with_topic=True)
        engine.run(self._asynchronous.attach(filters, dispatch))

    def loop_forever(self) -> None:
        """Wait until ``disconnect`` is called, or Ctrl-C is pressed, which disconnects."""
        try:
            while not self._stopped.wait(0.5):  # a wait without end would keep Ctrl-C out
                pass
        except KeyboardInterrupt:
            self.disconnect()

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.disconnect()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()


def checked(filters: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Filters and their QoS, valid and at least one.

    Raises:
        TopicError: a filter is not allowed.
        ConfigurationError: a QoS is not 0, 1 or 2, or there is no filter.
    """
    if not filters:
        raise ConfigurationError("there is no topic filter to subscribe to")
    for topic_filter, qos in filters:
        validate_filter(topic_filter)
        require_qos(qos)
    return list(filters)
