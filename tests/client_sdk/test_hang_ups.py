"""A broker that answers a message by closing the connection, which is everybody's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.packets import PacketType
from tests.support.strict_broker import StrictBroker
from tidegate.connection import ConnectOptions, ProtocolVersion
from tidegate.errors import NotAuthorizedError, OutcomeUnknownError, RefusedError
from tidegate.memory import MemoryBroker
from tidegate.message import Message
from tidegate.session import Session

NAMES = (f"hang-up-{number}" for number in itertools.count())
SECONDS = 20.0
POISON = "poison"


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def started(
    port: int, version: ProtocolVersion = 4, *, is_kept: bool = False, **options: Any
) -> AsyncIterator[Session]:
    """A session that is connected, and patient."""
    session = Session(
        ConnectOptions(
            "127.0.0.1",
            port,
            client_id=next(NAMES),
            protocol_version=version,
            session_expiry_seconds=600 if is_kept else 0,
        ),
        publish_timeout_seconds=SECONDS,
        reconnect_min_seconds=0.01,
        reconnect_max_seconds=0.05,
        **options,
    )
    await session.start()
    await session.connected(SECONDS)
    try:
        yield session
        await session.connected(SECONDS)  # no attempt is left half-way
    finally:
        await session.close(flush_seconds=0)


def count(broker: StrictBroker, topic: str) -> int:
    """How often the broker has read a topic."""
    return sum(each.topic == topic for each in broker.published)


async def test_the_message_at_fault_fails_and_the_others_pass() -> None:
    """Three connections end with it in flight, not a fourth; 200 others around it are all acknowledged."""
    async with StrictBroker(forbidden=[POISON]) as broker, started(broker.port) as session:
        before = [session.submit(Message(f"fine/{number}", b"", 1)) for number in range(100)]
        poison = session.submit(Message(POISON, b"", 1))
        after = [session.submit(Message(f"fine/{number}", b"", 1)) for number in range(100, 200)]
        with pytest.raises(OutcomeUnknownError, match="ended 3 times"):
            await poison
        assert await asyncio.gather(*before, *after) == [0] * 200
        assert count(broker, POISON) == 3
        assert broker.connections == 4
        assert (session.in_flight, session.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("reason_code", "kind"), [(0x87, NotAuthorizedError), (0x95, RefusedError), (0x99, RefusedError)]
)
async def test_the_error_names_the_reason_code_of_disconnect(
    reason_code: int, kind: type[RefusedError]
) -> None:
    """A strict MQTT 5 broker says why it closes the connection (MQTT 5 §3.14.2.1)."""
    async with (
        StrictBroker(forbidden=[POISON], reason_code=reason_code) as broker,
        started(broker.port, 5) as session,
    ):
        with pytest.raises(kind, match="closing the connection") as caught:
            await session.publish(Message(POISON, b"", 1))
        assert (caught.value.reason_code, caught.value.topic) == (reason_code, POISON)
        assert await session.publish(Message("fine", b"", 1)) == 0


async def test_several_messages_at_fault_are_found_one_after_the_other() -> None:
    """Each costs connections, none of the innocent fails, whatever order they came in."""
    poisons = [f"poison/{number}" for number in range(3)]
    async with StrictBroker(forbidden=poisons) as broker, started(broker.port) as session:
        topics = [*(f"fine/{number}" for number in range(10)), *poisons]
        order = [topics[number * 5 % len(topics)] for number in range(len(topics))]
        sent = {topic: session.submit(Message(topic, b"", 1)) for topic in order}
        results = await asyncio.gather(*sent.values(), return_exceptions=True)
        failed = [topic for topic, result in zip(order, results, strict=True) if result != 0]
        assert sorted(failed) == poisons


async def test_others_are_acknowledged_while_a_suspect_is_tried() -> None:
    """A suspect that gets no answer holds up other suspects, and nobody else."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        suspects = [session.submit(Message(f"suspect/{number}", b"", 1)) for number in range(3)]
        for end in (1, 2):
            await until(lambda goal=3 * end: len(broker.published) == goal)  # type: ignore[misc]
            broker.hang_up()
        await until(lambda: len(broker.published) == 7)
        assert session.waiting == 2
        broker.unanswered.clear()
        assert await session.publish(Message("other", b"", 1)) == 0
        assert [each.topic for each in broker.published[6:]] == ["suspect/0", "other"]
        broker.answer_now()
        assert await asyncio.gather(*suspects) == [0] * 3


async def test_a_suspect_whose_time_is_up_makes_room_for_the_next() -> None:
    """No answer comes to the first, which fails; the second is tried then, and acknowledged."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        first = session.submit(Message("suspect/0", b"", 1), timeout_seconds=2.0)
        second = session.submit(Message("suspect/1", b"", 1))
        for end in (1, 2):
            await until(lambda goal=2 * end: len(broker.published) == goal)  # type: ignore[misc]
            broker.hang_up()
        await until(lambda: len(broker.published) == 5)
        broker.unanswered.clear()
        with pytest.raises(OutcomeUnknownError):
            await first
        assert await second == 0
        assert [each.topic for each in broker.published[4:]] == ["suspect/0", "suspect/1"]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_kept_session_does_not_bring_the_message_back_for_ever(
    version: ProtocolVersion, qos: int
) -> None:
    """Its exchange goes on over two connections, alone over the third, and not again."""
    async with (
        StrictBroker(forbidden=[POISON], keeps_sessions=True) as broker,
        started(broker.port, version, is_kept=True) as session,
    ):
        fine = [session.submit(Message(f"fine/{number}", b"", qos)) for number in range(5)]
        with pytest.raises(OutcomeUnknownError, match="ended 3 times"):
            await session.publish(Message(POISON, b"", qos))
        assert await asyncio.gather(*fine) == [0] * 5
        assert await session.publish(Message("fine/after", b"", qos)) == 0
        poisons = [each for each in broker.published if each.topic == POISON]
        assert [each.is_duplicate for each in poisons] == [False, True, True]
        assert len({each.packet_id for each in poisons}) == 1


async def test_ends_that_no_message_is_to_blame_for_do_not_count() -> None:
    """A broker that shuts down again and again says so, and the message arrives in the end."""
    async with StrictBroker() as broker, started(broker.port, 5) as session:
        broker.unanswered = {PacketType.PUBLISH}
        publishing = session.submit(Message("patient", b"", 1))
        for end in range(1, 6):
            await until(lambda goal=end: len(broker.published) == goal)  # type: ignore[misc]
            broker.hang_up(0x8B)
        await until(lambda: len(broker.published) == 6)
        broker.answer_now()
        assert await publishing == 0


async def test_a_message_of_qos_0_costs_one_connection() -> None:
    """It was with the socket, which is all that QoS 0 promises; it is not sent again."""
    async with StrictBroker(forbidden=[POISON]) as broker, started(broker.port) as session:
        assert await session.publish(Message(POISON, b"", 0)) == 0
        await until(lambda: broker.connections == 2)
        assert await session.publish(Message("fine", b"", 1)) == 0
        assert count(broker, POISON) == 1


async def test_mosquitto_hangs_up_on_a_packet_that_is_too_large() -> None:
    """On MQTT 3.1.1 it cannot tell its limit: the large message fails, and another's arrives."""
    with Mosquitto(extra=["max_packet_size 2000"]) as broker:
        async with started(broker.port) as session:
            large = session.submit(Message("large", b"x" * 3000, 1))
            small = [session.submit(Message("small", b"%d" % number, 1)) for number in range(50)]
            with pytest.raises(OutcomeUnknownError, match="ended 3 times"):
                await large
            assert await asyncio.gather(*small) == [0] * 50


async def test_the_broker_in_memory_hangs_up_too() -> None:
    """On a topic that MQTT forbids it does as others do, and names the reason."""
    broker = MemoryBroker()
    session = Session(
        ConnectOptions(), connect=broker.connect, reconnect_min_seconds=0.01, publish_timeout_seconds=SECONDS
    )
    await session.start()
    await session.connected(SECONDS)
    with pytest.raises(RefusedError) as caught:
        await session.publish(Message("nul\0", b"", 1))
    assert caught.value.reason_code == 0x81
    await session.publish(Message("fine", b"", 1))
    await session.close()
