"""What is learnt of a message after its caller was told that the outcome is unknown."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tests.support.packets import PacketType
from tests.support.strict_broker import StrictBroker
from tidegate.connection import ConnectOptions
from tidegate.errors import MQTTConnectionError, OutcomeUnknownError
from tidegate.message import Message
from tidegate.session import Session

SECONDS = 20.0


@asynccontextmanager
async def started(port: int) -> AsyncIterator[Session]:
    """A session that is connected, and waits a tenth of a second for an acknowledgement."""
    session = Session(
        ConnectOptions("127.0.0.1", port), publish_timeout_seconds=0.1, reconnect_min_seconds=0.01
    )
    await session.start()
    await session.connected(SECONDS)
    try:
        yield session
        await session.connected(SECONDS)  # no attempt is left half-way
    finally:
        await session.close(flush_seconds=0)


async def outcome_of(session: Session, message: Message) -> asyncio.Future[int]:
    """Publish a message that is not answered in time, and give what its error promises."""
    with pytest.raises(OutcomeUnknownError) as caught:
        await session.publish(message)
    assert caught.value.outcome is not None
    assert not caught.value.outcome.done()
    return caught.value.outcome


async def within_bounds(outcome: asyncio.Future[int]) -> int:
    """Wait for an outcome."""
    async with asyncio.timeout(SECONDS):
        return await outcome


@pytest.mark.parametrize("qos", [1, 2])
async def test_an_answer_that_comes_late_is_told(qos: int) -> None:
    """The future of the error is done when the broker answers after all."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        outcome = await outcome_of(session, Message("late", b"", qos))
        broker.answer_now()
        assert await within_bounds(outcome) == 0
        assert session.in_flight == 0


async def test_a_late_refusal_is_told_too() -> None:
    """A refusing reason code is a result, as it is for ``submit``."""
    with Mosquitto(acl="topic readwrite open/#\n") as broker:
        async with FaultProxy(broker.port) as proxy, started(proxy.port) as session:
            await proxy.set(Fault.BLACK_HOLE)
            outcome = await outcome_of(session, Message("closed", b"", 1))
            await proxy.set(Fault.PASS)
            assert await within_bounds(outcome) == 0x87


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_lost_connection_ends_the_hope(qos: int) -> None:
    """The message is not sent again, so that no answer can come."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        outcome = await outcome_of(session, Message("lost", b"", qos))
        broker.unanswered.clear()
        broker.hang_up()
        with pytest.raises(MQTTConnectionError, match="never answered"):
            await within_bounds(outcome)
        await session.connected(SECONDS)
        await session.publish(Message("next", b"", 1), timeout_seconds=SECONDS)
        assert [each.topic for each in broker.published] == ["lost", "next"]


async def test_a_closed_session_ends_the_hope() -> None:
    """Whoever waits for the outcome does not wait for ever."""
    async with StrictBroker() as broker:
        async with started(broker.port) as session:
            broker.unanswered = {PacketType.PUBLISH}
            outcome = await outcome_of(session, Message("lost", b"", 1))
        with pytest.raises(MQTTConnectionError, match="closed"):
            await within_bounds(outcome)


async def test_an_outcome_that_nobody_asks_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Errors that nobody took are logged by asyncio; this one may be left alone."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        told: list[asyncio.Future[int]] = [await outcome_of(session, Message("lost", b"", 1))]
        broker.hang_up()
        await until(told[0].done)
        await session.connected(SECONDS)  # the connection that is lost holds on to nothing then
        told.clear()
        gc.collect()
    assert "never retrieved" not in caplog.text


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_message_that_cannot_be_answered_has_no_outcome() -> None:
    """Without its session a QoS 2 message ends with its connection: there is nothing to wait for."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        publishing = session.submit(Message("lost", b"", 2), timeout_seconds=SECONDS)
        await until(lambda: bool(broker.published))
        broker.hang_up()
        with pytest.raises(OutcomeUnknownError) as caught:
            await publishing
        assert caught.value.outcome is None
