"""``@publish`` and ``@subscribe``: a function stays the function that it was.

Functions with the same options share one connection. What ``configure`` and the environment say is looked up
when a publishing function is first called, and when a handler is decorated.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from tidegate.background import engine
from tidegate.configuration import Options, Where, resolve
from tidegate.errors import ConfigurationError, MQTTError
from tidegate.handlers import Dispatch, is_coroutine_function, running_loop
from tidegate.message import Message
from tidegate.publisher import AsyncPublisher, make_message, require_qos, topic_list
from tidegate.subscriber import AsyncSubscriber, checked
from tidegate.topics import validate_topic

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
    validate_topic(topic)
    require_qos(qos)
    if retry_count < 0 or retry_delay < 0:
        raise ConfigurationError("retry_count and retry_delay are not negative")
    options = Options(url=url, **where)

    def message_of(value: Any) -> tuple[AsyncPublisher, Message]:
        publisher, _ = _clients(options)
        return publisher, make_message(publisher.formatter, topic, value, qos, retain)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if is_coroutine_function(function):
            coroutine_function = cast("Callable[P, Awaitable[Any]]", function)

            @functools.wraps(function)
            async def publish_awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                value = await coroutine_function(*args, **kwargs)
                publisher, message = message_of(value)
                for attempt in range(retry_count + 1):
                    try:
                        await asyncio.wrap_future(engine.submit(publisher.publish_message(message)))
                        break
                    except MQTTError as error:
                        await asyncio.sleep(_delay(error, attempt, retry_count, retry_delay))
                return value

            return cast("Callable[P, R]", publish_awaited)

        @functools.wraps(function)
        def publish_returned(*args: P.args, **kwargs: P.kwargs) -> R:
            value = function(*args, **kwargs)
            publisher, message = message_of(value)
            for attempt in range(retry_count + 1):
                try:
                    engine.run(publisher.publish_message(message))
                    break
                except MQTTError as error:
                    time.sleep(_delay(error, attempt, retry_count, retry_delay))
            return value

        return publish_returned

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

    A broker that is away is logged and tried until it answers.

    Args:
        topic: a topic filter (MQTT 5 §4.7), or several; a message that matches several comes once.
        qos: the highest quality of service wanted.
        url: a broker's or a bridge's URL.
        where: the rest of ``tidegate.configuration.Where``, as for ``AsyncSubscriber``.

    Raises:
        TopicError: a filter is not allowed.
    """
    filters = checked([(each, qos) for each in topic_list(topic)])
    options = Options(url=url, **where)

    def decorate(function: Function) -> Function:
        _, subscriber = _clients(options)
        dispatch = Dispatch(function, subscriber.formatter, loop=running_loop(), with_topic=False)
        engine.submit(subscriber.attach_in_background(filters, dispatch)).result()
        return function

    return decorate


async_publish = publish
async_subscribe = subscribe


_Shared = tuple[AsyncPublisher, AsyncSubscriber]

_lock = threading.Lock()
_shared: dict[tuple[object, ...], _Shared] = {}
_of_parents: list[_Shared] = []  # for why they are kept see BackgroundLoop.forget


def _forget_all() -> None:
    """In a child process: the connections are the parent's, and so are the handlers that listen."""
    global _lock  # noqa: PLW0603 - another thread of the parent's may have held it
    _lock = threading.Lock()
    _of_parents.extend(_shared.values())
    _shared.clear()


os.register_at_fork(after_in_child=_forget_all)


def disconnect_all() -> None:
    """End the connections that decorated functions share; the next call makes new ones."""
    with _lock:
        pairs = list(_shared.values())
        _shared.clear()
    for publisher, subscriber in pairs:
        engine.run(publisher.disconnect())
        engine.run(subscriber.disconnect())


def _clients(options: Options) -> _Shared:
    """The publisher and the subscriber for these options, over one connection.

    Two connections would throw each other off the broker where the options name a client identifier.
    """
    resolved = resolve(options)
    with _lock:
        found = _shared.get(resolved.key())
        if found is None:
            arguments = _arguments(resolved)
            found = AsyncPublisher(**arguments), AsyncSubscriber(**arguments)
            found[0].share_connection(found[1])
            _shared[resolved.key()] = found
        return found


def _arguments(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in Options.__slots__}


def _delay(error: MQTTError, attempt: int, retry_count: int, retry_delay: float) -> float:
    """Seconds until the next attempt; raises the error where there is none to make."""
    if attempt >= retry_count or not error.retryable:
        raise error
    return retry_delay * 2.0**attempt * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
