"""Publishes through a bridge whose broker restarts again and again: is any lost that was answered with 200?

Clients publish numbers over HTTP, each as fast as its answers come, while the broker ends by SIGKILL and by
SIGTERM in turn and starts again on its store. A subscriber with a session of its own counts what arrives.

With QoS 2 the broker ends by SIGTERM alone. Mosquitto answers a turn's packets before it writes its store,
and a subscriber is given a QoS 2 message only after one more exchange: what was confirmed last before SIGKILL
is gone, whoever published it. With QoS 1 the subscriber's copy leaves before the answer, as long as it may
have as many in flight as come.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bench.contestants import bridge
from tests.support.mosquitto import Mosquitto
from tidegate.connection import ConnectOptions, Subscription
from tidegate.message import Message
from tidegate.session import Session

PUBLISHES: Final = 50_000
CLIENTS: Final = 32
RESTARTS: Final = 10
TOPIC: Final = "bench/restarts"
END: Final = "bench/end"
IN_FLIGHT: Final = "max_inflight_messages 1000"
KEPT: Final = {
    "TIDEGATE_BROKER_CLIENT_ID": "bench-bridge",
    "TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS": "600",
}


@dataclass(slots=True)
class Report:
    """What became of the publishes.

    Attributes:
        answers: how many answers of each HTTP status.
        acknowledged: the numbers that were answered with 200.
        arrived: how often each number came to the subscriber.
        restarts: how often the broker was restarted.
    """

    answers: Counter[int] = field(default_factory=Counter)
    acknowledged: set[int] = field(default_factory=set)
    arrived: Counter[int] = field(default_factory=Counter)
    restarts: int = 0

    @property
    def lost(self) -> set[int]:
        """Numbers that were answered with 200 and never arrived."""
        return self.acknowledged - self.arrived.keys()

    @property
    def duplicates(self) -> int:
        """Copies beyond the first of each number."""
        return self.arrived.total() - len(self.arrived)


async def publish_over_restarts(
    broker: Mosquitto,
    bridge_url: str,
    *,
    publishes: int,
    clients: int,
    restarts: int,
    ends: Sequence[Callable[[], None]],
    qos: int,
    patience_seconds: float,
) -> Report:
    """Publish through a bridge while its broker restarts, and count.

    Args:
        broker: with persistence.
        bridge_url: where the bridge is.
        publishes: how many in all.
        clients: connections to the bridge, each with one request at a time.
        restarts: spread over the publishes.
        ends: what ends the broker, in turn.
        qos: 1 or 2.
        patience_seconds: how long to wait for the last messages.
    """
    report = Report()
    has_ended = asyncio.Event()

    def count(message: Message) -> None:
        if message.topic == END:
            has_ended.set()
        else:
            report.arrived[int(message.payload)] += 1

    session = Session(
        ConnectOptions(broker.host, broker.port, client_id="bench-counter", session_expiry_seconds=600),
        on_message=count,
        reconnect_max_seconds=1.0,
    )
    await session.start()
    try:
        await session.subscribe([Subscription(TOPIC, qos=qos), Subscription(END, qos=qos)])
        numbers = iter(range(publishes))
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(_publish(bridge_url, numbers, qos, report))
            group.create_task(_restart(broker, publishes, restarts, ends, report))
        async with asyncio.timeout(patience_seconds):
            await session.publish(Message(END, b"", qos), timeout_seconds=patience_seconds)
            await has_ended.wait()
            # a number whose first attempt died comes after the end
            await _until(lambda: not report.lost)
    except TimeoutError:
        pass  # what is missing by now is lost, and the report tells it
    finally:
        await session.close()
    return report


async def _publish(bridge_url: str, numbers: Iterator[int], qos: int, report: Report) -> None:
    """One HTTP client: a request, its answer, the next request."""
    parts = urlsplit(bridge_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /v1/topics/{TOPIC}?qos={qos} HTTP/1.1\r\nHost: bridge\r\nContent-Length: "
    try:
        for number in numbers:
            body = str(number)
            writer.write(f"{head}{len(body)}\r\n\r\n{body}".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(answer.split(" ", 2)[1])
            length = int(answer.partition("content-length:")[2].split("\r\n", 1)[0])
            await reader.readexactly(length)
            report.answers[status] += 1
            if status == 200:
                report.acknowledged.add(number)
    finally:
        writer.close()


async def _restart(
    broker: Mosquitto, publishes: int, restarts: int, ends: Sequence[Callable[[], None]], report: Report
) -> None:
    """Restart the broker each time another share of the publishes is answered."""
    for number, end in zip(range(1, restarts + 1), itertools.cycle(ends), strict=False):
        due = number * publishes // (restarts + 1)
        await _until(lambda due=due: report.answers.total() >= due)  # type: ignore[misc]
        await asyncio.to_thread(end)
        await asyncio.to_thread(broker.start)
        report.restarts += 1


async def _until(holds: Callable[[], bool]) -> None:
    for _ in itertools.count():
        if holds():
            return
        await asyncio.sleep(0.01)


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print.

    Raises:
        RuntimeError: a message that was answered with 200 is lost.
    """
    ways: dict[str, tuple[int, dict[str, str]]] = {
        "QoS 1": (1, {}),
        "QoS 1, session kept": (1, KEPT),
        "QoS 2, session kept, SIGTERM alone": (2, KEPT),
    }
    print(f"restarts: {PUBLISHES:,} publishes, {CLIENTS} clients, {RESTARTS} restarts of Mosquitto")
    print("| | answered 200 | 503 | 504 | other | arrived | of the 200, lost | duplicates |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for _ in range(rounds):
        for name, (qos, settings) in ways.items():
            with (
                Mosquitto(persistence=True, extra=[IN_FLIGHT]) as broker,
                bridge(broker.port, settings) as (_pid, port),
            ):
                report = asyncio.run(
                    publish_over_restarts(
                        broker,
                        f"http://127.0.0.1:{port}",
                        publishes=PUBLISHES,
                        clients=CLIENTS,
                        restarts=RESTARTS,
                        ends=(broker.kill, broker.stop) if qos == 1 else (broker.stop,),
                        qos=qos,
                        patience_seconds=seconds,
                    )
                )
            other = report.answers.total() - sum(report.answers[status] for status in (200, 503, 504))
            print(
                f"| {name} | {report.answers[200]:,} | {report.answers[503]} | {report.answers[504]} "
                f"| {other} | {len(report.arrived):,} | {len(report.lost)} | {report.duplicates} |",
                flush=True,
            )
            if report.lost:
                raise RuntimeError(f"lost, though answered with 200: {sorted(report.lost)[:20]}")
