"""What a type checker sees of decorated functions; `make check` reads this file, and nothing runs it."""

from __future__ import annotations

from typing import Any, assert_type

from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Publisher,
    PublishResult,
    Subscriber,
    async_publish,
    publish,
    subscribe,
)


@publish("a", qos=2, retain=True, retry_count=3, retry_delay=0.5)
def read(sensor: str, *, scale: float = 1.0) -> dict[str, float]:
    """A function that publishes."""
    return {sensor: scale}


@async_publish("a")
async def compute(value: int) -> int:
    """A coroutine function that publishes."""
    return value


@subscribe(["a", "b/#"], qos=0)
def handle(message: dict[str, float]) -> int:
    """A handler."""
    return len(message)


@subscribe("a")
async def handle_slowly(message: Any) -> None:
    """A coroutine handler."""


def called() -> None:
    """Arguments and results keep their types."""
    assert_type(read("a", scale=2.0), dict[str, float])
    assert_type(handle({"a": 1.0}), int)
    read(7)  # type: ignore[arg-type]
    read("a", 2.0)  # type: ignore[call-arg]
    handle("text")  # type: ignore[arg-type]


async def awaited() -> None:
    """Awaiting gives the function's own result; the classes give results of publishing."""
    assert_type(await compute(1), int)
    await compute()  # type: ignore[call-arg]
    async with AsyncPublisher() as publisher, AsyncSubscriber() as subscriber:
        assert_type(publisher, AsyncPublisher)
        assert_type(await publisher.publish("a", object()), PublishResult)
        await subscriber.subscribe(("a", "b"), handle_slowly, qos=1)
        await subscriber.subscribe_multiple(["a", ("b", 2)], lambda topic, payload: None)
    with Publisher() as blocking, Subscriber() as listening:
        assert_type(blocking, Publisher)
        assert_type(blocking.publish("a", None, 0, True), PublishResult)
        assert_type(listening, Subscriber)
