"""A bridge that stops: every stream is told, what is in flight is answered, and the process ends in time."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.support.bridge import wait_until
from tests.support.command import Command
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort, is_listening
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

STREAMS = 1000
FILES = 4096
DRAIN_SECONDS = 5
SLACK = 2
"""A machine that has other things to do may take so many times as long."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Enough sockets for this process and, since it inherits the bound, for the bridge."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(FILES, before[0]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def publish(port: int, qos: int, content: bytes = b"x") -> httpx.Response:
    """Publish over a connection of its own."""
    url = f"http://{LOOPBACK}:{port}/v1/topics/drain/0?qos={qos}"
    return httpx.post(url, content=content, trust_env=False, timeout=30)


def is_ready(port: int) -> bool:
    """Whether the bridge says that it may be used."""
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def in_flight(port: int) -> int:
    """Messages that the broker has not acknowledged."""
    status = httpx.get(f"http://{LOOPBACK}:{port}/v1/status", trust_env=False).json()
    return int(status["broker"]["in_flight"])


def opens_a_stream(port: int) -> bool:
    """Whether a new stream is taken."""
    try:
        stream = RawStream(port, "drain/late", is_open=False)
    except ConnectionError:
        return False
    with stream:
        stream.read_until(lambda: stream.status != 0 or stream.is_closed)
        return stream.status == 200


async def test_a_thousand_streams_are_told_and_a_publish_in_flight_is_answered() -> None:
    """SIGTERM: each stream ends with the reason, the broker's late answer still reaches its publisher, the
    broker is told goodbye, and the status is 0.
    """
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto())
        port = stack.enter_context(ReservedPort()).number
        async with FaultProxy(broker.port) as proxy:
            bridge = Command(
                "serve",
                "--port",
                str(port),
                "--broker-url",
                f"mqtt://{LOOPBACK}:{proxy.port}",
                settings={
                    # longer than may be needed, so that it is not this bound that ends what is open
                    "TIDEGATE_DRAIN_SECONDS": str(4 * DRAIN_SECONDS),
                    "TIDEGATE_BROKER_CLIENT_ID": "drained",
                },
            )
            stack.enter_context(bridge)
            await asyncio.to_thread(bridge.wait_for, "serving at")
            await asyncio.to_thread(wait_until, lambda: is_ready(port))
            streams = [
                stack.enter_context(
                    await asyncio.to_thread(RawStream, port, f"drain/{number % 10}", retained="false")
                )
                for number in range(STREAMS)
            ]
            await proxy.set(Fault.BLACK_HOLE)
            held = asyncio.create_task(asyncio.to_thread(publish, port, 1))
            await asyncio.to_thread(wait_until, lambda: in_flight(port) == 1)

            stopping = asyncio.create_task(asyncio.to_thread(bridge.interrupt, signal.SIGTERM))
            async with asyncio.timeout(DRAIN_SECONDS * SLACK):
                await asyncio.to_thread(streams[0].read_to_end)
                assert not await asyncio.to_thread(opens_a_stream, port)
                assert not await asyncio.to_thread(is_ready, port)
                await asyncio.to_thread(wait_until, lambda: not is_listening(port))
                assert not held.done()
                assert not stopping.done()
                await proxy.set(Fault.PASS)
                answer = await held
                status = await stopping
            assert (answer.status_code, status) == (200, 0), bridge.output
            for each in streams:
                await asyncio.to_thread(each.read_to_end)
        assert "Traceback" not in bridge.output
        wait_until(lambda: "Client drained disconnected." in broker.log)
    for each in streams:
        assert each.has_ended
        assert each.events[-1].name == "close"
        assert each.named("close") == [{"reason": "shutdown", "may_reconnect": True}]


def test_a_reader_that_reads_nothing_does_not_keep_the_bridge() -> None:
    """After the time to drain it is given up; the others were told, and the status is 0."""
    with (
        Mosquitto() as broker,
        ReservedPort() as reserved,
        Command(
            "serve",
            "--port",
            str(reserved.number),
            "--broker-url",
            broker.url,
            settings={"TIDEGATE_DRAIN_SECONDS": "1"},
        ) as bridge,
    ):
        port = reserved.number
        bridge.wait_for("serving at")
        wait_until(lambda: is_ready(port))
        with (
            RawStream(port, "drain/0", policy="drop", receive_buffer_bytes=4096) as stuck,
            RawStream(port, "drain/1") as other,
        ):
            for _ in range(32):
                assert publish(port, 1, b"x" * 500_000).status_code == 200
            assert bridge.interrupt(signal.SIGTERM) == 0, bridge.output
            other.read_to_end()
            assert other.named("close") == [{"reason": "shutdown", "may_reconnect": True}]
            stuck.read_to_end()
            assert stuck.is_closed
        assert "Traceback" not in bridge.output


@pytest.mark.parametrize("has_much_to_read", [False, True])
def test_a_websocket_that_reads_nothing_does_not_keep_the_bridge(has_much_to_read: bool) -> None:
    """Neither messages that it does not take nor a close that it does not answer: it is given up."""
    with (
        Mosquitto() as broker,
        ReservedPort() as reserved,
        Command(
            "serve",
            "--port",
            str(reserved.number),
            "--broker-url",
            broker.url,
            # far longer than the test waits for the end of the process
            settings={"TIDEGATE_DRAIN_SECONDS": "600"},
        ) as bridge,
    ):
        port = reserved.number
        bridge.wait_for("serving at")
        wait_until(lambda: is_ready(port))
        with SocketClient(port, receive_buffer_bytes=4096) as stuck:
            stuck.subscribe("drain/0", policy="drop")
            for _ in range(32 if has_much_to_read else 0):
                assert publish(port, 1, b"x" * 500_000).status_code == 200
            assert bridge.interrupt(signal.SIGTERM) == 0, bridge.output
        assert "Traceback" not in bridge.output
        assert '"level":"error"' not in bridge.output


@pytest.mark.parametrize("is_sent", [True, False])
def test_publishes_that_wait_are_told_what_is_true_of_them(is_sent: bool) -> None:
    """The broker stands still, or is gone: 504 for what was sent, 503 for what was not; no bare 500."""
    with ExitStack() as stack:
        broker = stack.enter_context(Mosquitto())
        port = stack.enter_context(ReservedPort()).number
        bridge = Command(
            "serve",
            "--port",
            str(port),
            "--broker-url",
            broker.url,
            settings={
                "TIDEGATE_DRAIN_SECONDS": "2",
                "TIDEGATE_PUBLISH_TIMEOUT_SECONDS": "600",
                "TIDEGATE_BROKER_KEEPALIVE_SECONDS": "600",
            },
        )
        stack.enter_context(bridge)
        bridge.wait_for("serving at")
        wait_until(lambda: is_ready(port))
        if is_sent:
            broker.pause()
        else:
            broker.kill()
            wait_until(lambda: not is_ready(port))
        pool = stack.enter_context(ThreadPoolExecutor(5))
        message = {"topic": "drain/a", "payload": 1}
        url = f"http://{LOOPBACK}:{port}/v1"

        def post(path: str, **content: Any) -> httpx.Response:
            return httpx.post(url + path, trust_env=False, timeout=60, **content)

        answers = [
            pool.submit(post, "/topics/drain/a", content=b"1"),
            pool.submit(post, "/topics/drain/a?qos=2", content=b"1"),
            pool.submit(post, "/topics/drain/a", content=b"1", headers={"Idempotency-Key": "drain"}),
            pool.submit(post, "/publish", json=message),
            pool.submit(post, "/publish/batch", json=[message, message]),
        ]
        wait_until(lambda: held(port) == len(answers) + 1)
        assert bridge.interrupt(signal.SIGTERM) == 0, bridge.output
        found = [each.result() for each in answers]
        assert {each.headers["content-type"] for each in found} == {"application/problem+json"}
        assert [each.status_code for each in found] == [504 if is_sent else 503] * len(answers)
        assert "Traceback" not in bridge.output
        broker.resume()


def held(port: int) -> int:
    """Messages that wait, or that the broker has not acknowledged."""
    status = httpx.get(f"http://{LOOPBACK}:{port}/v1/status", trust_env=False).json()
    return int(status["broker"]["in_flight"]) + int(status["broker"]["waiting"])
