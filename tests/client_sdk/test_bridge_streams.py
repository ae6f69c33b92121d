"""Following topics through a bridge over cut connections and a bridge that is restarted."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

import pytest

from tests.support.bridge import running_bridge
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import AsyncPublisher, AsyncSubscriber, Message

SECONDS = 20.0


class Kept:
    """What subscriptions got, each under its name."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[int]] = defaultdict(list)
        self._change = asyncio.Event()

    def handler(self, name: str) -> Callable[[Message], None]:
        """A handler for one subscription."""

        def keep(message: Message) -> None:
            self.of[name].append(message.json())
            self._change.set()

        return keep

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, asked after each message."""
        async with asyncio.timeout(SECONDS):
            while not holds():
                self._change.clear()
                await self._change.wait()


async def test_cut_streams_lose_nothing_and_repeat_nothing(mosquitto: Mosquitto) -> None:
    """What is published meanwhile comes from the bridge's journal, to each subscription."""
    kept = Kept()
    names = ("one", "two", "three")
    with running_bridge(mosquitto.url) as bridge:
        async with (
            FaultProxy(bridge.port) as proxy,
            AsyncSubscriber(f"http://{proxy.host}:{proxy.port}") as subscriber,
            AsyncPublisher(mosquitto.url) as publisher,
        ):
            for name in names:
                await subscriber.subscribe([f"streams/{name}", "streams/all"], kept.handler(name))
            for fault in (Fault.PASS, Fault.REFUSE, Fault.RESET, Fault.PASS):
                await proxy.set(fault)
                for number in range(10):
                    for topic in (*names, "all"):
                        await publisher.publish(f"streams/{topic}", number)
                if fault is Fault.PASS:
                    proxy.reset_connections()
            await publisher.publish("streams/all", 99)
            await kept.until(lambda: all(99 in kept.of[name] for name in names))
    for name in names:
        assert kept.of[name] == [number for _ in range(4) for number in range(10) for _ in range(2)] + [99]


async def test_a_restarted_bridge_is_followed_again_and_the_gap_is_logged(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """Its journal is gone with it: nothing comes twice, and what may be missing is said."""
    kept = Kept()
    with ReservedPort() as port:
        async with AsyncPublisher(mosquitto.url) as publisher:
            subscriber = AsyncSubscriber(f"http://127.0.0.1:{port.number}")
            with running_bridge(mosquitto.url, port=port.number):
                await subscriber.subscribe("streams/restart", kept.handler("a"))
                await publisher.publish("streams/restart", 1)
                await kept.until(lambda: kept.of["a"] == [1])
            await publisher.publish("streams/restart", 2)
            with running_bridge(mosquitto.url, port=port.number):
                async with asyncio.timeout(SECONDS):
                    while "messages may have been missed" not in caplog.text:
                        await asyncio.sleep(0.01)
                await publisher.publish("streams/restart", 3)
                await kept.until(lambda: 3 in kept.of["a"])
                await subscriber.disconnect()
    assert kept.of["a"] == [1, 3]
