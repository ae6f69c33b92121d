"""QoS 1 and 2 messages in flight when the connection ends, with a session that is kept and without."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.answer_proxy import AnswerProxy
from tests.support.brokers import Client
from tests.support.mosquitto import Mosquitto
from tests.support.packets import PacketType
from tests.support.strict_broker import RECEIVE_MAXIMUM, StrictBroker
from tidegate.connection import Carry, ConnectOptions, ProtocolVersion, SessionMemory, Subscription
from tidegate.connections.aiomqtt_connection import connect
from tidegate.errors import MQTTConnectionError, OutcomeUnknownError
from tidegate.memory import MemoryBroker
from tidegate.message import Message
from tidegate.session import Session

NAMES = (f"in-flight-{number}" for number in itertools.count())
SECONDS = 20.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def started(
    port: int, version: ProtocolVersion | None = 5, *, is_kept: bool = True, **options: Any
) -> AsyncIterator[Session]:
    """A session that is connected; its messages go to ``received`` where that is given."""
    received: list[Message] | None = options.pop("received", None)
    options.setdefault("publish_timeout_seconds", SECONDS)
    session = Session(
        ConnectOptions(
            "127.0.0.1",
            port,
            client_id=next(NAMES),
            protocol_version=version,
            session_expiry_seconds=600 if is_kept else 0,
        ),
        on_message=received.append if received is not None else lambda message: None,
        reconnect_min_seconds=0.01,
        reconnect_max_seconds=0.1,
        **options,
    )
    await session.start()
    await session.connected(SECONDS)
    try:
        yield session
        await session.connected(SECONDS)  # no attempt is left half-way
    finally:
        await session.close(flush_seconds=0)


async def received_before_mark(session: Session, received: list[Message]) -> list[bytes]:
    """The payloads that came before a message that is published now."""
    await session.publish(Message("flight/mark", b"mark", 2))
    await until(lambda: any(message.topic == "flight/mark" for message in received))
    return [message.payload for message in received if message.topic != "flight/mark"]


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize(
    ("qos", "lost"),
    [(1, PacketType.PUBACK), (2, PacketType.PUBREC), (2, PacketType.PUBCOMP)],
)
async def test_a_message_whose_answer_is_lost_goes_on_over_the_next_connection(
    mosquitto: Mosquitto, version: ProtocolVersion, qos: int, lost: PacketType
) -> None:
    """The caller waits on and gets its answer; a subscriber gets QoS 2 once, and QoS 1 at least once."""
    received: list[Message] = []
    async with (
        AnswerProxy(mosquitto.port) as proxy,
        started(mosquitto.port, received=received) as witness,
        started(proxy.port, version) as session,
    ):
        await witness.subscribe([Subscription("flight/#", qos=2)])
        proxy.withhold(lost)
        publishing = session.submit(Message("flight/a", b"once", qos))
        await proxy.until_withheld()
        assert not publishing.done()
        proxy.withhold(None)
        proxy.reset_connections()
        assert await publishing == 0
        payloads = await received_before_mark(session, received)
        assert (payloads == [b"once"]) if qos == 2 else (set(payloads) == {b"once"})
        assert session.in_flight == 0


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("lost", [PacketType.PUBREC, PacketType.PUBCOMP])
async def test_no_number_of_lost_connections_doubles_a_message(
    mosquitto: Mosquitto, version: ProtocolVersion, lost: PacketType
) -> None:
    """The answer is lost, the next attempts to connect fail, and only then one succeeds: still once."""
    received: list[Message] = []
    async with (
        AnswerProxy(mosquitto.port) as proxy,
        started(mosquitto.port, received=received) as witness,
        started(proxy.port, version) as session,
    ):
        await witness.subscribe([Subscription("flight/#", qos=2)])
        proxy.withhold(lost)
        publishing = session.submit(Message("flight/a", b"once", 2))
        await proxy.until_withheld()
        proxy.withhold(PacketType.CONNACK)
        attempts = proxy.accepted
        proxy.reset_connections()
        for attempt in (1, 2):
            await until(lambda goal=attempts + attempt: proxy.accepted >= goal)  # type: ignore[misc]
            await proxy.until_withheld()
            proxy.withhold(PacketType.CONNACK)
            proxy.reset_connections()
        proxy.withhold(None)
        proxy.reset_connections()
        assert await publishing == 0
        assert await received_before_mark(session, received) == [b"once"]


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_broker_that_restarts_with_its_store_gets_no_message_twice(end: str) -> None:
    """Twenty QoS 2 exchanges stand half-way when the broker ends; each message arrives once."""
    received: list[Message] = []
    with Mosquitto(persistence=True) as broker:
        async with (
            AnswerProxy(broker.port) as proxy,
            started(broker.port, received=received) as witness,
            started(proxy.port) as session,
        ):
            await witness.subscribe([Subscription("flight/#", qos=2)])
            proxy.withhold(PacketType.PUBREC)
            publishing = [session.submit(Message("flight/a", b"%d" % number, 2)) for number in range(20)]
            await proxy.until_withheld()
            if end == "kill":
                await until_saved(broker)
            await asyncio.to_thread(getattr(broker, end))
            proxy.withhold(None)
            await asyncio.to_thread(broker.start)
            assert await asyncio.gather(*publishing) == [0] * 20
            payloads = await received_before_mark(session, received)
            assert sorted(payloads, key=int) == [b"%d" % number for number in range(20)]


async def until_saved(broker: Mosquitto) -> None:
    """Wait until the broker has written its store twice: the second holds what was there at the first."""
    store = broker.directory / "mosquitto.db"
    async with started(broker.port) as session:
        for _ in range(2):
            before = store.stat().st_mtime_ns if store.exists() else 0
            await session.publish(Message("saved", b"x", 1, retain=True))
            await until(lambda before=before: store.exists() and store.stat().st_mtime_ns > before)  # type: ignore[misc]


async def test_a_kept_exchange_keeps_its_packet_identifier() -> None:
    """PUBLISH comes again under the same identifier, marked as a duplicate."""
    async with StrictBroker(keeps_sessions=True) as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH, PacketType.PUBREL}
        publishing = [session.submit(Message(f"m/{qos}", b"", qos)) for qos in (1, 2)]
        await until(lambda: len(broker.published) == 2)
        broker.hang_up()
        await until(lambda: len(broker.published) == 4)
        first, again = broker.published[:2], broker.published[2:]
        assert [(each.topic, each.packet_id) for each in again] == [
            (each.topic, each.packet_id) for each in first
        ]
        assert [each.is_duplicate for each in (*first, *again)] == [False, False, True, True]
        broker.answer_now()
        assert await asyncio.gather(*publishing) == [0, 0]


async def test_a_broker_that_forgot_the_session_gets_qos_1_as_new_and_qos_2_not_at_all() -> None:
    """Sent again, QoS 2 might arrive twice: it is an unknown outcome, in a kept session as in any other."""
    async with StrictBroker() as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        once, twice = (session.submit(Message(f"m/{qos}", b"", qos)) for qos in (1, 2))
        await until(lambda: len(broker.published) == 2)
        broker.unanswered.clear()
        broker.hang_up()
        assert await once == 0
        with pytest.raises(OutcomeUnknownError, match="did not keep the session"):
            await twice
        again = broker.published[2:]
        assert [(each.topic, each.is_duplicate) for each in again] == [("m/1", False)]


async def test_a_session_that_is_not_kept_fails_qos_2_at_once() -> None:
    """There is no need to wait for the next connection to know it."""
    async with StrictBroker() as broker, started(broker.port, is_kept=False) as session:
        broker.unanswered = {PacketType.PUBLISH}
        once, twice = (session.submit(Message(f"m/{qos}", b"", qos)) for qos in (1, 2))
        await until(lambda: len(broker.published) == 2)
        broker.unanswered.clear()
        broker.hang_up()
        with pytest.raises(OutcomeUnknownError):
            await twice
        assert await once == 0


async def test_a_message_that_nobody_waits_for_any_more_is_not_sent_again() -> None:
    """Its time was up before the connection ended; its late outcome then says that none will come."""
    async with (
        StrictBroker(keeps_sessions=True) as broker,
        started(broker.port, publish_timeout_seconds=0.1) as session,
    ):
        broker.unanswered = {PacketType.PUBLISH}
        with pytest.raises(OutcomeUnknownError) as caught:
            await session.publish(Message("m/stale", b"", 2))
        broker.unanswered.clear()
        broker.hang_up()
        assert caught.value.outcome is not None
        with pytest.raises(MQTTConnectionError):
            await caught.value.outcome
        await session.connected(SECONDS)
        await session.publish(Message("m/next", b"", 2), timeout_seconds=SECONDS)
        assert [each.topic for each in broker.published] == ["m/stale", "m/next"]
        stale, following = broker.published
        assert stale.packet_id != following.packet_id


async def test_a_message_may_run_out_of_time_between_connections() -> None:
    """It fails when its time is up, and is not sent when the broker comes back."""
    async with (
        StrictBroker(keeps_sessions=True) as broker,
        AnswerProxy(broker.port) as proxy,
        started(proxy.port) as session,
    ):
        broker.unanswered = {PacketType.PUBLISH}
        publishing = session.submit(Message("m/stale", b"", 1), timeout_seconds=0.3)
        await until(lambda: len(broker.published) == 1)
        proxy.withhold(PacketType.CONNACK)
        proxy.reset_connections()
        with pytest.raises(OutcomeUnknownError) as caught:
            await publishing
        assert caught.value.outcome is None
        broker.unanswered.clear()
        proxy.withhold(None)
        proxy.reset_connections()
        await session.publish(Message("m/next", b"", 1))
        assert [each.topic for each in broker.published] == ["m/stale", "m/next"]


async def test_a_smaller_receive_maximum_holds_for_what_goes_on_too() -> None:
    """The broker comes back with room for one: exchanges go on one after the other, none as a new message."""
    async with StrictBroker(keeps_sessions=True) as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBLISH}
        publishing = [session.submit(Message(f"m/{number}", b"", 2)) for number in range(5)]
        await until(lambda: len(broker.published) == 5)
        broker.set_limits(bytes([RECEIVE_MAXIMUM, 0, 1]))
        broker.hang_up()
        await until(lambda: len(broker.published) == 6)
        assert session.waiting == 4
        broker.answer_now()
        assert await asyncio.gather(*publishing) == [0] * 5
        again = broker.published[5:]
        assert [each.topic for each in again] == [f"m/{number}" for number in range(5)]
        assert all(each.is_duplicate for each in again)
        assert [each.packet_id for each in again] == [each.packet_id for each in broker.published[:5]]


@pytest.mark.parametrize("version", [5, 4])
async def test_the_broker_in_memory_goes_on_with_exchanges_too(version: ProtocolVersion) -> None:
    """What it had taken is answered and not taken again; what it had not is taken now."""
    broker = MemoryBroker()
    session = Session(
        ConnectOptions(client_id="memory", session_expiry_seconds=60, protocol_version=version),
        connect=broker.connect,
        reconnect_min_seconds=0.01,
        publish_timeout_seconds=SECONDS,
    )
    await session.start()
    await session.connected(SECONDS)
    broker.freeze()
    publishing = [session.submit(Message("m", b"%d" % qos, qos)) for qos in (1, 2)]
    await asyncio.sleep(0)
    broker.stop()
    await until(lambda: session.limits is None)
    assert broker.published == []
    broker.thaw()
    broker.start()
    await asyncio.gather(*publishing)
    assert [message.payload for message in broker.published] == [b"1", b"2"]
    await session.close()


async def test_a_message_that_was_released_already_is_a_success() -> None:
    """PUBCOMP is lost, and the broker knows the identifier no more when PUBREL comes again (§4.3.3)."""
    async with StrictBroker(keeps_sessions=True) as broker, started(broker.port) as session:
        broker.unanswered = {PacketType.PUBREL}
        publishing = session.submit(Message("m", b"", 2))
        await until(lambda: broker.postponed == 1)
        broker.unanswered.clear()
        broker.hang_up()
        assert await publishing == 0
        assert len(broker.published) == 1


async def test_a_dropped_exchange_keeps_its_packet_identifier_from_others() -> None:
    """The broker may still wait to be told of the release, and would take a new message for the old one."""
    memory = SessionMemory()
    async with StrictBroker(keeps_sessions=True) as broker:
        options = ConnectOptions(
            "127.0.0.1",
            broker.port,
            client_id="dropped",
            clean_start=False,
            session_expiry_seconds=60,
            memory=memory,
        )
        broker.unanswered = {PacketType.PUBLISH}
        first = Client()
        first.connection = await connect(options, first)
        for qos in (1, 2):
            first.connection.publish(Message("stale", b"", qos), qos)
        await until(lambda: len(broker.published) == 2)
        broker.hang_up()
        await first.until(lambda: bool(first.losses))
        broker.unanswered.clear()
        memory.last_packet_id = broker.published[0].packet_id - 1
        second = Client()
        second.carries = {1: Carry.DROP, 2: Carry.DROP}
        second.connection = await connect(options, second)
        assert second.resumed == [1, 2]
        for _ in range(3):
            await second.publish(Message("new", b"", 1))
        stale = [each.packet_id for each in broker.published[:2]]
        assert stale == [1, 2]
        assert [each.packet_id for each in broker.published[2:]] == [1, 3, 4]
        await second.connection.close()


async def test_giving_up_a_close_closes_all_the_same() -> None:
    """A broker that answers nothing does not keep the connection open, whoever stops waiting for it."""
    async with StrictBroker() as broker:
        broker.unanswered = {PacketType.PUBLISH}
        client = Client()
        client.connection = await connect(ConnectOptions("127.0.0.1", broker.port), client)
        client.connection.publish(Message("m", b"", 1), "token")
        await until(lambda: len(broker.published) == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.connection.close()
        await until(lambda: broker.open_connections == 0)
