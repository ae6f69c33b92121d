"""Subscribing: an asynchronous class, and the same with calls that block."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, Unpack

from tidegate import detour
from tidegate.arrivals import MAX_WAITING_MESSAGES, Arrivals
from tidegate.background import engine, running_loop
from tidegate.beginnings import Beginning
from tidegate.client import AsyncClient
from tidegate.configuration import Where
from tidegate.errors import ConfigurationError, MQTTError, NotConnectedError, TopicError, UnsupportedError
from tidegate.handlers import Dispatch
from tidegate.hooks import Hooked
from tidegate.levels import NamedFilter
from tidegate.message import Message
from tidegate.outgoing import require_qos, topic_list

logger = logging.getLogger("tidegate")

Handler = Callable[..., Any]

RETRY_MIN_SECONDS: Final = 0.2
RETRY_MAX_SECONDS: Final = 30.0


class AsyncSubscriber(AsyncClient):
    """Follows topic filters; connects with the first, and again whenever the connection is lost.

    What was subscribed to without a handler comes by iteration, which ends with ``disconnect``::

        async with AsyncSubscriber() as subscriber:
            await subscriber.subscribe("sensors/#")
            async for message in subscriber:
                ...

    At most 10,000 messages wait for an iteration; beyond that the oldest are dropped, and the log says how
    many.
    """

    def __init__(self, url: str | None = None, **where: Unpack[Where]) -> None:
        super().__init__(url, **where)
        self._arrivals: Arrivals | None = None
        self._followed: dict[Dispatch, detour.Followed] = {}

    async def subscribe(
        self, topic: str | Iterable[str], handler: Handler | None = None, qos: int = 1
    ) -> None:
        """Hand the messages of a filter, or of several, to a handler; returns when the broker granted them.

        Args:
            topic: a topic filter (MQTT 5 §4.7), or several; a message that matches several comes once. A
                level in braces matches any, and the handler may have a parameter of that name.
            handler: a function or coroutine function that takes ``(topic, payload)``, or one parameter
                annotated with ``Message``; left out, the messages come by iteration.
            qos: the highest quality of service wanted.

        Raises:
            TopicError: a filter is not allowed.
            ConfigurationError: the handler has a parameter that nothing fills.
            RefusedError: the broker refuses a filter.
            NotConnectedError: there was no connection in time.
        """
        await self.subscribe_multiple([(each, qos) for each in topic_list(topic)], handler)

    async def subscribe_multiple(
        self, topics: Sequence[tuple[str, int] | str], handler: Handler | None = None
    ) -> None:
        """Like ``subscribe``, with several filters that each have a QoS of their own."""
        filters = named_filters([(each, 1) if isinstance(each, str) else each for each in topics])
        wanted = [(each.filter, self.possible_qos(qos)) for each, qos in filters]
        if handler is None:
            transport = self._open()
            await self._told(transport.subscribe(wanted, self._own_arrivals().receive))
        else:
            names = [each for each, _ in filters]
            dispatch = Dispatch(handler, self.formatter, names, loop=running_loop(), with_topic=True)
            await self.attach(wanted, dispatch)

    async def messages(
        self,
        topic: str | Iterable[str],
        qos: int = 1,
        *,
        max_waiting: int = MAX_WAITING_MESSAGES,
    ) -> AsyncGenerator[Message, None]:
        """Iterate over the messages of a filter, or of several; leaving the loop ends the subscription.

        Args:
            topic: a topic filter, or several; a message that matches several comes once.
            qos: the highest quality of service wanted.
            max_waiting: how many messages wait for the iteration before the oldest are dropped.

        Raises:
            MQTTError: what ``subscribe`` raises, with the first step.
        """
        filters = named_filters([(each, qos) for each in topic_list(topic)])
        transport = self._open()
        arrivals = Arrivals(asyncio.get_running_loop(), max_waiting)
        receive = arrivals.receive
        wanted = [(each.filter, self.possible_qos(qos)) for each, qos in filters]
        await self._told(transport.subscribe(wanted, receive))
        self._at_disconnect.append(arrivals.end)
        try:
            async for message in arrivals:
                yield message
        finally:
            self._at_disconnect.remove(arrivals.end)
            if not self._is_closed:
                with contextlib.suppress(MQTTError):  # the broker forgets it with the connection
                    await transport.unsubscribe(receive)

    def __aiter__(self) -> AsyncIterator[Message]:
        """The messages of what was subscribed to without a handler; two iterations share them."""
        return self._own_arrivals()

    def _own_arrivals(self) -> Arrivals:
        if self._arrivals is None:
            self._open()
            self._arrivals = Arrivals(asyncio.get_running_loop())
            self._at_disconnect.append(self._arrivals.end)
        return self._arrivals

    async def start_listening(self) -> None:
        """Wait until ``disconnect`` is called; handlers run meanwhile, as they do without this call."""
        self._open()
        stopped = asyncio.Event()
        self._at_disconnect.append(stopped.set)
        await stopped.wait()

    async def attach(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        """Subscribe, with a dispatch made elsewhere; raises what ``subscribe`` raises."""
        await self._follow(filters, dispatch)
        self._note(filters, dispatch, lasts=False)

    async def attach_in_background(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        """Like ``attach``, but returns at once, and tries until it works."""
        self._note(filters, dispatch, lasts=dispatch.is_of_module)
        self._insist_in_background(filters, dispatch)

    async def arrive(self) -> None:
        """Begin at the new place, and follow there what is to be followed there."""
        await super().arrive()
        depth = detour.depth()
        for dispatch, followed in list(self._followed.items()):
            if followed.depth > depth and not followed.lasts:
                del self._followed[dispatch]
                self._at_disconnect.remove(dispatch.end)
                dispatch.end()
            elif depth or not followed.depth:
                self._insist_in_background(followed.filters, dispatch)

    async def _follow(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        transport = self._open()
        dispatch.owner = dispatch.owner or self
        await self._told(transport.subscribe(filters, dispatch.receive))

    def _note(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch, *, lasts: bool) -> None:
        self._at_disconnect.append(dispatch.end)
        self._followed[dispatch] = detour.Followed(filters, detour.depth(), lasts)

    def _insist_in_background(self, filters: Sequence[tuple[str, int]], dispatch: Dispatch) -> None:
        beginning = Beginning(self._transport.broker)
        insisting = self._insist(filters, dispatch, beginning)
        task = asyncio.create_task(insisting, name=f"tidegate follow {filters[0][0]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: beginning.end())

    async def _insist(
        self, filters: Sequence[tuple[str, int]], dispatch: Dispatch, beginning: Beginning
    ) -> None:
        delay = RETRY_MIN_SECONDS
        last_reason = ""
        while True:
            try:
                await self._follow(filters, dispatch)
            except (TopicError, UnsupportedError) as error:
                logger.error("no longer trying: %s", error)  # noqa: TRY400 - the text has it all
                return
            except Exception as error:  # noqa: BLE001 - a token's function may raise anything
                if not isinstance(error, NotConnectedError):
                    beginning.end()
                elif self._session_transport is not None:
                    delay = RETRY_MIN_SECONDS  # the attempt waited for a connection, and the next one does
                reason = type(error).__name__
                if reason != last_reason:
                    logger.warning("cannot follow %s yet: %s; trying until it works", filters[0][0], error)
                last_reason = reason
            else:
                return
            await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
            delay = min(delay * 2, RETRY_MAX_SECONDS)


class Subscriber(Hooked):
    """``AsyncSubscriber`` with calls that block; the arguments are the same.

    Messages arrive in the background as soon as ``subscribe`` returned; ``loop_forever`` only waits.
    """

    def __init__(self, url: str | None = None, **where: Unpack[Where]) -> None:
        self._asynchronous = AsyncSubscriber(url, **where)
        self._asynchronous.lend_hooks(self)
        self._stopped = threading.Event()
        # one that follows nothing and goes out of use without disconnect leaves no connection behind
        weakref.finalize(self, engine.submit_call, self._asynchronous.disconnect).atexit = False

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
        filters = named_filters([(each, 1) if isinstance(each, str) else each for each in topics])
        wanted = [(each.filter, self._asynchronous.possible_qos(qos)) for each, qos in filters]
        names = [each for each, _ in filters]
        formatter = self._asynchronous.formatter
        dispatch = Dispatch(handler, formatter, names, loop=running_loop(), with_topic=True)
        dispatch.owner = self
        engine.run(self._asynchronous.attach(wanted, dispatch))

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


def named_filters(filters: Sequence[tuple[str, int]]) -> list[tuple[NamedFilter, int]]:
    """Filters and their QoS, valid and at least one.

    Raises:
        TopicError: a filter is not allowed.
        ConfigurationError: a QoS is not 0, 1 or 2, or there is no filter.
    """
    if not filters:
        raise ConfigurationError("there is no topic filter to subscribe to")
    for _, qos in filters:
        require_qos(qos)
    return [(NamedFilter(text), qos) for text, qos in filters]
