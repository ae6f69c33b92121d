from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import (
    AsyncPublisher,
    Message,
    NotConnectedError,
    Publisher,
    Subscriber,
    UnsupportedError,
    publish,
)
from tidegate.background import engine
from tidegate.connection import BrokerLimits
from tidegate.lane import MAX_UNSENT, Lane
from tidegate.memory import MemoryBroker

SECONDS = 20.0


def test_many_threads_publish_at_once(way: Way) -> None:
    """Nothing is lost, and the order of each thread is kept, whatever the QoS."""
    got: list[tuple[int, int]] = []
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe("lane/threads", lambda _, payload: got.append(tuple(payload)), qos=2)

        def send(thread: int) -> None:
            for number in range(30):
                publisher.publish("lane/threads", [thread, number], qos=1)

        threads = [threading.Thread(target=send, args=(each,)) for each in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        wait_until(lambda: len(got) == 240)
    for thread in range(8):
        assert [number for each, number in got if each == thread] == list(range(30))


@pytest.mark.parametrize("through", ["mosquitto", "memory"])
def test_unwaited_messages_keep_their_place(through: str, mosquitto: Mosquitto) -> None:
    """QoS 0 does not wait for the socket, and still arrives before the QoS 1 that came after it."""
    options: dict[str, Any] = (
        {"url": mosquitto.url} if through == "mosquitto" else {"connect": MemoryBroker().connect}
    )
    got: list[int] = []
    with Subscriber(**options) as subscriber, Publisher(**options) as publisher:
        subscriber.subscribe("lane/order", lambda _, number: got.append(number), qos=0)
        for number in range(500):
            publisher.publish("lane/order", number, qos=0 if number % 10 else 1)
        wait_until(lambda: len(got) == 500)
    assert got == list(range(500))


def test_an_unwaited_message_is_sent_before_the_client_disconnects(mosquitto: Mosquitto) -> None:
    """Leaving the with-block flushes."""
    got: list[int] = []
    with Subscriber(mosquitto.url) as subscriber:
        subscriber.subscribe("lane/flush", lambda _, number: got.append(number))
        with Publisher(mosquitto.url) as publisher:
            for number in range(300):
                publisher.publish("lane/flush", number, qos=0)
        wait_until(lambda: len(got) == 300)


def test_only_what_surely_goes_is_not_waited_for() -> None:
    """Without a connection, or beyond the broker's limits, a QoS 0 call waits and raises what went wrong."""
    with ReservedPort() as reserved:
        publisher = Publisher(host="127.0.0.1", port=reserved.number)
        with pytest.raises(NotConnectedError):
            asyncio.run(_briefly(publisher))
    broker = MemoryBroker(limits=BrokerLimits(maximum_packet_size=200, retain_available=False))
    with Publisher(connect=broker.connect) as publisher:
        publisher.publish("a", b"x" * 10, qos=0)
        with pytest.raises(UnsupportedError, match="at most 200"):
            publisher.publish("a", b"x" * 300, qos=0)
        with pytest.raises(UnsupportedError, match="retained"):
            publisher.publish("a", b"x", qos=0, retain=True)


async def _briefly(publisher: Publisher) -> None:
    """A call that would wait for a connection, on a client that is then disconnected."""
    call = asyncio.to_thread(publisher.publish, "a", 1, qos=0)
    waiting = asyncio.create_task(call)
    await asyncio.sleep(0)
    transport: Any = publisher._asynchronous._transport
    while not transport._session.waiting:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(publisher.disconnect)
    await waiting


def test_what_is_unwaited_is_bounded() -> None:
    """When the engine is busy, a thread runs ahead of it by so many messages and then waits."""
    broker = MemoryBroker()
    with Publisher(connect=broker.connect) as publisher:
        release = threading.Event()
        sent = 0

        async def hold_up() -> None:
            release.wait(SECONDS)

        def send() -> None:
            nonlocal sent
            for _ in range(MAX_UNSENT + 10):
                publisher.publish("lane/bound", 1, qos=0)
                sent += 1

        held = engine.submit(hold_up())
        thread = threading.Thread(target=send)
        thread.start()
        wait_until(lambda: sent == MAX_UNSENT)
        assert thread.is_alive()
        release.set()
        held.result(SECONDS)
        thread.join(SECONDS)
        assert sent == MAX_UNSENT + 10


def test_an_unwaited_message_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for its error, so the log has it."""
    broker = MemoryBroker()
    publisher = Publisher(connect=broker.connect)
    publisher.connect()
    hand = publisher._lane._hand
    publisher.disconnect()
    hand(Message("lane/late", b"1"), None)
    wait_until(lambda: "'lane/late' was not sent" in caplog.text)


def test_an_interrupted_call_leaves_the_lane_usable() -> None:
    """Ctrl-C in a waiting call is the caller's; the next call works."""
    broker = MemoryBroker()
    with Publisher(connect=broker.connect) as publisher:
        publisher.publish("a", 0)
        broker.freeze()
        transport: Any = publisher._asynchronous._transport
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            wait_until(lambda: transport._session.in_flight == 1)
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                publisher.publish("a", 1)
        finally:
            thread.join()
            signal.signal(signal.SIGINT, old)
        broker.thaw()
        assert publisher.publish("a", 2).qos == 1


async def test_a_cancelled_coroutine_gives_up_its_place() -> None:
    """A decorated coroutine function that is cancelled leaves nothing behind, and the next call works."""
    broker = MemoryBroker()

    @publish("a", connect=broker.connect)
    async def read(value: int) -> int:
        return value

    await read(0)
    broker.freeze()
    task = asyncio.create_task(read(1))
    await asyncio.sleep(0)
    engine.run(asyncio.sleep(0))  # the message is on its way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    broker.thaw()
    assert await read(2) == 2


def test_the_engines_own_thread_is_refused() -> None:
    """A blocking publish on the engine would wait for itself; it is an error with words."""
    lane = Lane(AsyncPublisher(connect=MemoryBroker().connect))

    async def blocking() -> None:
        lane.publish(Message("a", b"1", 1))

    with pytest.raises(RuntimeError, match="await the asynchronous call"):
        engine.run(blocking())
