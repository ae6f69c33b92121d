"""A session goes from one connection to another, under traffic: each message comes once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tidegate.connection import (
    Connect,
    Connection,
    ConnectionEvents,
    ConnectOptions,
    ProtocolVersion,
    Subscription,
)
from tidegate.connections import aiomqtt_connection
from tidegate.errors import MQTTConnectionError, OutcomeUnknownError, RefusedError
from tidegate.handover import MARKER_PREFIX
from tidegate.message import Message
from tidegate.overlap import Overlap
from tidegate.session import SessionState
from tidegate.swapping_session import SwappingSession

SECONDS = 20.0
PLACES = (f"handover-{number}" for number in itertools.count())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


class Client:
    """A session and all that it received and went through."""

    def __init__(self, port: int, *, connect: Connect | None = None, **options: Any) -> None:
        self.options = ConnectOptions("127.0.0.1", port, **options)
        self.messages: list[Message] = []
        self.states: list[SessionState] = []
        self.session = SwappingSession(
            self.options,
            on_message=self.messages.append,
            on_state=lambda change: self.states.append(change.state),
            connect=connect,
        )

    @property
    def receiver(self) -> object:
        """What takes the messages of the connection in use."""
        line = self.session._line
        return None if line is None else getattr(line.on_message, "__self__", None)

    @property
    def payloads(self) -> list[bytes]:
        """Of all messages, in order."""
        return [each.payload for each in self.messages]


@asynccontextmanager
async def client(port: int, *subscriptions: Subscription, **options: Any) -> AsyncIterator[Client]:
    """A connected client that is subscribed."""
    made = Client(port, **options)
    await made.session.start()
    try:
        await made.session.connected(SECONDS)
        if subscriptions:
            codes = await made.session.subscribe(subscriptions)
            assert max(codes) < 0x80
        yield made
    finally:
        await made.session.close()


@asynccontextmanager
async def traffic(port: int, topics: Sequence[str], qos: Sequence[int]) -> AsyncIterator[list[bytes]]:
    """Numbered messages from three publishers at once, as fast as they are acknowledged."""
    sent: list[bytes] = []
    numbers = itertools.count()
    stops = asyncio.Event()

    async def publish(session: SwappingSession) -> None:
        while not stops.is_set():
            number = next(numbers)
            payload = b"%d" % number
            sent.append(payload)
            await session.publish(Message(topics[number % len(topics)], payload, qos[number % len(qos)]))
            await asyncio.sleep(0.001)

    async with (
        client(port) as one,
        client(port) as two,
        client(port) as three,
        asyncio.TaskGroup() as group,
    ):
        for each in (one, two, three):
            group.create_task(publish(each.session))
        try:
            yield sent
        finally:
            stops.set()


@pytest.mark.parametrize("version", [5, 4])
async def test_nothing_is_missed_or_doubled(mosquitto: Mosquitto, version: ProtocolVersion) -> None:
    """Under traffic of all three levels of quality, over several exchanges, each message comes once."""
    place = next(PLACES)
    topics = [f"{place}/a", f"{place}/b/c", f"{place}/d"]
    wanted = [Subscription(f"{place}/#", qos=2, identifier=7 if version == 5 else None)]
    async with client(mosquitto.port, *wanted, protocol_version=version) as one:
        async with traffic(mosquitto.port, topics, (0, 1, 2)) as sent:
            for count in range(1, 6):
                await until(lambda count=count: len(one.messages) > 50 * count)  # type: ignore[misc]
                await one.session.hand_over(one.options)
        await until(lambda: set(sent) <= set(one.payloads))
        assert len(sent) == len(one.payloads)
        assert [SessionState.CONNECTING, SessionState.CONNECTED] == one.states


async def test_messages_that_are_alike_keep_their_number(mosquitto: Mosquitto) -> None:
    """A thousand times the same message: as many come, though the copies cannot be told apart."""
    topic = next(PLACES)
    async with client(mosquitto.port, Subscription(topic, qos=1)) as one, client(mosquitto.port) as other:
        publishes = asyncio.gather(*(other.session.publish(Message(topic, b"on", 1)) for _ in range(1000)))
        await until(lambda: len(one.messages) > 10)
        await one.session.hand_over(one.options)
        await publishes
        await other.session.publish(Message(topic, b"end", 1))
        await until(lambda: one.payloads[-1] == b"end")
        assert [b"on"] * 1000 + [b"end"] == one.payloads


async def test_who_follows_everything_sees_no_marker(fresh_mosquitto: Mosquitto) -> None:
    """The session itself is not shown what finds out where one connection ends and the other begins."""
    port = fresh_mosquitto.port
    async with (
        client(port, Subscription("#", qos=1, identifier=1)) as one,
        client(port, Subscription(f"{MARKER_PREFIX}#", qos=1)) as witness,
    ):
        await one.session.hand_over(one.options)
        await until(lambda: len(witness.messages) == 2)  # one for each QoS that is subscribed to
        await one.session.publish(Message("a", b"", 1))
        await until(lambda: bool(one.messages))
        assert ["a"] == [each.topic for each in one.messages]


async def test_retained_messages_do_not_come_again(mosquitto: Mosquitto) -> None:
    """The new connection subscribes, and is sent nothing that is retained, on 3.1.1 neither."""
    topic = next(PLACES)
    async with client(mosquitto.port) as other:
        await other.session.publish(Message(topic, b"kept", 1, retain=True))
        for version in (4, 5):
            async with client(mosquitto.port, Subscription(topic), protocol_version=version) as one:
                await until(lambda one=one: bool(one.messages))  # type: ignore[misc]
                await one.session.hand_over(one.options)
                await other.session.publish(Message(topic, b"live", 1))
                await until(lambda one=one: len(one.messages) > 1)  # type: ignore[misc]
                assert [b"kept", b"live"] == one.payloads


@pytest.mark.parametrize(("version", "identifier"), [(5, 3), (5, None), (4, None)])
async def test_shared_subscriptions_lose_nothing(
    mosquitto: Mosquitto, version: ProtocolVersion, identifier: int | None
) -> None:
    """Of a shared subscription's messages each goes to one of the two connections, and none is dropped."""
    place = next(PLACES)
    wanted = Subscription(f"$share/group/{place}/#", qos=2, identifier=identifier)
    plain = Subscription(f"{place}-plain", qos=1, identifier=None if identifier is None else 4)
    async with client(mosquitto.port, wanted, plain, protocol_version=version) as one:
        async with traffic(mosquitto.port, [f"{place}/a", f"{place}/b"], (1, 2, 1)) as sent:
            for count in range(1, 4):
                await until(lambda count=count: len(one.messages) > 50 * count)  # type: ignore[misc]
                await one.session.hand_over(one.options)
        await until(lambda: set(sent) <= set(one.payloads))
        assert len(sent) == len(one.payloads)


async def test_what_waits_for_the_old_connection_is_taken_along(mosquitto: Mosquitto) -> None:
    """Messages of a shared subscription that the broker queues behind twenty in flight are not lost."""
    place = next(PLACES)
    wanted = Subscription(f"$share/group/{place}", qos=2)
    async with (
        FaultProxy(mosquitto.port, delay_seconds=0.05) as proxy,
        client(proxy.port, wanted) as one,
        client(mosquitto.port) as other,
    ):
        await proxy.set(Fault.DELAY)
        swap = asyncio.create_task(one.session.hand_over(ConnectOptions("127.0.0.1", mosquitto.port)))
        await until(lambda: one.session.address == f"127.0.0.1:{mosquitto.port}")
        numbers = [b"%d" % number for number in range(300)]  # half of them for the connection that is left
        publishes = [
            other.session.submit(Message(place, each, 1 + index % 2)) for index, each in enumerate(numbers)
        ]
        await asyncio.gather(*publishes)
        await swap
        await until(lambda: len(one.payloads) >= 300)
        assert sorted(numbers) == sorted(one.payloads)


async def test_an_exchange_that_fails_after_the_old_connection_unsubscribed() -> None:
    """Where markers are forbidden that can be: the session connects again, and follows what it followed."""

    async def connect(options: ConnectOptions, events: ConnectionEvents) -> Connection:
        connection = await aiomqtt_connection.connect(options, events)
        if options.client_id == "fails":
            connection.ping = fail  # type: ignore[method-assign]
        return connection

    async def fail() -> None:
        raise MQTTConnectionError("no answer")

    with Mosquitto(denied=f"{MARKER_PREFIX}#") as broker:
        async with client(broker.port, Subscription("a", qos=1), connect=connect) as one:
            with pytest.raises(MQTTConnectionError, match="no answer"):
                await one.session.hand_over(replace(one.options, client_id="fails"))
            await until(lambda: SessionState.DISCONNECTED in one.states)
            await until(lambda: one.session.state is SessionState.CONNECTED)
            await one.session.publish(Message("a", b"still followed", 1))
            await until(lambda: [b"still followed"] == one.payloads)


async def test_a_broker_that_forbids_markers() -> None:
    """Where the topic of markers is forbidden, copies are compared: still nothing is missed or doubled."""
    with Mosquitto(denied=f"{MARKER_PREFIX}#") as broker:
        async with client(broker.port, Subscription("plant/#", qos=2)) as one:
            async with traffic(broker.port, ["plant/a", "plant/b"], (0, 1, 2)) as sent:
                for count in range(1, 4):
                    await until(lambda count=count: len(one.messages) > 50 * count)  # type: ignore[misc]
                    await one.session.hand_over(one.options)
            await until(lambda: set(sent) <= set(one.payloads))
            assert len(sent) == len(one.payloads)


async def test_a_broker_that_drops_markers_without_a_word() -> None:
    """Rules that grant the subscription and deliver nothing cost two seconds, and no message."""
    with Mosquitto(acl="topic readwrite plant/#\n") as broker:
        async with client(broker.port, Subscription("plant/#", qos=1), protocol_version=4) as one:
            async with traffic(broker.port, ["plant/a"], (1,)) as sent:
                await until(lambda: len(one.messages) > 50)
                await one.session.hand_over(one.options)
            await until(lambda: set(sent) <= set(one.payloads))
            assert len(sent) == len(one.payloads)


async def test_a_broker_that_hangs_up_on_markers(mosquitto: Mosquitto) -> None:
    """It is tried once more without, and works."""
    topic = next(PLACES)
    refused: list[str] = []

    async def connect(options: ConnectOptions, events: ConnectionEvents) -> Connection:
        connection = await aiomqtt_connection.connect(options, events)
        publish = connection.publish

        def hang_up(message: Message, token: Any) -> None:
            if message.topic.startswith(MARKER_PREFIX):
                refused.append(message.topic)
                connection.abandon()
                events.on_lost(MQTTConnectionError("the broker hung up"))
            else:
                publish(message, token)

        connection.publish = hang_up  # type: ignore[method-assign]
        return connection

    async with client(mosquitto.port, Subscription(topic, qos=1), connect=connect) as one:
        async with traffic(mosquitto.port, [topic], (1,)) as sent:
            await until(lambda: len(one.messages) > 50)
            before = one.session.limits
            await one.session.hand_over(one.options)
        await until(lambda: set(sent) <= set(one.payloads))
        assert len(sent) == len(one.payloads)
        assert 1 == len(set(refused))
        assert one.session.limits != before
        assert [SessionState.CONNECTING, SessionState.CONNECTED] == one.states


async def test_an_old_connection_that_is_lost_meanwhile(mosquitto: Mosquitto) -> None:
    """The session reconnects as it would have, and whoever asked for the exchange is told."""
    topic = next(PLACES)
    async with FaultProxy(mosquitto.port) as proxy, client(proxy.port, Subscription(topic)) as one:
        await proxy.set(Fault.BLACK_HOLE)
        swap = asyncio.create_task(
            one.session.hand_over(ConnectOptions("127.0.0.1", mosquitto.port, client_id=topic))
        )
        await until(lambda: isinstance(one.receiver, Overlap))
        await proxy.set(Fault.PASS)
        proxy.reset_connections()
        with pytest.raises(MQTTConnectionError):
            await swap
        await until(lambda: one.session.state is SessionState.CONNECTED)
        await one.session.publish(Message(topic, b"again"))
        await until(lambda: [b"again"] == one.payloads)


async def test_a_failure_leaves_the_session_as_it_was(mosquitto: Mosquitto) -> None:
    """Whatever keeps the new connection from being made is raised; the old one goes on without a gap."""
    topic = next(PLACES)
    async with client(mosquitto.port, Subscription(topic, qos=1)) as one:
        async with traffic(mosquitto.port, [topic], (1,)) as sent:
            for options in (ConnectOptions("127.0.0.1", 1), ConnectOptions("no.such.host.invalid")):
                with pytest.raises(MQTTConnectionError):
                    await one.session.hand_over(options)
        await until(lambda: len(sent) == len(one.payloads))
        assert [SessionState.CONNECTING, SessionState.CONNECTED] == one.states
        assert 0 == await one.session.publish(Message(topic, b"still here", 1))


async def test_a_filter_that_is_refused_is_a_failure() -> None:
    """A new identity that may not follow what is followed does not take over."""
    with Mosquitto(denied="secret/#") as broker, Mosquitto() as lenient:
        async with client(lenient.port, Subscription("secret/#", qos=1)) as one:
            with pytest.raises(RefusedError, match="secret/#"):
                await one.session.hand_over(ConnectOptions("127.0.0.1", broker.port))
            assert 0 == await one.session.publish(Message("secret/a", b"", 1))
            await until(lambda: len(one.messages) == 1)


async def test_publishes_in_flight_are_answered_on_the_old_connection(mosquitto: Mosquitto) -> None:
    """With a slow broker, what was published before the exchange is answered once, and what came after."""
    topic = next(PLACES)
    async with FaultProxy(mosquitto.port, delay_seconds=0.2) as proxy, client(mosquitto.port) as witness:
        await witness.session.subscribe([Subscription(topic, qos=2)])
        async with client(proxy.port) as one:
            await proxy.set(Fault.DELAY)
            first = [one.session.submit(Message(topic, b"%d" % number, number % 3)) for number in range(60)]
            swap = asyncio.create_task(one.session.hand_over(ConnectOptions("127.0.0.1", mosquitto.port)))
            await until(lambda: one.session.address == f"127.0.0.1:{mosquitto.port}")
            rest = [one.session.submit(Message(topic, b"%d" % number, 1)) for number in range(60, 90)]
            assert [0] * 90 == await asyncio.gather(*first, *rest)
            await swap
        await until(lambda: len(witness.messages) >= 90)
        assert {b"%d" % number for number in range(90)} == set(witness.payloads)
        assert 90 == len(witness.payloads)
        ordered = [int(each.payload) for each in witness.messages if each.qos == 1]
        assert sorted(ordered) == ordered


async def test_publishes_that_are_never_answered(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old connection that has gone silent is left: QoS 1 is sent again, QoS 2 is told as unknown."""
    monkeypatch.setattr("tidegate.swapping_session.DRAIN_SECONDS", 0.2)
    topic = next(PLACES)
    async with FaultProxy(mosquitto.port) as proxy, client(proxy.port) as one:
        await proxy.set(Fault.BLACK_HOLE)
        publishes = [one.session.submit(Message(topic, b"", qos)) for qos in (1, 2)]
        await one.session.hand_over(ConnectOptions("127.0.0.1", mosquitto.port))
        assert 0x80 > await publishes[0]
        with pytest.raises(OutcomeUnknownError):
            await publishes[1]


async def test_who_subscribes_meanwhile_is_subscribed_on_the_new_connection(mosquitto: Mosquitto) -> None:
    """Subscribing and unsubscribing go on through an exchange, and hold afterwards."""
    place = next(PLACES)
    async with client(mosquitto.port, Subscription(f"{place}/left")) as one, client(mosquitto.port) as other:
        codes, _, _ = await asyncio.gather(
            one.session.subscribe([Subscription(f"{place}/{number}", qos=1) for number in range(20)]),
            one.session.unsubscribe([f"{place}/left"]),
            one.session.hand_over(one.options),
        )
        assert [1] * 20 == codes
        await one.session.hand_over(one.options)
        for number in range(20):
            await other.session.publish(Message(f"{place}/left", b"", 1))
            await other.session.publish(Message(f"{place}/{number}", b"%d" % number, 1))
        await until(lambda: len(one.messages) == 20)
        assert [b"%d" % number for number in range(20)] == one.payloads


async def test_a_lost_connection_afterwards_is_made_again_in_the_new_way(mosquitto: Mosquitto) -> None:
    """The loss of the new connection is noticed at once, and the next one goes the new way."""
    topic = next(PLACES)
    async with FaultProxy(mosquitto.port) as proxy, client(mosquitto.port, Subscription(topic)) as one:
        await one.session.hand_over(ConnectOptions("127.0.0.1", proxy.port))
        proxy.reset_connections()
        await until(lambda: SessionState.DISCONNECTED in one.states)
        await until(lambda: one.session.state is SessionState.CONNECTED)
        assert 2 == proxy.accepted
        await one.session.publish(Message(topic, b"again"))
        await until(lambda: [b"again"] == one.payloads)


async def test_closing_in_the_midst_of_it(mosquitto: Mosquitto) -> None:
    """A session that is closed while it goes over leaves nothing behind."""
    topic = next(PLACES)
    async with FaultProxy(mosquitto.port, delay_seconds=0.1) as proxy, client(proxy.port) as one:
        await one.session.subscribe([Subscription(topic)])
        await proxy.set(Fault.DELAY)
        swap = asyncio.create_task(one.session.hand_over(one.options))
        await until(lambda: proxy.accepted == 2)
        await one.session.close()
        with pytest.raises((MQTTConnectionError, asyncio.CancelledError)):
            await swap
        assert SessionState.CLOSED is one.session.state


async def test_a_take_over_that_is_given_up(mosquitto: Mosquitto) -> None:
    """Whoever asked for it does not wait for the answers any more: the session goes on as it was."""
    topic = next(PLACES)
    async with FaultProxy(mosquitto.port) as proxy, client(proxy.port, Subscription(topic, qos=1)) as one:
        await proxy.set(Fault.BLACK_HOLE)
        first = one.session.submit(Message(topic, b"1", 1))
        swap = asyncio.create_task(one.session.take_over(one.options))
        await until(lambda: one.session._outbox._connection is None)
        second = one.session.submit(Message(topic, b"2", 1))
        swap.cancel()
        with pytest.raises(asyncio.CancelledError):
            await swap
        await proxy.set(Fault.PASS)
        assert [0, 0] == await asyncio.gather(*[first, second])
        await until(lambda: [b"1", b"2"] == one.payloads)
        assert [SessionState.CONNECTING, SessionState.CONNECTED] == one.states
