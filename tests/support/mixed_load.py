"""A little of everything that a bridge does and that may befall it, so that no metric stands still.

Nothing in it depends on time: the broker is stopped, paused and started, and what came of it is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.fernet import Fernet
from fastapi import FastAPI

from app.security.authentication import Authentication
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.device import Device, reply_to, silence
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.metrics import scrape
from tests.support.mosquitto import Mosquitto
from tests.support.raw_socket import RawSocket
from tests.support.raw_stream import RawStream
from tests.support.tls_brokers import make_plant
from tests.support.valkey import Valkey
from tests.support.websocket import SocketClient
from tidegate.message import Message

MONITOR: Final = "monitor"
"""The token that may read ``/metrics``."""

WORKER: Final = "worker"
HASTY: Final = "hasty"
IN_FLIGHT: Final = 2
WAITING: Final = 4
BIG: Final = b"x" * 400_000
BIG_ONES: Final = 40
JOURNAL: Final = 50
STREAMS: Final = 10
LATECOMERS: Final = 12


def _fault() -> None:
    raise RuntimeError("a fault")


def _prepare(app: FastAPI) -> None:
    app.add_api_route("/fault", _fault)


def _echo_twice(request: Message) -> Iterable[Message]:
    """A device that answers once too often."""
    yield reply_to(request, b"1")
    yield reply_to(request, b"2")


@contextmanager
def loaded_bridge(broker: Mosquitto, folder: Path) -> Iterator[MixedLoad]:
    """A bridge whose bounds are near, and the load on it; streams are open that are read or are not.

    Args:
        broker: one that nobody else uses.
        folder: for the bridge's files.
    """
    schemas = folder / "schemas.yaml"
    schemas.write_text('schemas:\n  - topics: "load/typed"\n    schema: {type: integer}\n')
    scopes = ("credentials:read", "credentials:write", "status:read")
    worker = principal(WORKER, publish=("load/#",), subscribe=("load/#",), scopes=scopes)
    monitor = principal(MONITOR, scopes=("metrics:read",))
    tokens = FixedTokens(worker=worker, monitor=monitor, hasty=principal(HASTY, subscribe=("load/#",)))
    with (
        Valkey() as valkey,
        running_bridge(
            broker.url,
            authentication=Authentication([tokens]),
            prepare=_prepare,
            schemas_file=schemas,
            credentials_dir=folder / "store",
            credentials_key=Fernet.generate_key().decode(),
            redis_url=valkey.url,
            max_in_flight=IN_FLIGHT,
            max_waiting=WAITING,
            publish_timeout_seconds=60.0,
            listener_max_bytes=2 * len(BIG),
            stream_send_timeout_seconds=600.0,
            journal_max_messages=JOURNAL,
            max_streams_per_principal=STREAMS,
        ) as bridge,
        ExitStack() as opened,
    ):
        parts = make_plant(folder / "plant").parts()
        load = MixedLoad(bridge, broker, opened)
        load.insist(201, "PUT", "/v1/credentials/plant", json=parts)
        yield load


class MixedLoad:
    """Made by ``loaded_bridge``.

    Args:
        bridge: who is asked.
        broker: its broker.
        opened: what is open until the end.
    """

    def __init__(self, bridge: Bridge, broker: Mosquitto, opened: ExitStack) -> None:
        self.bridge = bridge
        self._broker = broker
        self._opened = opened
        self._port = bridge.port
        self._slow, _ = (
            opened.enter_context(
                RawStream(self._port, "load/big", token=WORKER, policy=policy, receive_buffer_bytes=4096)
            )
            for policy in ("drop", "latest")
        )
        opened.enter_context(RawStream(self._port, "load/a", token=WORKER, interval="3600"))
        opened.enter_context(
            RawStream(self._port, "load/#", token=WORKER, accept="application/x-ndjson", policy="latest")
        )

    def begin(self) -> None:
        """What a bridge does on a good day: messages of each QoS, and one retained."""
        for qos in (0, 1, 2):
            self.insist(202 if qos == 0 else 200, "POST", f"/v1/topics/load/a?qos={qos}", content=b"1")
        self.insist(200, "PUT", "/v1/topics/load/kept", content=b"1")
        self.insist(200, "GET", "/v1/topics/load/kept")

    def go_on(self) -> None:
        """All that can happen again and again."""
        self.begin()
        self._batch(10)
        for _ in range(2):
            self.insist(200, "POST", "/v1/topics/load/a", content=b"1", headers={"Idempotency-Key": "once"})
        self._overrun_slow_readers()
        self._leave_and_come_back()
        self._talk_over_a_websocket()
        asyncio.run(self._ask_devices())
        self._be_refused()
        self._fill_the_queue()

    def suffer(self) -> None:
        """What an operator is told of: a lost broker, a fault, and clients that come back too late."""
        self._lose_the_broker()
        self.insist(500, "GET", "/fault")
        with RawStream(self._port, "load/journal", token=WORKER) as stream:
            self._batch(1, "load/journal")
            stream.read_messages(1)
            left_at = stream.last_event_id
        for _ in range(3):
            self._batch(JOURNAL // 2, "load/journal")
        for _ in range(LATECOMERS):
            with RawStream(self._port, "load/journal", token=WORKER, last_event_id=left_at) as stream:
                stream.read_until(lambda here=stream: here.named("gap"))  # type: ignore[misc]

    def hold(self) -> None:
        """Have messages under way, a request that waits for its device, and a WebSocket that subscribes."""
        client = SocketClient(self._port, headers=bearer(WORKER))
        self._opened.enter_context(client)
        client.subscribe("load/held")
        self._opened.enter_context(self._unanswered("/v1/requests/load/deaf?timeout=120"))
        self._wait_for("tidegate_requests_waiting", 1)
        self._broker.pause()
        self._opened.callback(self._broker.resume)
        for each in self._fill():
            self._opened.enter_context(each)

    def insist(
        self, status: int, method: str, path: str, token: str = WORKER, **options: Any
    ) -> httpx.Response:
        """Ask, and be answered with this status."""
        headers = {**bearer(token), **options.pop("headers", {})}
        answer = self.bridge.client.request(method, path, headers=headers, **options)
        assert status == answer.status_code, (method, path, answer.text)
        return answer

    def _batch(self, count: int, topic: str = "load/a") -> None:
        messages = [{"topic": topic, "payload": number, "qos": 1} for number in range(count)]
        answer = self.insist(200, "POST", "/v1/publish/batch", json=messages)
        assert count == answer.json()["accepted"], answer.text

    def _overrun_slow_readers(self) -> None:
        """More than the kernel takes for a reader that does not read; then one of two does."""
        for _ in range(BIG_ONES):
            self.insist(200, "POST", "/v1/topics/load/big", content=BIG)
        lags = len(self._slow.named("lag"))
        self._slow.read_until(lambda: len(self._slow.named("lag")) > lags)

    def _leave_and_come_back(self) -> None:
        with RawStream(self._port, "load/b", token=WORKER) as stream:
            self._batch(1, "load/b")
            stream.read_messages(1)
            left_at = stream.last_event_id
        self._batch(3, "load/b")
        with RawStream(self._port, "load/b", token=WORKER, last_event_id=left_at) as stream:
            stream.read_messages(3)
        with RawStream(self._port, "load/b", token=WORKER, last_event_id="nobody-1"):
            pass

    def _talk_over_a_websocket(self) -> None:
        with SocketClient(self._port, headers=bearer(WORKER)) as client:
            subscription = client.subscribe("load/c")
            client.publish("load/c", 1)
            client.read_messages(subscription, 1)
            client.close()

    async def _ask_devices(self) -> None:
        async with (
            httpx.AsyncClient(
                base_url=self.bridge.url, headers=bearer(WORKER), trust_env=False, timeout=30
            ) as client,
            Device(self._broker.port, "load/device", _echo_twice),
            Device(self._broker.port, "load/silent", silence),
        ):
            assert 200 == (await client.post("/v1/requests/load/device", content=b"1")).status_code
            assert (
                504 == (await client.post("/v1/requests/load/silent?timeout=0.1", content=b"1")).status_code
            )

    def _be_refused(self) -> None:
        self.insist(401, "POST", "/v1/topics/load/a", token="nobody", content=b"1")
        self.insist(403, "POST", "/v1/topics/elsewhere", content=b"1")
        self.insist(404, "GET", "/nowhere")
        self.insist(400, "POST", "/v1/topics/load/a?qso=1", content=b"1")
        self.insist(422, "POST", "/v1/topics/load/typed", content=b'"no"')
        with ExitStack() as opened:
            for _ in range(STREAMS):
                opened.enter_context(RawStream(self._port, "load/a", token=HASTY))
            self.insist(429, "GET", "/v1/subscribe?topic=load/a", token=HASTY)

    def _fill_the_queue(self) -> None:
        self._broker.pause()
        with ExitStack() as sent:
            for each in self._fill():
                sent.enter_context(each)
            self.insist(503, "POST", "/v1/topics/load/a", content=b"1")
            self._broker.resume()
            self._wait_for("tidegate_http_requests_in_progress", 1)

    def _lose_the_broker(self) -> None:
        failures = "tidegate_broker_connection_failures_total"
        before = self._metric(failures)
        self._broker.stop()
        wait_until(lambda: self._metric(failures) > before)
        self._broker.start()
        self.bridge.wait_until_ready()

    def _fill(self) -> list[RawSocket]:
        """Publish until no more may wait; the broker answers nothing."""
        sent = [self._unanswered("/v1/topics/load/a") for _ in range(IN_FLIGHT + WAITING)]
        self._wait_for("tidegate_broker_in_flight_messages", IN_FLIGHT)
        self._wait_for("tidegate_broker_waiting_messages", WAITING)
        return sent

    def _unanswered(self, path: str) -> RawSocket:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {WORKER}"]
        return RawSocket(self._port, "\r\n".join([*lines, "Content-Length: 1", "", "1"]).encode())

    def _metric(self, name: str, **labels: str) -> float:
        return scrape(self.bridge.url, token=MONITOR)[name][frozenset(labels.items())]

    def _wait_for(self, name: str, wanted: float) -> None:
        wait_until(lambda: self._metric(name) == wanted)
