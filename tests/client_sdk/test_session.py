"""The session over a real broker, with the faults of a network put between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from iotcore import Broker

from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate.connection import Connection, ConnectionEvents, ConnectOptions, Subscription, Will
from tidegate.connections.aiomqtt_connection import connect
from tidegate.errors import (
    NotAuthorizedError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    UnsupportedError,
)
from tidegate.line import Line
from tidegate.memory import MemoryBroker
from tidegate.message import Message, Properties
from tidegate.session import Session, SessionState, StateChange


class Observed:
    """A session and all that it told."""

    def __init__(self, port: int, **options: Any) -> None:
        self.messages: list[Message] = []
        self.changes: list[StateChange] = []
        self._news = asyncio.Event()
        connect = {
            key: options.pop(key)
            for key in list(options)
            if key in ("keepalive_seconds", "protocol_version", "client_id", "username", "password", "will")
        }
        connect.setdefault("connect_timeout_seconds", 5.0)
        options.setdefault("reconnect_max_seconds", 0.5)
        self.session = Session(
            ConnectOptions(host="127.0.0.1", port=port, **connect),
            on_message=self._on_message,
            on_state=self._on_state,
            **options,
        )

    def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        self._news.set()

    def _on_state(self, change: StateChange) -> None:
        self.changes.append(change)
        self._news.set()

    @property
    def states(self) -> list[SessionState]:
        """The states it passed through."""
        return [change.state for change in self.changes]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that a message or a change of state brings."""
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                if not condition():
                    await self._news.wait()


@asynccontextmanager
async def observed(port: int, **options: Any) -> AsyncIterator[Observed]:
    """A started session that is closed at the end."""
    found = Observed(port, **options)
    await found.session.start()
    try:
        yield found
    finally:
        await found.session.close(flush_seconds=0.1)


@pytest.mark.parametrize("version", [5, 4])
async def test_publish_tells_the_reason_code_at_every_qos(mosquitto: Mosquitto, version: int) -> None:
    """QoS 0, 1 and 2 end with a code, and the messages arrive as they were sent."""
    async with observed(mosquitto.port, protocol_version=version) as one:
        codes = await one.session.subscribe([Subscription("session/every/#", qos=2)])
        assert codes == [2]
        for qos in (0, 1, 2):
            assert await one.session.publish(Message("session/every/qos", b"%d" % qos, qos)) == 0
        await one.until(lambda: len(one.messages) == 3)
        assert [(each.payload, each.qos) for each in one.messages] == [(b"0", 0), (b"1", 1), (b"2", 2)]


async def test_publish_tells_that_nobody_subscribes(mosquitto: Mosquitto) -> None:
    """Reason code 0x10 is a success, where the broker gives it; 0x00 where it does not."""
    async with observed(mosquitto.port) as one:
        assert await one.session.publish(Message("session/nobody", b"", 1)) in (0x00, 0x10)


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refused_publish_is_an_error_that_names_the_code(qos: int) -> None:
    """Mosquitto's ACL refuses with 0x87, also the first half of a QoS 2 exchange."""
    with Mosquitto(acl="topic readwrite open/#\n") as broker:
        async with observed(broker.port) as one:
            with pytest.raises(NotAuthorizedError) as caught:
                await one.session.publish(Message("closed/door", b"x", qos))
            assert (caught.value.reason_code, caught.value.topic) == (0x87, "closed/door")
            assert await one.session.publish(Message("open/door", b"x", qos)) in (0x00, 0x10)
            assert one.session.in_flight == 0


async def test_a_thousand_publishes_at_once_keep_their_order(mosquitto: Mosquitto) -> None:
    """More than the broker's Receive Maximum: the rest waits its turn, and order is kept."""
    async with observed(mosquitto.port) as one:
        await one.session.subscribe([Subscription("session/order", qos=1)])
        payloads = [b"%d" % number for number in range(1000)]
        await asyncio.gather(*(one.session.publish(Message("session/order", each, 1)) for each in payloads))
        await one.until(lambda: len(one.messages) == 1000)
        assert [each.payload for each in one.messages] == payloads


async def test_the_receive_maximum_is_honoured() -> None:
    """With a broker that takes one at a time, never more than one is in flight."""
    with Mosquitto(extra=["max_inflight_messages 1"]) as broker:
        async with observed(broker.port) as one:
            limits = await one.session.connected(5)
            assert limits.receive_maximum == 1
            highest = 0

            async def publish() -> None:
                nonlocal highest
                sending = asyncio.ensure_future(one.session.publish(Message("a", b"x", 1)))
                await asyncio.sleep(0)
                highest = max(highest, one.session.in_flight)
                await sending

            await asyncio.gather(*(publish() for _ in range(50)))
            assert highest == 1


async def test_the_waiting_room_is_bounded() -> None:
    """One message too many is refused at once, and nothing of it was sent."""
    with Mosquitto() as broker:
        broker.pause()
        async with observed(broker.port, max_waiting=3, publish_timeout_seconds=0.5) as one:
            waiting = [asyncio.create_task(one.session.publish(Message("a", b"", 1))) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFullError):
                await one.session.publish(Message("a", b"", 1))
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(each) for each in results} == {NotConnectedError}
            broker.resume()


async def test_an_acknowledgement_that_does_not_come_is_an_unknown_outcome(mosquitto: Mosquitto) -> None:
    """Through a black hole a publish ends as unknown, and arrives once the hole heals: it was no failure."""
    async with (
        FaultProxy(mosquitto.port) as proxy,
        observed(proxy.port, publish_timeout_seconds=0.5) as one,
        observed(mosquitto.port) as witness,
    ):
        await witness.session.subscribe([Subscription("session/unknown", qos=1)])
        await one.session.connected(5)
        await proxy.set(Fault.BLACK_HOLE)
        with pytest.raises(OutcomeUnknownError):
            await one.session.publish(Message("session/unknown", b"late", 1))
        await proxy.set(Fault.PASS)
        await witness.until(lambda: bool(witness.messages))
        assert witness.messages[0].payload == b"late"


async def test_publishes_wait_for_a_broker_that_comes_back() -> None:
    """While the broker is away a publish waits, and succeeds when it is back in time."""
    with Mosquitto() as broker:
        async with observed(broker.port) as one:
            await one.session.connected(5)
            broker.stop()
            await one.until(lambda: SessionState.DISCONNECTED in one.states)
            waiting = asyncio.create_task(one.session.publish(Message("a", b"x", 1)))
            await asyncio.sleep(0)
            broker.start()
            assert await waiting in (0x00, 0x10)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_publish_at_the_end_of_a_connection_waits_for_the_next(qos: int) -> None:
    """The connection takes nothing any more and did not say so yet: nothing was sent, and nothing fails."""
    broker = MemoryBroker()
    refused: list[Message] = []

    async def connect(options: ConnectOptions, events: ConnectionEvents) -> Connection:
        connection = await broker.connect(options, events)
        if not refused:

            def publish(message: Message, token: Any) -> None:
                refused.append(message)
                asyncio.get_running_loop().call_later(0.05, broker.stop)
                raise NotConnectedError("the connection is gone; nothing was sent")

            connection.publish = publish  # type: ignore[method-assign]
        return connection

    session = Session(ConnectOptions(), connect=connect)
    await session.start()
    await session.connected(5)
    sending = [asyncio.create_task(session.publish(Message("a", bytes([each]), qos))) for each in range(3)]
    while session.limits is not None:
        await asyncio.sleep(0.01)
    broker.start()
    assert all(code in (0x00, 0x10) for code in await asyncio.gather(*sending))
    assert [b"\0", b"\1", b"\2"] == [each.payload for each in broker.published]
    assert 1 == len(refused)
    await session.close()


async def test_an_unacknowledged_qos_1_publish_is_sent_again_after_a_reconnect(mosquitto: Mosquitto) -> None:
    """At least once: the connection dies with the message in flight, and the next one carries it."""
    async with FaultProxy(mosquitto.port) as proxy, observed(proxy.port) as one:
        await one.session.connected(5)
        await proxy.set(Fault.BLACK_HOLE)
        sending = asyncio.create_task(one.session.publish(Message("session/again", b"x", 1)))
        while not one.session.in_flight:
            await asyncio.sleep(0.01)
        await proxy.set(Fault.RESET)
        await one.until(lambda: SessionState.DISCONNECTED in one.states)
        await proxy.set(Fault.PASS)
        assert await sending in (0x00, 0x10)


async def test_subscriptions_are_made_again_after_a_reconnect() -> None:
    """A broker that forgot everything is told again, and messages flow."""
    with Mosquitto() as broker:
        async with observed(broker.port) as one:
            await one.session.subscribe([Subscription("kept/#", qos=1), Subscription("dropped")])
            await one.session.unsubscribe(["dropped"])
            broker.restart()
            await one.until(lambda: one.states.count(SessionState.CONNECTED) == 2)
            await one.session.publish(Message("dropped", b"no", 1))
            await one.session.publish(Message("kept/a", b"yes", 1))
            await one.until(lambda: bool(one.messages))
            assert [each.topic for each in one.messages] == ["kept/a"]


async def test_a_frozen_broker_is_noticed() -> None:
    """Round trips prove the connection; without an answer it counts as lost, and comes back by itself."""
    with Mosquitto() as broker:
        async with observed(broker.port, keepalive_seconds=1) as one:
            await one.session.connected(5)
            broker.pause()
            await one.until(lambda: SessionState.DISCONNECTED in one.states)
            broker.resume()
            await one.until(lambda: one.states[-1] is SessionState.CONNECTED)


async def test_a_broker_away_at_start_is_one_change_of_state_and_one_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However often it is tried, the log says once that the broker is away and once that it is there."""
    caplog.set_level(logging.INFO, "tidegate")
    with Mosquitto() as broker:
        broker.stop()
        async with observed(broker.port, reconnect_min_seconds=0.01, reconnect_max_seconds=0.02) as one:
            await one.until(lambda: SessionState.DISCONNECTED in one.states)
            async with FaultProxy(broker.port):
                await asyncio.sleep(0.2)  # several attempts more
            broker.start()
            await one.until(lambda: one.states[-1] is SessionState.CONNECTED)
            assert one.states == [SessionState.CONNECTING, SessionState.DISCONNECTED, SessionState.CONNECTED]
    ours = [record.message for record in caplog.records if "connected to" in record.message]
    assert len(ours) == 2
    assert "nothing listens" in ours[0]


async def test_what_the_protocol_cannot_carry_is_refused_and_not_dropped(mosquitto: Mosquitto) -> None:
    """Properties on a 3.1.1 session are an error before anything is sent."""
    async with observed(mosquitto.port, protocol_version=4) as one:
        await one.session.connected(5)
        with pytest.raises(UnsupportedError, match=r"3\.1\.1"):
            await one.session.publish(Message("a", b"", 1, properties=Properties(content_type="a/b")))


async def test_a_packet_larger_than_the_broker_takes_is_refused_before_it_is_sent() -> None:
    """The Maximum Packet Size of CONNACK is honoured, and the connection survives."""
    with Mosquitto(extra=["max_packet_size 2000"]) as broker:
        async with observed(broker.port) as one:
            await one.session.connected(5)
            with pytest.raises(UnsupportedError, match="2000"):
                await one.session.publish(Message("a", b"x" * 3000, 1))
            assert await one.session.publish(Message("a", b"x" * 1000, 1)) in (0x00, 0x10)
            assert one.states.count(SessionState.CONNECTED) == 1


@pytest.mark.parametrize(
    "properties",
    [
        Properties(content_type="x" * 70_000),
        Properties(correlation_data=b"x" * 70_000),
        Properties(message_expiry=-1),
        Properties(user_properties=[("a", "b")]),  # type: ignore[arg-type]
    ],
)
async def test_a_message_that_cannot_be_written_fails_alone(properties: Properties) -> None:
    """Also while it waits for the broker: its own call fails, and everybody else's connection stays."""
    with Mosquitto() as broker:
        async with observed(broker.port) as one:
            await one.session.connected(5)
            with pytest.raises(UnsupportedError, match="cannot be written"):
                await one.session.publish(Message("a", b"", 1, properties=properties))
            broker.stop()
            await one.until(lambda: SessionState.DISCONNECTED in one.states)
            waiting = asyncio.create_task(one.session.publish(Message("a", b"", 1, properties=properties)))
            await asyncio.sleep(0)
            broker.start()
            with pytest.raises(UnsupportedError, match="cannot be written"):
                await waiting
            assert await one.session.publish(Message("a", b"", 1)) in (0x00, 0x10)
            assert one.states.count(SessionState.CONNECTED) == 2


async def test_a_subscription_that_the_broker_refuses_is_told_and_not_kept() -> None:
    """SUBACK's code comes back for each filter, in order."""
    with Mosquitto(acl="topic readwrite open/#\n") as broker:
        async with observed(broker.port) as one:
            codes = await one.session.subscribe([Subscription("open/#", qos=1), Subscription("closed")])
            assert codes[0] == 1
            # Mosquitto 2.0 grants a filter and filters messages later; what it answers is what is told
            assert codes[1] in (0, 0x87)


async def test_subscribe_fails_plainly_while_the_broker_is_away(mosquitto: Mosquitto) -> None:
    """No connection in the time given: an error that says why, and nothing is kept for later."""
    async with FaultProxy(mosquitto.port) as proxy:
        await proxy.set(Fault.REFUSE)
        async with observed(proxy.port) as one:
            with pytest.raises(NotConnectedError, match="nothing listens"):
                await one.session.subscribe([Subscription("a")], timeout_seconds=0.3)
            await proxy.set(Fault.PASS)
            await one.session.connected(5)
            await one.session.publish(Message("a", b"", 1))
            assert one.messages == []


async def test_close_waits_for_what_is_in_flight(mosquitto: Mosquitto) -> None:
    """Every message handed over before close is with the broker after it."""
    async with observed(mosquitto.port) as witness:
        await witness.session.subscribe([Subscription("session/flush", qos=1)])
        one = Observed(mosquitto.port)
        await one.session.start()
        await one.session.connected(5)
        sending = [
            asyncio.create_task(one.session.publish(Message("session/flush", b"%d" % number, number % 2)))
            for number in range(200)
        ]
        await asyncio.sleep(0)
        await one.session.close()
        assert {await each for each in sending} <= {0x00, 0x10}
        await witness.until(lambda: len(witness.messages) == 200)


async def test_a_closed_session_refuses_and_stays_closed(mosquitto: Mosquitto) -> None:
    """After close every call says so; a second close does nothing."""
    one = Observed(mosquitto.port)
    await one.session.start()
    await one.session.connected(5)
    await one.session.close()
    await one.session.close()
    assert one.states[-1] is SessionState.CLOSED
    with pytest.raises(NotConnectedError):
        await one.session.publish(Message("a", b"", 1), timeout_seconds=0.1)
    with pytest.raises(NotConnectedError):
        await one.session.subscribe([Subscription("a")], timeout_seconds=0.1)


async def test_a_receiver_that_raises_does_not_end_the_connection(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault is logged, and the next message is handed over."""
    got: list[bytes] = []

    def receive(message: Message) -> None:
        got.append(message.payload)
        if message.payload == b"bad":
            raise RuntimeError("boom")

    session = Session(ConnectOptions(host="127.0.0.1", port=mosquitto.port), on_message=receive)
    await session.start()
    try:
        await session.subscribe([Subscription("session/raise", qos=1)])
        for payload in (b"bad", b"good"):
            await session.publish(Message("session/raise", payload, 1))
        async with asyncio.timeout(10):
            while got != [b"bad", b"good"]:
                await asyncio.sleep(0.01)
        assert session.state is SessionState.CONNECTED
        assert "boom" in caplog.text
    finally:
        await session.close()


async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1() -> None:
    """A listener that knows protocol level 4 alone gets a 3.1.1 session without being asked to."""
    with ReservedPort() as reserved, Broker(port=reserved.number, listen="127.0.0.1"):
        async with observed(reserved.number) as one:
            limits = await one.session.connected(10)
            assert limits.protocol_version == 4
            assert await one.session.publish(Message("a", b"", 1)) == 0


async def test_the_reason_of_the_brokers_disconnect_is_told() -> None:
    """A broker that says why it closes the connection is quoted."""
    with Mosquitto(extra=["max_packet_size 2000"]) as broker:
        line = Line(lambda _: None, lambda _, __: None, lambda _, __: ())
        connection = await connect(ConnectOptions(host="127.0.0.1", port=broker.port), line)
        connection.publish(Message("a", b"x" * 3000, 1), "token")
        async with asyncio.timeout(10):
            assert "Packet too large" in str(await line.lost)


async def test_the_will_is_published_when_the_client_vanishes(mosquitto: Mosquitto) -> None:
    """A connection that breaks leaves the message that CONNECT left with the broker."""
    async with FaultProxy(mosquitto.port) as proxy, observed(mosquitto.port) as witness:
        await witness.session.subscribe([Subscription("session/will", qos=1)])
        will = Will(Message("session/will", b"gone", 1))
        async with observed(proxy.port, will=will) as one:
            await one.session.connected(5)
            await proxy.set(Fault.RESET)
            await witness.until(lambda: bool(witness.messages))
            assert witness.messages[0].payload == b"gone"
