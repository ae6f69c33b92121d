from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.mosquitto import Mosquitto
from tidegate import AsyncPublisher, Message, NotAuthorizedError, NotConnectedError
from tidegate.connection import ConnectOptions, ProtocolVersion
from tidegate.memory import MemoryBroker
from tidegate.transports.direct import DirectTransport

SECONDS = 20.0
CLIENT_ID = "direct"


def deny(action: str, topic: str, options: ConnectOptions) -> int:
    """Refuse subscriptions to what begins with ``denied/``."""
    return 0x87 if action == "subscribe" and topic.startswith("denied/") else 0


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker that refuses some subscriptions."""
    return MemoryBroker(authorize=deny)


@asynccontextmanager
async def transport(broker: MemoryBroker, version: ProtocolVersion = 5) -> AsyncIterator[DirectTransport]:
    """A transport to a broker, closed at the end."""
    options = ConnectOptions(client_id=CLIENT_ID, protocol_version=version)
    made = DirectTransport(options, connect=broker.connect)
    try:
        yield made
    finally:
        await made.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


def into(topics: list[str]) -> Callable[[Message], None]:
    """Something that keeps the topic of each message."""
    return lambda message: topics.append(message.topic)


def granted(broker: MemoryBroker) -> dict[str, int]:
    """The filters that the broker holds, and their QoS."""
    return {each.filter: each.qos for each in broker.subscriptions_of(CLIENT_ID)}


async def test_the_highest_qos_that_anybody_wants_stays(broker: MemoryBroker) -> None:
    """A later subscription with less does not take it away from an earlier one, nor do two at a time."""
    async with transport(broker) as direct:
        await asyncio.gather(*(direct.subscribe([("a", qos)], lambda _: None) for qos in (1, 2, 0)))
        assert granted(broker) == {"a": 2}


async def test_a_refused_subscription_leaves_others_hearing(broker: MemoryBroker) -> None:
    """One that fails as a whole takes nothing from a handler that shares one of its filters."""
    first: list[str] = []
    second: list[Any] = []
    async with transport(broker) as direct:
        await direct.subscribe([("a", 1)], lambda message: first.append(message.topic))
        with pytest.raises(NotAuthorizedError):
            await direct.subscribe([("a", 0), ("b", 1), ("denied/x", 1)], second.append)
        assert granted(broker) == {"a": 1}
        for topic in ("a", "b", "a"):
            await direct.publish(Message(topic, b"1", qos=1))
        await until(lambda: len(first) == 2)
        assert (first, second) == (["a", "a"], [])


@pytest.mark.parametrize("version", [5, 4])
async def test_each_handler_hears_a_message_once(broker: MemoryBroker, version: ProtocolVersion) -> None:
    """However the filters of handlers overlap, with subscription identifiers and without."""
    heard: dict[str, list[str]] = {"one": [], "two": [], "three": []}
    async with transport(broker, version) as direct:
        for name, filters in (
            ("one", [("x/+", 0), ("x/#", 2)]),
            ("two", [("x/a", 1)]),
            ("three", [("#", 0), ("x/a", 1), ("+/b", 2)]),
        ):
            await direct.subscribe(filters, into(heard[name]))
        for topic in ("x/a", "x/b", "y/b", "end"):
            await direct.publish(Message(topic, b"1", qos=1))
        await until(lambda: "end" in heard["three"])
    assert heard == {"one": ["x/a", "x/b"], "two": ["x/a"], "three": ["x/a", "x/b", "y/b", "end"]}


async def test_a_retained_message_goes_to_whoever_joins(broker: MemoryBroker) -> None:
    """A second handler of the same filter gets it, and the first does not get it again."""
    first: list[bytes] = []
    second: list[bytes] = []
    async with transport(broker) as direct:
        await direct.publish(Message("a", b"kept", qos=1, retain=True))
        await direct.subscribe([("a", 1)], lambda message: first.append(message.payload))
        await direct.subscribe([("a", 1)], lambda message: second.append(message.payload))
        await direct.publish(Message("a", b"live", qos=1))
        await until(lambda: len(second) == 2)
    assert (first, second) == ([b"kept", b"live"], [b"kept", b"live"])


async def test_subscriptions_come_back_with_the_connection(broker: MemoryBroker) -> None:
    """After a loss the same handlers hear the same filters."""
    got: list[bytes] = []
    async with transport(broker) as direct:
        await direct.subscribe([("a", 1)], lambda message: got.append(message.payload))
        broker.lose(CLIENT_ID)
        await until(lambda: granted(broker) == {"a": 1} and CLIENT_ID in broker.client_ids)
        await direct.publish(Message("a", b"again", qos=1))
        await until(lambda: bool(got))
    assert got == [b"again"]


async def test_connect_tells_at_once_that_the_broker_is_away(broker: MemoryBroker) -> None:
    """The error is that of the attempt, and a later call succeeds when the broker is there."""
    broker.stop()
    async with transport(broker) as direct:
        with pytest.raises(Exception, match=r"\w") as caught:
            await direct.connect()
        assert caught.type.__module__ == "tidegate.errors"
        broker.start()
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await direct.connect()
                    break
                except caught.type:
                    await asyncio.sleep(0.01)
        assert await direct.publish(Message("a", b"1", qos=1)) in (0x00, 0x10)


async def test_a_closed_transport_says_so(broker: MemoryBroker) -> None:
    """What is called after the end is an error and not a wait."""
    async with transport(broker) as direct:
        await direct.connect()
        await direct.close()
        with pytest.raises(NotConnectedError):
            await direct.subscribe([("a", 0)], lambda _: None)
    assert broker.client_ids == []


async def test_a_disconnect_that_is_given_up_goes_on(fresh_mosquitto: Mosquitto) -> None:
    """The broker stands still meanwhile; who asks again waits for the same end, and nothing is left open."""
    publisher = AsyncPublisher(fresh_mosquitto.url)
    await publisher.connect()
    fresh_mosquitto.pause()
    sending = asyncio.create_task(publisher.publish("a", 1))
    await asyncio.sleep(0)
    leaving = asyncio.create_task(publisher.disconnect())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    fresh_mosquitto.resume()
    await publisher.disconnect()
    await asyncio.gather(sending, return_exceptions=True)
    async with asyncio.timeout(20):
        while "disconnected" not in fresh_mosquitto.log:
            await asyncio.sleep(0.01)
