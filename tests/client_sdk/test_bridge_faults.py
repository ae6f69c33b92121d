"""What arrives at the broker when something breaks on the way through a bridge: counted at the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.asked import Requests
from tests.support.bridge import running_bridge, wait_until
from tests.support.fault_proxy import Fault
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tests.support.silent_proxy import SilentProxy
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
)
from tidegate.transports.bridge import BridgeTransport
from tidegate.transports.calls import Calls
from tidegate.transports.publications import Publications

SECONDS = 20.0


class Witness:
    """A client of the broker's that counts what arrives."""

    def __init__(self, subscriber: AsyncSubscriber, broker: Mosquitto) -> None:
        self._subscriber = subscriber
        self._broker = broker
        self.got: list[bytes] = []
        self._change = asyncio.Event()

    def keep(self, message: Message) -> None:
        """A message arrived."""
        self.got.append(message.payload)
        self._change.set()

    async def until(self, payload: bytes) -> None:
        """Wait until this has arrived."""
        async with asyncio.timeout(SECONDS):
            while payload not in self.got:
                self._change.clear()
                await self._change.wait()

    async def all(self) -> list[bytes]:
        """Everything that the broker had got before now."""
        async with AsyncPublisher(self._broker.url) as publisher:
            await publisher.publish("faults/end", b"the end")
        await self.until(b"the end")
        return self.got[: self.got.index(b"the end")]


@asynccontextmanager
async def witnessing(broker: Mosquitto) -> AsyncIterator[Witness]:
    """Follow everything under ``faults/``."""
    async with AsyncSubscriber(broker.url) as subscriber:
        witness = Witness(subscriber, broker)
        await subscriber.subscribe("faults/#", witness.keep, qos=2)
        yield witness


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 5], ids=["one", "batch"])
async def test_a_cut_connection_is_repeated_and_nothing_arrives_twice(
    mosquitto: Mosquitto, qos: int, count: int
) -> None:
    """The answer is lost, not the message: the repetition has the same key, and the first one's answer."""
    requests = Requests()
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        async with (
            SilentProxy(bridge.port) as proxy,
            witnessing(mosquitto) as witness,
            AsyncPublisher(proxy.url) as publisher,
        ):
            if qos == 2:
                await publisher.publish("before", 1, qos=2)  # what the keys are kept in is known
            requests.seen.clear()
            proxy.is_silent = True
            publishing = [
                asyncio.ensure_future(publisher.publish(f"faults/{number}", b"%d" % number, qos=qos))
                for number in range(count)
            ]
            await proxy.withheld.wait()
            proxy.is_silent = False
            proxy.reset_connections()
            results = await asyncio.gather(*publishing)
            assert {each.reason_code for each in results} <= {0x00, 0x10}
            assert sorted(await witness.all()) == [b"%d" % number for number in range(count)]
    posts = requests.of("/v1/")
    assert len(posts) == 2
    assert len({each.key for each in posts}) == 1


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_bridge_that_dies_before_it_answers(mosquitto: Mosquitto, qos: int) -> None:
    """Its keys die with it: QoS 1 arrives at least once, and QoS 2 exactly once, with an unknown outcome."""
    with ReservedPort() as port:
        async with SilentProxy(port.number) as proxy, witnessing(mosquitto) as witness:
            publisher = AsyncPublisher(proxy.url)
            with running_bridge(mosquitto.url, port=port.number):
                await publisher.publish("before", 1, qos=qos)
                proxy.is_silent = True
                publishing = asyncio.ensure_future(publisher.publish("faults/a", b"1", qos=qos))
                await witness.until(b"1")
                await proxy.withheld.wait()
            with running_bridge(mosquitto.url, port=port.number):
                proxy.is_silent = False
                proxy.reset_connections()
                if qos == 2:
                    with pytest.raises(OutcomeUnknownError):
                        await publishing
                else:
                    await publishing
                assert await witness.all() == ([b"1"] if qos == 2 else [b"1", b"1"])
                await publisher.publish("faults/a", b"next", qos=qos)
                await publisher.disconnect()


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_bridge_that_comes_back_in_time_is_waited_for(mosquitto: Mosquitto, qos: int) -> None:
    """As a direct connection waits for its broker; several messages keep their order."""
    asked: list[None] = []

    def token() -> str:
        asked.append(None)
        return "token"

    with ReservedPort() as port:
        async with witnessing(mosquitto) as witness:
            publisher = AsyncPublisher(f"http://127.0.0.1:{port.number}", token=token)
            publishing = [
                asyncio.ensure_future(publisher.publish("faults/a", b"%d" % number, qos=qos))
                for number in range(5)
            ]
            async with asyncio.timeout(SECONDS):
                while len(asked) < 2:  # the first attempt failed
                    await asyncio.sleep(0.01)
            with running_bridge(mosquitto.url, port=port.number):
                await asyncio.gather(*publishing)
                assert await witness.all() == [b"%d" % number for number in range(5)]
                await publisher.disconnect()


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_broker_behind_the_bridge_that_comes_back_is_waited_for(qos: int) -> None:
    """503 says that nothing was sent, and when to ask again."""
    requests = Requests()
    with (
        Mosquitto() as broker,
        running_bridge(broker.url, prepare=requests.prepare, publish_timeout_seconds=0.1) as bridge,
    ):
        async with AsyncPublisher(bridge.url) as publisher:
            await publisher.publish("before", 1, qos=qos)
            broker.stop()
            wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
            publishing = asyncio.ensure_future(publisher.publish("kept/faults", b"1", qos, retain=True))
            async with asyncio.timeout(SECONDS):
                while len(requests.of("/v1/topics/kept")) < 1:
                    await asyncio.sleep(0.01)
            broker.start()
            result = await publishing
    assert result.reason_code in (0x00, 0x10)
    assert len({each.key for each in requests.of("/v1/topics/kept")}) == len(requests.of("/v1/topics/kept"))


async def test_a_bridge_that_stays_away_is_told(mosquitto: Mosquitto) -> None:
    """Within the time that a publish may take, for each message: nothing was sent."""
    with ReservedPort() as port:
        transport = BridgeTransport(f"http://127.0.0.1:{port.number}", publish_timeout_seconds=0.3)
        outcomes = await asyncio.gather(
            *(transport.publish(Message("faults/a", b"1", 1)) for _ in range(3)), return_exceptions=True
        )
        assert [type(each) for each in outcomes] == [NotConnectedError] * 3
        await transport.close()


async def test_what_waits_behind_a_silent_bridge_gives_up_in_time(mosquitto: Mosquitto) -> None:
    """A message that could not leave was not sent, though the one before it is still out."""
    with running_bridge(mosquitto.url) as bridge:
        async with SilentProxy(bridge.port) as proxy:
            transport = BridgeTransport(proxy.url, publish_timeout_seconds=0.3)
            proxy.is_silent = True
            first = asyncio.ensure_future(transport.publish(Message("faults/a", b"1", 1)))
            await proxy.withheld.wait()
            with pytest.raises(NotConnectedError, match="nothing was sent"):
                await transport.publish(Message("faults/a", b"2", 1))
            assert not first.done()
            proxy.is_silent = False
            await proxy.set(Fault.REFUSE)
            with pytest.raises(OutcomeUnknownError):
                await first
            await transport.close()


async def test_too_many_waiting_messages_are_refused() -> None:
    """The room is bounded, as it is for a direct connection; a place is free once a message is done."""
    with ReservedPort() as port:
        calls = Calls(f"http://127.0.0.1:{port.number}")
        publications = Publications(calls, publish_timeout_seconds=0.2, max_waiting=2)
        waiting = [publications.submit(Message("a", b"")) for _ in range(2)]
        with pytest.raises(QueueFullError):
            publications.submit(Message("a", b""))
        await asyncio.gather(*waiting, return_exceptions=True)
        publications.submit(Message("a", b"")).cancel()
        await publications.close()
        await calls.close()


async def test_disconnecting_does_not_wait_for_a_bridge_that_is_away() -> None:
    """What cannot be sent any more says so."""
    with ReservedPort() as port:
        transport = BridgeTransport(f"http://127.0.0.1:{port.number}")
        publishing = asyncio.ensure_future(transport.publish(Message("a", b"1", 1)))
        await asyncio.sleep(0)
        await transport.close()
        with pytest.raises(NotConnectedError):
            await publishing


@pytest.mark.parametrize("qos", [1, 2])
async def test_an_outcome_that_comes_late_is_asked_for_again(qos: int) -> None:
    """504 leaves it open: the repetition under the same key gets the broker's answer, and sends nothing."""
    requests = Requests()
    with (
        Mosquitto() as broker,
        running_bridge(broker.url, prepare=requests.prepare, publish_timeout_seconds=0.2) as bridge,
    ):
        async with witnessing(broker) as witness, AsyncPublisher(bridge.url) as publisher:
            await publisher.publish("before", 1, qos=qos)
            broker.pause()
            publishing = asyncio.ensure_future(publisher.publish("faults/a", b"1", qos))
            async with asyncio.timeout(SECONDS):
                while len(requests.of("/v1/topics/faults")) < 2:  # the first was answered with 504
                    await asyncio.sleep(0.01)
            broker.resume()
            assert (await publishing).reason_code == 0
            assert await witness.all() == [b"1"]
    assert len({each.key for each in requests.of("/v1/topics/faults")}) == 1


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_batch_that_its_broker_did_not_take_waits_for_another_turn(qos: int) -> None:
    """Each message that was surely not sent goes out once the broker is back, in the order of its topic."""
    requests = Requests()
    with (
        Mosquitto() as broker,
        running_bridge(broker.url, prepare=requests.prepare, publish_timeout_seconds=0.2) as bridge,
    ):
        async with AsyncPublisher(bridge.url) as publisher:
            await publisher.publish("before", 1, qos=qos)
            broker.stop()
            wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
            publishing = [
                asyncio.ensure_future(publisher.publish("kept/batch", b"%d" % number, qos, retain=True))
                for number in range(4)
            ]
            async with asyncio.timeout(SECONDS):
                while not requests.of("/v1/publish/batch"):
                    await asyncio.sleep(0.01)
            broker.start()
            await asyncio.gather(*publishing)
            async with AsyncSubscriber(broker.url) as subscriber:
                await subscriber.subscribe("kept/batch")
                assert (await anext(aiter(subscriber))).payload == b"3"
