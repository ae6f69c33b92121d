"""``@publish`` and ``@subscribe``: a function stays the function that it was.

Functions with the same options share one connection. What ``configure`` and the environment say is looked up
when a publishing function is first called, and when a handler is decorated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, ParamSpec, TypeVar, Unpack, cast

from tidegate.background import at_fork_in_child, engine, running_loop
from tidegate.client import warn_of_qos_2
from tidegate.configuration import Options, Where, generation, resolve
from tidegate.errors import ConfigurationError, MQTTError
from tidegate.formatters import to_payload
from tidegate.handlers import Dispatch, is_coroutine_function
from tidegate.lane import Lane
from tidegate.levels import NamedTopic
from tidegate.message import Message
from tidegate.outgoing import require_qos, topic_list
from tidegate.profiles import is_aws_iot
from tidegate.publisher import AsyncPublisher
from tidegate.subscriber import AsyncSubscriber, named_filters

P = ParamSpec("P")
R = TypeVar("R")
Function = TypeVar("Function", bound=Callable[..., Any])


def publish(
    topic: str,
    *,
    qos: int = 1,
    retain: bool = False,
    retry_count: int = 0,
    retry_delay: float = 1.0,
    url: str | None = None,
    **where: Unpack[Where],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Publish what a function returns; the caller still gets it, and may still await it.

    Args:
        topic: a topic name (MQTT 5 §4.7).
        qos: quality of service; 1 and 2 wait for the broker's acknowledgement.
        retain: keep the message as the topic's value.
        retry_count: how often a publish that failed and may succeed later is tried again; a message that was
            sent and not acknowledged may then arrive twice.
        retry_delay: seconds before the first retry; it doubles with each, with jitter.
        url: a broker's or a bridge's URL.
        where: the rest of ``tidegate.configuration.Where``, as for ``AsyncPublisher``.

    Raises:
        TopicError: at decoration, where the topic name is not allowed.
        MQTTError: when the function is called and its result cannot be published; the function has run then.
    """
    named = NamedTopic(topic)
    require_qos(qos)
    if retry_count < 0 or retry_delay < 0:
        raise ConfigurationError("retry_count and retry_delay are not negative")
    where_to = _WhereTo(Options(url=url, **where), qos)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        topic_of = named.for_function(function)

        def message_of(value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Lane, Message]:
            clients, possible_qos = where_to.now()
            payload = to_payload(clients.publisher.formatter, value)
            # topic and QoS were checked at decoration, and levels are when they are filled
            where = topic if topic_of is None else topic_of(*args, **kwargs)
            return clients.lane, Message(where, payload, possible_qos, retain)

        if is_coroutine_function(function):
            coroutine_function = cast("Callable[P, Awaitable[Any]]", function)

            @functools.wraps(function)
            async def publish_awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                value = await coroutine_function(*args, **kwargs)
                lane, message = message_of(value, args, kwargs)
                for attempt in range(retry_count + 1):
                    try:
                        await lane.publish_awaited(message)
                        break
                    except MQTTError as error:
                        await asyncio.sleep(_delay(error, attempt, retry_count, retry_delay))
                return value

            return _take_over(function, cast("Callable[P, R]", publish_awaited))

        @functools.wraps(function)
        def publish_returned(*args: P.args, **kwargs: P.kwargs) -> R:
            value = function(*args, **kwargs)
            lane, message = message_of(value, args, kwargs)
            for attempt in range(retry_count + 1):
                try:
                    lane.publish(message)
                    break
                except MQTTError as error:
                    time.sleep(_delay(error, attempt, retry_count, retry_delay))
            return value

        return _take_over(function, publish_returned)

    return decorate


def subscribe(
    topic: str | Iterable[str],
    *,
    qos: int = 1,
    url: str | None = None,
    **where: Unpack[Where],
) -> Callable[[Function], Function]:
    """Hand messages to a function, in the background, from now on; the function itself stays as it is.

    The function takes the payload as the formatter reads it: a JSON value, else text, else bytes. One whose
    parameter is annotated with ``Message`` takes the whole message. It may block, publish or raise; others go
    on. A coroutine function runs on the loop that is running now, else on one of the SDK's.

    What this process publishes afterwards, to the same host and port, waits until the broker has granted the
    filters (``tidegate.beginnings``). A broker that is away is logged and tried until it answers.

    Args:
        topic: a topic filter (MQTT 5 §4.7), or several; a message that matches several comes once.
        qos: the highest quality of service wanted.
        url: a broker's or a bridge's URL.
        where: the rest of ``tidegate.configuration.Where``, as for ``AsyncSubscriber``.

    Raises:
        TopicError: a filter is not allowed.
    """
    filters = named_filters([(each, qos) for each in topic_list(topic)])
    options = Options(url=url, **where)

    def decorate(function: Function) -> Function:
        clients = _clients(options)
        subscriber = clients.subscriber
        dispatch = Dispatch(
            function,
            subscriber.formatter,
            [each for each, _ in filters],
            loop=running_loop(),
            with_topic=False,
        )
        wanted = [(each.filter, subscriber.possible_qos(qos)) for each, qos in filters]
        engine.submit(subscriber.attach_in_background(wanted, dispatch)).result()
        _note_handler(function, dispatch)
        return function

    return decorate


async_publish = publish
async_subscribe = subscribe


class _Clients:
    """What decorated functions with the same options share: one connection.

    Two connections would throw each other off the broker where the options name a client identifier.
    """

    def __init__(self, options: Options) -> None:
        arguments = {name: getattr(options, name) for name in Options.__slots__}
        self.publisher = AsyncPublisher(**arguments)
        self.subscriber = AsyncSubscriber(**arguments)
        self.publisher.share_connection(self.subscriber)
        self.lane = Lane(self.publisher)


_lock = threading.Lock()
_shared: dict[tuple[object, ...], _Clients] = {}
_of_parents: list[_Clients] = []  # for why they are kept see BackgroundLoop.forget
_times_ended = 0
"""How often ``_shared`` was emptied, so that nobody goes on with what was in it."""


@at_fork_in_child
def _forget_all() -> None:
    """In a child process: the connections are the parent's, and so are the handlers that listen."""
    global _lock, _times_ended  # noqa: PLW0603 - another thread of the parent's may have held the lock
    _lock = threading.Lock()
    _of_parents.extend(_shared.values())
    _shared.clear()
    _times_ended += 1


def disconnect_all() -> None:
    """End the connections that decorated functions share; the next call makes new ones."""
    global _times_ended  # noqa: PLW0603
    with _lock:
        ended = list(_shared.values())
        _shared.clear()
        _times_ended += 1
    for clients in ended:
        engine.run(clients.publisher.disconnect())
        engine.run(clients.subscriber.disconnect())


def _clients(options: Options) -> _Clients:
    """The clients for these options, as ``configure`` and the environment fill them up now."""
    resolved = resolve(options)
    with _lock:
        found = _shared.get(resolved.key())
        if found is None:
            found = _shared[resolved.key()] = _Clients(resolved)
        return found


class _WhereTo:
    """Where a decorated function publishes, and with which QoS: looked up once, and after ``configure``."""

    def __init__(self, options: Options, qos: int) -> None:
        self._options = options
        self._qos = qos
        self._found: tuple[tuple[int, int], _Clients, int] | None = None
        self._warned = False
        if qos < 2:
            return
        with contextlib.suppress(MQTTError):  # what is wrong with the environment is told by the first call
            host = resolve(options).broker_host()
            self._warned = host is not None and is_aws_iot(host)
        if self._warned:
            warn_of_qos_2()

    def now(self) -> tuple[_Clients, int]:
        """The clients and the QoS; warns where that is lower than what was asked for."""
        marks = generation(), _times_ended
        found = self._found
        if found is None or found[0] != marks:
            clients = _clients(self._options)
            qos = self._qos
            if qos == 2 and clients.publisher.is_on_aws_iot:
                qos = 1
                if not self._warned:
                    self._warned = True
                    warn_of_qos_2()
            found = self._found = marks, clients, qos
        return found[1], found[2]


_HANDLED_BY: Final = "_tidegate_dispatches"


def _note_handler(function: Callable[..., Any], dispatch: Dispatch) -> None:
    """Remember on a function what hands messages to it, for a decorator above this one."""
    if inspect.isfunction(function):
        vars(function).setdefault(_HANDLED_BY, []).append(dispatch)


def _take_over(function: Callable[..., Any], publishing: Callable[P, R]) -> Callable[P, R]:
    """Have a function that listens already called through the one that publishes what it returns."""
    for dispatch in getattr(function, _HANDLED_BY, ()):
        dispatch.replace_handler(publishing)
    return publishing


def _delay(error: MQTTError, attempt: int, retry_count: int, retry_delay: float) -> float:
    """Seconds until the next attempt; raises the error where there is none to make."""
    if attempt >= retry_count or not error.retryable:
        raise error
    return retry_delay * 2.0**attempt * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
