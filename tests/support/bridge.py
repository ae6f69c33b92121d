"""A real bridge: the application behind a real uvicorn, on a loopback port of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import SecretStr

from app.main import create_app
from app.security.authentication import Authentication
from app.server import listen, make_config
from app.settings import Settings
from tests.support.ports import LOOPBACK
from tidegate.connection import Connect

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.01
REQUEST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came over the socket.

    Attributes:
        status: the HTTP status.
        headers: names in lower case; of a repeated one the last.
        body: the body's bytes.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


class Bridge:
    """A bridge that runs in a thread; made by ``running_bridge``.

    Attributes:
        url: where it is, without a trailing slash.
        port: its port on 127.0.0.1.
        app: the application.
    """

    def __init__(self, app: FastAPI, settings: Settings, port: int = 0) -> None:
        self.app = app
        self._socket = listen(LOOPBACK, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=REQUEST_SECONDS, trust_env=False)
        self._server = uvicorn.Server(make_config(app, settings))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)

    def start(self) -> None:
        """Start serving; returns when requests are taken, whether the broker is there or not."""
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), START_SECONDS)
        if not self._server.started:
            raise RuntimeError("the bridge did not start; its log tells why")

    def wait_until_ready(self) -> None:
        """Wait until the broker answers."""
        wait_until(lambda: self.client.get("/readyz").status_code == 200, START_SECONDS)

    def drain(self) -> None:
        """Say goodbye to open streams and to requests that wait."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.app.state.hub.drain)

    def stop(self) -> None:
        """Say goodbye, and stop."""
        self.drain()
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self.client.close()
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError(f"the bridge did not stop within {STOP_SECONDS:g} s")

    @property
    def unsent_bytes(self) -> list[int]:
        """What waits for each connection's reader in the bridge itself, beyond the kernel's buffers."""
        open_ones = list(self._server.server_state.connections)
        return [each.transport.get_write_buffer_size() for each in open_ones]

    def raw(
        self, method: str, target: bytes, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> RawAnswer:
        """Send a request whose target no HTTP client would let through, byte for byte.

        Args:
            method: the method.
            target: the path and query.
            headers: more headers; ``Content-Length`` is added where neither it nor chunks are there.
            body: the body, with its chunk marks where it is chunked.
        """
        given = {"host": LOOPBACK} | {name.lower(): value for name, value in (headers or {}).items()}
        if "content-length" not in given and "transfer-encoding" not in given:
            given["content-length"] = str(len(body))
        lines = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Connection: close"]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in given.items()]
        with socket.create_connection((LOOPBACK, self.port), timeout=REQUEST_SECONDS) as connection:
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            received = b"".join(iter(lambda: connection.recv(65_536), b""))
        head, _, rest = received.partition(b"\r\n\r\n")
        status_line, *header_lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ")[::2] for line in header_lines)
        return RawAnswer(int(status_line.split(" ")[1]), {name.lower(): value for name, value in pairs}, rest)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])


@contextmanager
def running_bridge(
    broker_url: str,
    *,
    connect: Connect | None = None,
    authentication: Authentication | None = None,
    tracing: Tracing | None = None,
    prepare: Callable[[FastAPI], None] | None = None,
    wait_until_ready: bool = True,
    port: int = 0,
    **settings: Any,
) -> Iterator[Bridge]:
    """Run a bridge.

    Args:
        broker_url: its broker.
        connect: what opens connections to the broker; the default client where it is left out.
        authentication: how principals are found; that of the settings where it is left out.
        tracing: what traces; what the environment asks for where it is left out.
        prepare: done to the application before it serves, such as adding a route.
        wait_until_ready: wait until the broker answers; without it the bridge just serves.
        port: where to listen on 127.0.0.1; any free port where it is left out.
        settings: any field of ``Settings``.
    """
    chosen = Settings(broker_url=SecretStr(broker_url), **settings)
    app = create_app(chosen, connect=connect, authentication=authentication, tracing=tracing)
    if prepare is not None:
        prepare(app)
    bridge = Bridge(app, chosen, port)
    try:
        bridge.start()
        if wait_until_ready:
            bridge.wait_until_ready()
        yield bridge
    finally:
        bridge.stop()


def wait_until(holds: Callable[[], bool], timeout_seconds: float = START_SECONDS) -> None:
    """Ask again and again until something holds; raises AssertionError where it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come about within {timeout_seconds:g} s")
        time.sleep(POLL_SECONDS)
