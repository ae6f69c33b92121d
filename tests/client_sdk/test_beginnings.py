"""What a program publishes after it decorated a handler reaches the handler.

Most tests begin again and again, with handlers whose connection is not made yet: it is there that a
PUBLISH could come before the SUBSCRIBE.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.packets import PacketType
from tests.support.strict_broker import StrictBroker
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    Publisher,
    QueueFullError,
    beginnings,
    configure,
    publish,
    subscribe,
)
from tidegate.beginnings import Beginning
from tidegate.connection import ConnectOptions
from tidegate.decorators import disconnect_all
from tidegate.memory import MemoryBroker
from tidegate.transports.bridge import BridgeTransport
from tidegate.transports.direct import DirectTransport

ROUNDS = range(10)
SECONDS = 20.0
FOREVER = 1000.0


@publish("begun/{number}")
def send(number: int) -> int:
    """Publish a number."""
    return number


@publish("begun/{number}", qos=0)
async def send_awaited(number: int) -> int:
    """Publish a number from a coroutine, unacknowledged."""
    return number


def listen(got: asyncio.Queue[Any]) -> None:
    """Decorate a coroutine function that keeps what comes."""

    @subscribe("begun/#")
    async def handle(payload: Any) -> None:
        await got.put(payload)


def test_what_is_published_after_decorating_arrives(told_url: str) -> None:
    """The first message too, also where no connection has been made yet."""

    def begin_and_send(number: int) -> None:
        got: list[Any] = []
        subscribe("begun/#")(got.append)
        send(number)
        send(-number)
        wait_until(lambda: len(got) == 2)
        assert got == [number, -number]
        disconnect_all()

    for number in ROUNDS:
        begin_and_send(number)


async def test_it_is_so_in_coroutines(told_url: str) -> None:
    """The handler and the publishing function are coroutine functions, and QoS is 0."""
    for number in ROUNDS:
        got: asyncio.Queue[Any] = asyncio.Queue()
        listen(got)
        await send_awaited(number)
        assert await asyncio.wait_for(got.get(), SECONDS) == number
        await asyncio.to_thread(disconnect_all)


def test_a_publisher_with_a_connection_of_its_own_waits_too(told_url: str) -> None:
    """It has been connected for long, and the handler has not."""

    def begin_and_publish(number: int) -> None:
        got: list[Any] = []
        subscribe("begun/#")(got.append)
        publisher.publish("begun/class", number)
        wait_until(lambda: bool(got))
        assert got == [number]
        disconnect_all()

    with Publisher(told_url) as publisher:
        for number in ROUNDS:
            begin_and_publish(number)


async def test_a_publisher_on_another_loop_waits_too(told_url: str) -> None:
    """The handler begins on the SDK's loop, and the publisher is on the caller's."""
    async with AsyncPublisher(told_url) as publisher:
        for number in ROUNDS:
            got: asyncio.Queue[Any] = asyncio.Queue()
            listen(got)
            await publisher.publish("begun/class", number)
            assert await asyncio.wait_for(got.get(), SECONDS) == number
            await asyncio.to_thread(disconnect_all)


def test_a_handler_that_was_just_decorated_gets_a_request(told_url: str) -> None:
    """There is no reply to a request that nobody heard."""
    with Publisher(told_url) as publisher, Publisher(told_url) as asking:
        for number in ROUNDS:

            @subscribe("begun/requests")
            def answer(request: Message) -> None:
                publisher.reply(request, request.json())

            assert asking.request("begun/requests", number, timeout=SECONDS).json() == number
            disconnect_all()


def test_what_waits_keeps_its_order(told_url: str) -> None:
    """Of messages that were handed over before the connection was there, and of those after."""
    got: list[Any] = []
    with Publisher(told_url) as publisher:
        subscribe("begun/#")(got.append)
        publisher.publish_many(("begun/order", number) for number in range(200))
        publisher.publish("begun/order", 200)
        wait_until(lambda: len(got) == 201)
    assert got == list(range(201))


def test_a_broker_that_comes_late_is_subscribed_at_first(fresh_mosquitto: Mosquitto) -> None:
    """A message that waited for the broker does not overtake the handler that did."""
    configure(fresh_mosquitto.url)

    def begin_and_start(number: int) -> None:
        got: list[Any] = []
        fresh_mosquitto.stop()
        subscribe("begun/#")(got.append)
        sending = threading.Thread(target=send, args=(number,))
        sending.start()
        fresh_mosquitto.start()
        sending.join()
        wait_until(lambda: bool(got))
        assert got == [number]
        disconnect_all()

    for number in range(3):
        begin_and_start(number)


@pytest.mark.parametrize("is_bridge", [False, True])
def test_a_refused_subscription_holds_nothing_back(monkeypatch: pytest.MonkeyPatch, is_bridge: bool) -> None:
    """A refusal is an answer: nothing waits for what is not granted."""
    monkeypatch.setattr(beginnings, "WAIT_SECONDS", FOREVER)
    with Mosquitto(denied="denied/#") as broker, running_bridge(broker.url) as bridge:
        configure(bridge.url if is_bridge else broker.url)
        got: list[Any] = []
        subscribe("denied/#")(print)
        subscribe("begun/#")(got.append)
        send(1)
        wait_until(lambda: got == [1])
        disconnect_all()


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_subscription_without_an_answer_holds_back_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, qos: int
) -> None:
    """Then publishes go on, with a word in the log, and later ones do not wait for it again."""
    monkeypatch.setattr(beginnings, "WAIT_SECONDS", 0.1)
    async with StrictBroker() as broker:
        broker.unanswered = {PacketType.SUBSCRIBE}
        configure(f"mqtt://127.0.0.1:{broker.port}")

        @publish("begun/a", qos=qos)
        async def send_one() -> int:
            return 1

        subscribe("begun/#")(print)
        await send_one()
        assert not beginnings.pending
        await send_one()
        await asyncio.to_thread(wait_until, lambda: len(broker.published) == 2)
        assert "publishes no longer wait for 1 handlers" in caplog.text
        await asyncio.to_thread(disconnect_all)


async def test_the_time_of_a_publish_counts_while_it_waits() -> None:
    """It fails in its own time, and nothing is sent; what follows is sent when the handler listens."""
    broker = MemoryBroker()
    transport = DirectTransport(ConnectOptions(), connect=broker.connect)
    await transport.connect()
    beginning = Beginning(transport.broker)
    with pytest.raises(QueueFullError, match="nothing was sent"):
        await transport.publish(Message("a", b"1", 1), timeout_seconds=0.01)
    sent = transport.submit(Message("a", b"2", 1))
    beginning.end()
    beginning.end()
    assert await sent < 0x80
    assert [each.payload for each in broker.published] == [b"2"]
    await transport.close()


async def test_a_request_under_way_takes_nothing_that_waits(fresh_mosquitto: Mosquitto) -> None:
    """Through a bridge, what waits for a handler does not leave behind what was on its way already."""
    got: list[str] = []
    async with AsyncSubscriber(fresh_mosquitto.url) as witness, AsyncPublisher(fresh_mosquitto.url) as device:
        await witness.subscribe("begun/#", lambda topic, _: got.append(topic), qos=2)
        with running_bridge(fresh_mosquitto.url) as bridge:
            transport = BridgeTransport(bridge.url)
            first = asyncio.ensure_future(transport.publish(Message("begun/first", b"1", 1)))
            await asyncio.sleep(0)
            beginning = Beginning(transport.broker)
            second = asyncio.ensure_future(transport.publish(Message("begun/second", b"2", 1)))
            await first
            for _ in range(20):
                await transport.connect()
            await device.publish("begun/between", 3)
            beginning.end()
            await second
            await asyncio.to_thread(wait_until, lambda: len(got) == 3)
            await transport.close()
    assert got == ["begun/first", "begun/between", "begun/second"]


async def test_a_handler_elsewhere_is_not_waited_for() -> None:
    """One that begins at another broker has nothing to do with it."""
    broker, other = MemoryBroker(), MemoryBroker()
    beginning = Beginning((other.connect,))
    transport = DirectTransport(ConnectOptions(), connect=broker.connect)
    try:
        assert await transport.publish(Message("a", b"1", 1), timeout_seconds=5) < 0x80
    finally:
        beginning.end()
        await transport.close()


def test_nothing_is_left_when_handlers_end(fresh_mosquitto: Mosquitto) -> None:
    """Neither one that is granted, nor one whose broker never came."""
    subscribe("begun/#", url=fresh_mosquitto.url)(print)
    wait_until(lambda: not beginnings.pending)
    fresh_mosquitto.stop()
    subscribe("begun/#", url=f"{fresh_mosquitto.url}?client_id=late")(print)
    assert beginnings.pending
    disconnect_all()
    wait_until(lambda: not beginnings.pending)
