from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    NotAuthorizedError,
    NotConnectedError,
    Publisher,
    Subscriber,
)
from tidegate.memory import MemoryBroker

SECONDS = 20.0


class _Recorded:
    """What the hooks were told: name, arguments after the client, thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def on_connect(self, client: Any, userdata: Any, flags: dict[str, int], rc: int) -> None:
        assert client is self
        assert userdata is None
        self.threads.add(threading.current_thread().name)
        self.told.append(("connect", flags, rc))

    def on_disconnect(self, client: Any, userdata: Any, rc: int) -> None:
        assert client is self
        self.told.append(("disconnect", rc))

    def on_publish(self, client: Any, userdata: Any, mid: int) -> None:
        assert client is self
        self.told.append(("publish", mid))


class _Publisher(_Recorded, Publisher):
    pass


class _Subscriber(_Recorded, Subscriber):
    pass


class _AsyncPublisher(_Recorded, AsyncPublisher):
    pass


class _AsyncSubscriber(_Recorded, AsyncSubscriber):
    pass


CONNECTED = ("connect", {"session present": 0}, 0)


def test_a_blocking_publishers_hooks_are_called(way: Way) -> None:
    """Connected, each message, disconnected: in this order, in a thread that is not the caller's."""
    publisher = _Publisher(**way.options)
    for qos in (0, 1, 2):
        publisher.publish("hooks/blocking", 1, qos=qos)
    publisher.disconnect()
    wait_until(lambda: ("disconnect", 0) in publisher.told)
    assert publisher.told == [CONNECTED, ("publish", 1), ("publish", 2), ("publish", 3), ("disconnect", 0)]
    assert publisher.threads == {"tidegate hooks"}


async def test_asynchronous_hooks_are_called_on_the_callers_loop(way: Way) -> None:
    """The same events, in the thread that awaits."""
    async with _AsyncPublisher(**way.options) as publisher, _AsyncSubscriber(**way.options) as subscriber:
        await publisher.publish("hooks/async", 1)
        await subscriber.subscribe("hooks/async", print)
    await asyncio.sleep(0)
    assert publisher.told == [CONNECTED, ("publish", 1), ("disconnect", 0)]
    assert subscriber.told == [CONNECTED, ("disconnect", 0)]
    assert publisher.threads == {threading.current_thread().name}


def test_a_subscribers_hooks_are_called(way: Way) -> None:
    """The first subscription connects."""
    subscriber = _Subscriber(**way.options)
    assert subscriber.told == []
    subscriber.subscribe("hooks/subscriber", print)
    wait_until(lambda: subscriber.told == [CONNECTED])
    subscriber.disconnect()
    wait_until(lambda: subscriber.told == [CONNECTED, ("disconnect", 0)])


def test_a_lost_connection_is_told_and_so_is_the_next(fresh_mosquitto: Mosquitto) -> None:
    """A broker that restarts is one disconnect, with a reason that is no success, and one more connect."""
    with _Publisher(fresh_mosquitto.url) as publisher:
        wait_until(lambda: publisher.told == [CONNECTED])
        fresh_mosquitto.restart()
        wait_until(lambda: len(publisher.told) == 3)
        assert publisher.told[1][0] == "disconnect"
        assert publisher.told[1][1] >= 0x80
        assert publisher.told[2] == CONNECTED


def test_a_hook_may_be_an_attribute_and_may_raise_and_block(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """As with paho a plain function can be assigned; what it raises is logged, and it may use its client."""
    publisher = Publisher(**way.options)
    told: list[int] = []

    def on_connect(client: Publisher, userdata: Any, flags: dict[str, int], rc: int) -> None:
        client.publish("hooks/online", "yes")
        raise LookupError("boom")

    def on_publish(client: Any, userdata: Any, mid: int) -> None:
        told.append(mid)

    publisher.on_connect = on_connect  # type: ignore[method-assign]
    publisher.on_publish = on_publish  # type: ignore[method-assign]
    publisher.connect()
    wait_until(lambda: told == [1] and "boom" in caplog.text)
    assert "on_connect failed" in caplog.text
    publisher.disconnect()


async def test_a_coroutine_function_may_be_a_hook(caplog: pytest.LogCaptureFixture) -> None:
    """It is awaited; what it raises is logged."""
    told = asyncio.Event()

    class Greeting(AsyncPublisher):
        async def on_connect(self, client: Any, userdata: Any, flags: dict[str, int], rc: int) -> None:
            await self.publish("hooks/online", "yes")
            told.set()
            raise LookupError("boom")

    broker = MemoryBroker()
    async with Greeting(connect=broker.connect), asyncio.timeout(SECONDS):
        await told.wait()
        await asyncio.sleep(0)
    assert [each.topic for each in broker.published] == ["hooks/online"]
    assert "boom" in caplog.text


def test_what_was_refused_was_not_published() -> None:
    """``on_publish`` counts what the broker took."""
    broker = MemoryBroker(authorize=lambda action, topic, options: 0x87 if topic == "denied" else 0)
    with _Publisher(connect=broker.connect) as publisher:
        with pytest.raises(NotAuthorizedError):
            publisher.publish("denied", 1)
        publisher.publish("allowed", 1)
        wait_until(lambda: ("publish", 1) in publisher.told)
    assert [each for each in publisher.told if each[0] == "publish"] == [("publish", 1)]


def test_a_bridge_that_is_gone_is_told(mosquitto: Mosquitto) -> None:
    """Through a bridge, the call that does not reach it is the disconnect."""
    with running_bridge(mosquitto.url) as bridge:
        publisher = _Publisher(bridge.url)
        publisher.publish("hooks/bridge", 1)
    with pytest.raises(NotConnectedError):
        publisher.publish("hooks/bridge", 2)
    wait_until(lambda: publisher.told == [CONNECTED, ("publish", 1), ("disconnect", 0x80)])
    publisher.disconnect()


def test_hooks_keep_no_client_alive() -> None:
    """A publisher that nobody holds any more goes, hooks or not."""
    publisher = _Publisher(connect=MemoryBroker().connect)
    publisher.publish("hooks/dropped", 1)
    told = publisher.told
    wait_until(lambda: len(told) == 2)
    gone = weakref.ref(publisher)
    del publisher
    gc.collect()
    assert gone() is None
