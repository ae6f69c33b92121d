"""What a type checker sees of decorated functions; `make check` reads this file, and nothing runs it."""

# A mistake that is marked for one checker is marked for the other too; each complains of a mark without one.
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type
from uuid import UUID

from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    MQTTError,
    Publisher,
    PublishResult,
    Subscriber,
    async_publish,
    async_subscribe,
    publish,
    subscribe,
)


@dataclass
class Reading:
    """A payload's shape."""

    value: float


class Alert(TypedDict):
    """Another one."""

    level: str


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


@publish("sensors/{sensor_id}/{kind}")
def read_sensor(sensor_id: UUID, kind: str = "temperature") -> Reading:
    """Named levels are arguments like others."""
    return Reading(len(f"{sensor_id}{kind}"))


@subscribe("sensors/{sensor_id}/temperature")
def on_reading(reading: Reading, sensor_id: int) -> float:
    """A typed handler with a named level."""
    return reading.value + sensor_id


@async_subscribe("alerts/#")
async def on_alert(alert: Alert) -> str:
    """A typed coroutine handler."""
    return alert["level"]


@subscribe("everything/#")
def on_message(message: Message) -> bytes:
    """A handler that takes the whole message."""
    return message.payload


def on_both(topic: str, payload: Any) -> None:
    """A handler for the classes."""


@publish("out")
@subscribe("in")
@subscribe("also/in")
def forward(message: int) -> str:
    """Decorators on decorators."""
    return str(message)


class Sensor:
    """Methods."""

    @publish("sensor")
    def read(self, factor: int) -> int:
        """A method that publishes."""
        return factor


class Watched(Publisher):
    """Hooks with their own types."""

    def on_connect(self, client: Any, userdata: Any, flags: dict[str, int], rc: int) -> None:
        """Overridden."""

    def on_publish(self, client: Any, userdata: Any, mid: int) -> None:
        """Overridden."""


def called() -> None:
    """Arguments and results keep their types."""
    assert_type(read_sensor(UUID(int=1), kind="humidity"), Reading)
    read_sensor(1)  # type: ignore[arg-type]
    assert_type(on_reading(Reading(1.0), 7), float)
    on_reading({"value": 1.0}, 7)  # type: ignore[arg-type]
    assert_type(on_message(Message("a")), bytes)
    assert_type(forward(1), str)
    forward("1")  # type: ignore[arg-type]
    assert_type(Sensor().read(2), int)
    Sensor().read("2")  # type: ignore[arg-type]
    publish("a", quality=1)  # type: ignore[call-arg]
    publish("a", port="1883")  # type: ignore[arg-type]
    assert_type(read("a", scale=2.0), dict[str, float])
    assert_type(handle({"a": 1.0}), int)
    read(7)  # type: ignore[arg-type]
    read("a", 2.0)  # type: ignore[call-arg]
    handle("text")  # type: ignore[arg-type]


async def awaited() -> None:
    """Awaiting gives the function's own result; the classes give results of publishing."""
    assert_type(await on_alert({"level": "high"}), str)
    await on_alert({"levels": "high"})  # type: ignore[typeddict-item]
    assert_type(await compute(1), int)
    await compute()  # type: ignore[call-arg]
    async with AsyncPublisher() as publisher, AsyncSubscriber() as subscriber:
        assert_type(publisher, AsyncPublisher)
        assert_type(await publisher.publish("a", object()), PublishResult)
        await subscriber.subscribe(("a", "b"), handle_slowly, qos=1)
        await subscriber.subscribe_multiple(["a", ("b", 2)], on_both)
        await subscriber.subscribe("c", qos=0)
        assert_type(aiter(subscriber), AsyncIterator[Message])
        assert_type(subscriber.messages("d"), AsyncGenerator[Message, None])
        async for message in subscriber:
            assert_type(message, Message)
        async for message in subscriber.messages(["d", "e"], qos=2, max_waiting=10):
            assert_type(message.text, str)
    with Publisher() as blocking, Subscriber() as listening:
        assert_type(blocking, Publisher)
        assert_type(blocking.publish("a", None, 0, True), PublishResult)
        assert_type(listening, Subscriber)
    with Watched() as watched:
        assert_type(watched, Watched)


def failed(error: MQTTError) -> None:
    """What an error knows."""
    assert_type(error.topic, str | None)
    assert_type(error.reason_code, int | None)
    assert_type(error.retryable, bool)
