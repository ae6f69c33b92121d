"""The SDK beside bare paho: calls a second of a decorated function, and messages a second into a handler.

All contestants use one Mosquitto with its defaults, and take many short turns, so that each ratio comes from
the same moments of the same machine. paho keeps one connection, as a careful user of it does. "A connection
for each call" is what a function costs that connects, publishes and disconnects. CPU time is that of this
process, all its threads: the publisher's or the receiver's, without the broker.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench.contestants import bridge, mosquitto
from bench.packets import CONNACK, connect, publish
from tidegate import AsyncPublisher, Publisher, Subscriber, async_publish
from tidegate import publish as publishing
from tidegate.connection import ConnectOptions
from tidegate.decorators import disconnect_all
from tidegate.message import Message
from tidegate.session import Session

HOST: Final = "127.0.0.1"
TOPIC: Final = "bench/sdk"
VALUE: Final = {"value": 23.5, "unit": "celsius", "sensor": "kitchen", "at": "2026-01-31T12:00:00Z"}
BODY: Final = json.dumps(VALUE, separators=(",", ":")).encode()
RECEIVED: Final = 10_000
"""As many as wait for one handler: of a larger burst, faster than the handler, the rest is dropped."""
PATIENCE_SECONDS: Final = 60.0

CALLERS: Final = 100

SLICES: Final = 10
"""Into how many turns a contestant's seconds of one round are cut."""


class Rate(NamedTuple):
    """What one turn gave: calls or messages a second, and CPU microseconds for each."""

    each_second: float
    cpu_microseconds: float


Rates = dict[str, list[Rate]]


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print."""
    logging.disable(logging.WARNING)  # the broker that ends is no news here
    # No queue of the broker's may fill up: a receiver is to be measured, not the broker's patience with it.
    with mosquitto("max_queued_messages 0") as port:
        turns, turn_seconds = rounds * SLICES, seconds / SLICES
        _print("blocking calls", _blocking(port, turns, turn_seconds))
        _print("awaited calls", asyncio.run(_awaited(port, turns, turn_seconds)))
        with bridge(port) as (_, bridge_port):
            _print(
                f"{CALLERS} callers at once through a bridge, QoS 1",
                asyncio.run(_bridged(bridge_port, turns, turn_seconds)),
            )
        _print(f"bursts of {RECEIVED:,} messages received", _received(port, rounds))
        disconnect_all()


_REFERENCES: Final = {
    "@publish, QoS 0": "paho, QoS 0",
    "@publish, QoS 1": "paho, QoS 1",
    "Publisher.publish, QoS 1": "paho, QoS 1",
    "a connection for each call, QoS 1": "paho, QoS 1",
    "AsyncPublisher.publish, of bytes, one after another": "Session.publish, one after another",
    "AsyncPublisher.publish, of bytes, 100 at once": "Session.publish, 100 at once",
    "AsyncPublisher.publish, one after another": "Session.publish, one after another",
    "AsyncPublisher.publish, 100 at once": "Session.publish, 100 at once",
    "@async_publish, one after another": "Session.publish, one after another",
    "@async_publish, 100 at once": "Session.publish, 100 at once",
    "AsyncPublisher.publish, of bytes, batched": "httpx, a POST for each",
    "AsyncPublisher.publish_many, of bytes": "httpx, a POST for each",
    "Subscriber, a function": "paho, on_message",
    "Subscriber, a coroutine function": "paho, on_message",
}


def _blocking(port: int, turns: int, turn_seconds: float) -> Rates:
    url = f"mqtt://{HOST}:{port}"

    @publishing(TOPIC, qos=0, url=url)
    def unacknowledged() -> dict[str, Any]:
        return VALUE

    @publishing(TOPIC, qos=1, url=url)
    def acknowledged() -> dict[str, Any]:
        return VALUE

    def connecting() -> None:
        with _paho(port) as client:
            client.publish(TOPIC, BODY, 1).wait_for_publish(PATIENCE_SECONDS)

    with _paho(port) as client, Publisher(url) as publisher:
        acknowledged()

        def flushed(call: Callable[[], Any], flush: Callable[[], Any], at_once: int = 10) -> Rate:
            measure, calls = _Measure(), 0
            while measure.seconds < turn_seconds:
                for _ in range(at_once):
                    call()
                calls += at_once
            flush()
            return measure.rate(calls)

        def paho_call(qos: int) -> paho.MQTTMessageInfo:
            return client.publish(TOPIC, BODY, qos)

        def paho_acknowledged() -> None:
            paho_call(1).wait_for_publish(PATIENCE_SECONDS)

        contestants: dict[str, Callable[[], Rate]] = {
            "paho, QoS 0": lambda: flushed(lambda: paho_call(0), paho_acknowledged),
            "@publish, QoS 0": lambda: flushed(unacknowledged, acknowledged),
            "paho, QoS 1": lambda: flushed(paho_acknowledged, lambda: None),
            "@publish, QoS 1": lambda: flushed(acknowledged, lambda: None),
            "Publisher.publish, QoS 1": lambda: flushed(
                lambda: publisher.publish(TOPIC, VALUE), lambda: None
            ),
            "a connection for each call, QoS 1": lambda: flushed(connecting, lambda: None, 1),
        }
        return _take_turns(contestants, turns)


async def _awaited(port: int, turns: int, turn_seconds: float) -> Rates:
    url = f"mqtt://{HOST}:{port}"
    session = Session(ConnectOptions(host=HOST, port=port))
    await session.start()
    await session.connected(PATIENCE_SECONDS)

    @async_publish(TOPIC, qos=1, url=url)
    async def decorated() -> dict[str, Any]:
        return VALUE

    async with AsyncPublisher(url) as publisher:
        contestants: dict[str, Callable[[], Any]] = {
            "Session.publish": lambda: session.publish(Message(TOPIC, BODY, 1)),
            "AsyncPublisher.publish, of bytes": lambda: publisher.publish(TOPIC, BODY),
            "AsyncPublisher.publish": lambda: publisher.publish(TOPIC, VALUE),
            "@async_publish": decorated,
        }
        rates: Rates = {}
        for at_once, words in ((1, "one after another"), (100, "100 at once")):
            for _ in range(turns):
                for name, call in contestants.items():
                    gc.collect()
                    measure, calls = _Measure(), 0
                    while measure.seconds < turn_seconds:
                        if at_once == 1:
                            await call()
                        else:
                            await asyncio.gather(*(call() for _ in range(at_once)))
                        calls += at_once
                    rates.setdefault(f"{name}, {words}", []).append(measure.rate(calls))
    await session.close()
    return rates


async def _bridged(port: int, turns: int, turn_seconds: float) -> Rates:
    """Many callers through one bridge: each a request of its own, as a program would, and as the SDK does."""
    url = f"http://{HOST}:{port}"
    limits = httpx.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS)
    rates: Rates = {}
    async with (
        httpx.AsyncClient(base_url=url, limits=limits, timeout=PATIENCE_SECONDS) as client,
        AsyncPublisher(url) as publisher,
    ):

        async def post(topic: str) -> int:
            (await client.post(f"/v1/topics/{topic}", content=BODY)).raise_for_status()
            return 1

        async def published(topic: str) -> int:
            await publisher.publish(topic, BODY)
            return 1

        async def many(topic: str) -> int:
            return len(await publisher.publish_many([(topic, BODY)] * CALLERS))

        contestants: dict[str, tuple[Callable[[str], Awaitable[int]], int]] = {
            "httpx, a POST for each": (post, CALLERS),
            "AsyncPublisher.publish, of bytes, batched": (published, CALLERS),
            "AsyncPublisher.publish_many, of bytes": (many, 1),
        }
        for _ in range(turns):
            for name, (call, callers) in contestants.items():
                gc.collect()
                measure = _Measure()

                async def go_on(
                    topic: str, call: Callable[[str], Awaitable[int]] = call, measure: _Measure = measure
                ) -> int:
                    count = 0
                    while measure.seconds < turn_seconds:
                        count += await call(topic)
                    return count

                counts = await asyncio.gather(*(go_on(f"{TOPIC}/{number}") for number in range(callers)))
                rates.setdefault(name, []).append(measure.rate(sum(counts)))
    return rates


def _received(port: int, rounds: int) -> Rates:
    url = f"mqtt://{HOST}:{port}"
    seen = _Seen()

    async def awaited(_topic: str, _payload: Any) -> None:
        seen.one()

    contestants: dict[str, Callable[[], Rate]] = {}
    with _paho(port) as client, Subscriber(url) as plain, Subscriber(url) as awaiting, _sender(port) as send:
        client.on_message = lambda *_: seen.one()
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.subscribe("bench/paho")
        subscribed.wait(PATIENCE_SECONDS)
        plain.subscribe("bench/plain", lambda *_: seen.one(), qos=0)
        awaiting.subscribe("bench/awaiting", awaited, qos=0)
        for name, topic in (
            ("paho, on_message", "bench/paho"),
            ("Subscriber, a function", "bench/plain"),
            ("Subscriber, a coroutine function", "bench/awaiting"),
        ):
            contestants[name] = functools.partial(seen.rate_of, functools.partial(send, topic))
        return _take_turns(contestants, rounds)


class _Measure:
    """Time and CPU time since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent = time.process_time()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._began

    def rate(self, count: int) -> Rate:
        """The rate of so many since the beginning."""
        seconds, spent = self.seconds, time.process_time() - self._spent
        return Rate(count / seconds, spent / count * 1e6)


class _Seen:
    """Counts the messages of one burst, and measures from the first to the last."""

    def __init__(self) -> None:
        self._count = 0
        self._measure = _Measure()
        self._rate: Rate | None = None
        self._all = threading.Event()

    def one(self) -> None:
        """A message was handled."""
        self._count += 1
        if self._count == 1:
            self._measure = _Measure()
        elif self._count == RECEIVED:
            self._rate = self._measure.rate(RECEIVED - 1)
            self._all.set()

    def rate_of(self, send: Callable[[], None]) -> Rate:
        """What a burst gave."""
        self._count = 0
        self._all.clear()
        send()
        if not self._all.wait(PATIENCE_SECONDS) or self._rate is None:
            raise RuntimeError(f"only {self._count} of {RECEIVED} messages came")
        return self._rate


def _take_turns(contestants: dict[str, Callable[[], Rate]], turns: int) -> Rates:
    rates: Rates = {name: [] for name in contestants}
    for _ in range(turns):
        for name, measure in contestants.items():
            gc.collect()
            rates[name].append(measure())
    return rates


@contextmanager
def _paho(port: int) -> Iterator[paho.Client]:
    """A connected client of paho's with its network thread."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(HOST, port)
    client.loop_start()
    if not connected.wait(PATIENCE_SECONDS):
        raise RuntimeError("paho did not connect")
    yield client
    client.disconnect()
    client.loop_stop()


@contextmanager
def _sender(port: int) -> Iterator[Callable[[str], None]]:
    """What sends a burst to a topic with one system call or a few, so that it costs next to nothing here."""
    with socket.create_connection((HOST, port), PATIENCE_SECONDS) as connection:
        connection.sendall(connect("bench-sdk"))
        if connection.recv(len(CONNACK), socket.MSG_WAITALL) != CONNACK:
            raise RuntimeError("the broker refused the sender")
        yield lambda topic: connection.sendall(publish(topic, BODY) * RECEIVED)


def _print(title: str, rates: Rates) -> None:
    print(f"sdk: {title}, {len(BODY)}-byte payload, {len(next(iter(rates.values())))} turns each")
    print("| | a second, median | × its reference, median (middle half) | CPU, µs each | × its reference |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in rates.items():
        reference = rates[_REFERENCES.get(name, name)]
        ratios = sorted(
            each.each_second / other.each_second for each, other in zip(found, reference, strict=True)
        )
        quarter = len(ratios) // 4
        spread = f" ({ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f})" if name in _REFERENCES else ""
        cpu, reference_cpu = (
            statistics.median(each.cpu_microseconds for each in of) for of in (found, reference)
        )
        print(
            f"| {name} | {statistics.median(each.each_second for each in found):,.0f} "
            f"| {statistics.median(ratios):.2f}{spread} | {cpu:.0f} | {cpu / reference_cpu:.2f} |"
        )
