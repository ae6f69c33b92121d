"""What a broker says of itself in CONNACK is kept to before anything is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.packets import PacketType
from tests.support.strict_broker import (
    IDENTIFIERS_AVAILABLE,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    RECEIVE_MAXIMUM,
    RETAIN_AVAILABLE,
    SHARED_AVAILABLE,
    WILDCARD_AVAILABLE,
    StrictBroker,
)
from tidegate.connection import ConnectOptions, Subscription
from tidegate.errors import UnsupportedError
from tidegate.message import Message, Properties
from tidegate.publish_packet import publish_size
from tidegate.session import Session

SECONDS = 20.0


@asynccontextmanager
async def started(port: int, **options: Any) -> AsyncIterator[Session]:
    """A session that is connected."""
    session = Session(
        ConnectOptions("127.0.0.1", port, **options),
        publish_timeout_seconds=SECONDS,
        reconnect_min_seconds=0.01,
    )
    await session.start()
    await session.connected(SECONDS)
    try:
        yield session
        await session.connected(SECONDS)  # no attempt is left half-way
    finally:
        await session.close(flush_seconds=0)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("qos", [1, 2])
async def test_with_a_receive_maximum_of_one_strictly_one_is_in_flight(qos: int) -> None:
    """Each PUBLISH waits for the answer to the one before, and all are acknowledged, in order."""
    async with (
        StrictBroker(limits=bytes([RECEIVE_MAXIMUM, 0, 1])) as broker,
        started(broker.port) as session,
    ):
        broker.unanswered = {PacketType.PUBLISH}
        publishing = [session.submit(Message(f"m/{number}", b"", qos)) for number in range(50)]
        await until(lambda: len(broker.published) == 1)
        await session.ping()
        assert (len(broker.published), session.in_flight, session.waiting) == (1, 1, 49)
        broker.answer_now()
        assert await asyncio.gather(*publishing) == [0] * 50
        assert [each.topic for each in broker.published] == [f"m/{number}" for number in range(50)]
        assert broker.most_in_flight == 1


@pytest.mark.parametrize(
    ("limits", "message", "words"),
    [
        (bytes([MAXIMUM_QOS, 1]), Message("m", b"", 2), "at most QoS 1: publish with that"),
        (bytes([MAXIMUM_QOS, 0]), Message("m", b"", 1), "at most QoS 0: publish with that"),
        (bytes([RETAIN_AVAILABLE, 0]), Message("m", b"", 1, True), "no retained messages"),
    ],
)
async def test_what_the_broker_does_not_take_is_not_sent(limits: bytes, message: Message, words: str) -> None:
    """The refusal names the limit and what to do, and the connection lives on."""
    async with StrictBroker(limits=limits) as broker, started(broker.port) as session:
        with pytest.raises(UnsupportedError, match=words):
            await session.publish(message)
        await session.ping()
        assert broker.published == []
        assert broker.connections == 1


PROPERTIES = Properties(
    payload_format=1,
    message_expiry=3600,
    content_type="application/json",
    response_topic="replies/é",
    correlation_data=b"\x00\xff",
    user_properties=(("a", "1"), ("a", "2")),
)


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("size", [0, 118, 119, 120, 121, 122, 123, 124, 125, 126, 16_376, 16_377, 16_378])
async def test_the_size_of_a_packet_is_exact(version: int, qos: int, size: int) -> None:
    """The size told is what the broker reads, fixed header and properties included (MQTT 5 §3.3)."""
    plain = Message("é", b"x" * size, qos)
    rich = Message("é", b"x" * size, qos, properties=PROPERTIES)
    messages = [plain, rich] if version == 5 else [plain]
    async with StrictBroker() as broker, started(broker.port, protocol_version=version) as session:
        for message in messages:
            await session.publish(message)
        await session.ping()
        assert [each.size for each in broker.published] == [publish_size(each, version) for each in messages]


async def test_a_packet_of_exactly_the_maximum_size_is_sent_and_one_byte_more_is_not() -> None:
    """The properties count, and the refusal tells both sizes."""
    limit = 400
    message = Message("m", b"x", 1, properties=PROPERTIES)
    room = limit - publish_size(message, 5)
    limits = bytes([MAXIMUM_PACKET_SIZE]) + limit.to_bytes(4, "big")
    async with StrictBroker(limits=limits) as broker, started(broker.port) as session:
        fits = Message("m", b"x" * room, 1, properties=PROPERTIES)
        assert publish_size(fits, 5) == limit
        assert await session.publish(fits) == 0
        with pytest.raises(UnsupportedError, match="401 bytes; the broker takes at most 400") as caught:
            await session.publish(Message("m", b"x" * (room + 1), 1, properties=PROPERTIES))
        assert caught.value.reason_code == 0x95
        assert [each.size for each in broker.published] == [limit]


async def test_mosquitto_takes_a_packet_of_exactly_its_maximum_size() -> None:
    """What it says in CONNACK is what it takes: one byte more would end the connection."""
    with Mosquitto(extra=["max_packet_size 2000"]) as broker:
        async with started(broker.port) as session:
            limits = await session.connected(SECONDS)
            assert limits.maximum_packet_size == 2000
            fits = Message("m", b"x" * (2000 - publish_size(Message("m", b"x" * 1000, 1), 5) + 1000), 1)
            assert publish_size(fits, 5) == 2000
            assert await session.publish(fits) in (0x00, 0x10)
            with pytest.raises(UnsupportedError):
                await session.publish(Message("m", fits.payload + b"x", 1))


@pytest.mark.parametrize(
    ("limits", "topic_filter", "reason_code", "words"),
    [
        (bytes([WILDCARD_AVAILABLE, 0]), "a/+/b", 0xA2, "no wildcards"),
        (bytes([WILDCARD_AVAILABLE, 0]), "#", 0xA2, "no wildcards"),
        (bytes([WILDCARD_AVAILABLE, 0]), "$share/g/a/#", 0xA2, "no wildcards"),
        (
            bytes([SHARED_AVAILABLE, 0]),
            "$share/g/a",
            0x9E,
            "no shared subscriptions: subscribe to 'a' itself",
        ),
    ],
)
async def test_a_filter_that_the_broker_does_not_take_is_not_sent(
    limits: bytes, topic_filter: str, reason_code: int, words: str
) -> None:
    """Nothing of the call is sent, the filters beside it neither."""
    async with StrictBroker(limits=limits) as broker, started(broker.port) as session:
        with pytest.raises(UnsupportedError, match=words) as caught:
            await session.subscribe([Subscription("plain"), Subscription(topic_filter)])
        assert (caught.value.reason_code, caught.value.topic) == (reason_code, topic_filter)
        assert await session.subscribe([Subscription("plain")]) == [0]
        assert [each.filters for each in broker.subscribed] == [["plain"]]


async def test_without_subscription_identifiers_none_is_sent() -> None:
    """SUBSCRIBE goes out without, and messages are matched by topic."""
    async with (
        StrictBroker(limits=bytes([IDENTIFIERS_AVAILABLE, 0])) as broker,
        started(broker.port) as session,
    ):
        await session.subscribe([Subscription("a", identifier=1), Subscription("b", identifier=2)])
        assert [(each.filters, each.has_identifier) for each in broker.subscribed] == [(["a", "b"], False)]


async def test_a_filter_beyond_a_limit_that_is_new_is_given_up() -> None:
    """A broker that comes back without wildcards costs the filters that have them, and no connection."""
    refused: list[tuple[str, int]] = []
    async with StrictBroker() as broker:
        session = Session(
            ConnectOptions("127.0.0.1", broker.port),
            on_state=lambda change: refused.extend(change.refused),
            reconnect_min_seconds=0.01,
        )
        await session.start()
        await session.subscribe([Subscription("plain"), Subscription("all/#")])
        broker.set_limits(bytes([WILDCARD_AVAILABLE, 0]))
        broker.hang_up()
        await until(lambda: bool(refused))
        assert refused == [("all/#", 0xA2)]
        assert [each.filters for each in broker.subscribed] == [["plain", "all/#"], ["plain"]]
        await session.close()
