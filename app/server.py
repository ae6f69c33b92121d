"""Serves the application: uvicorn, told to say goodbye to open streams before it stops.

Rules:

1. A signal drains first: ``drain`` runs before the server begins to stop, so that a stream is told why it
   ends. uvicorn waits for open streams before the lifespan's end, which would come too late.
2. SIGTERM and SIGINT are an ordinary end: ``serve`` returns, and the process ends with status 0.
3. What still waits for the broker shortly before the time to drain is over is answered then, with what is
   true of it. uvicorn would answer with a bare 500.
4. The management port is served from before the bridge starts until after it has stopped, so that a drain
   can be watched to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.server import HANDLED_SIGNALS

from app.api.output.security_headers import SECURITY_HEADERS
from app.connections.head_bounds import HeadBounds
from app.connections.http import BoundedProtocol, BridgeConfig
from app.connections.open_files import raise_file_limit
from app.connections.websocket import BoundedWebSocketProtocol
from app.settings import Settings

logger = logging.getLogger("tidegate")

BACKLOG: Final = 2048

FAREWELL_SECONDS: Final = 1.0
"""So long before the time to drain is over, requests that wait are answered."""

UNSENT_BYTES: Final = 131_072
"""What the kernel takes for a reader beyond what is on the wire. Without it a reader that stopped costs
megabytes before anybody notices, and one that is slow sees messages that are long out of date."""


def _nothing() -> None:
    return None


class BridgeServer(uvicorn.Server):
    """A server that drains before it stops.

    Args:
        config: how uvicorn serves.
        drain: ends all streams with a word; called once, at the first signal.
        give_up: answers whatever waits; called once, after ``patience_seconds`` more.
        patience_seconds: how long open requests may take by themselves.
        on_started: called once, when requests are taken.
        management: serves the management port, if there is one; entered before the start, left after the end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], None],
        *,
        give_up: Callable[[], None] = _nothing,
        patience_seconds: float = 0.0,
        on_started: Callable[[], None] = _nothing,
        management: contextlib.AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        super().__init__(config)
        self._management = contextlib.nullcontext() if management is None else management
        self._drain = drain
        self._give_up = give_up
        self._patience_seconds = patience_seconds
        self._on_started = on_started
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes."""
        self._loop = asyncio.get_running_loop()
        async with self._management:
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and take requests."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving; unlike uvicorn's, do not raise them again afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain and stop; a second SIGINT stops at once. Runs in the loop, between two callbacks."""
        if self._loop is None:
            self._exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._exit, sig, frame)

    def _exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            try:
                self._drain()
            except Exception:
                logger.exception("draining failed; stopping all the same")
            if self._loop is not None:
                self._loop.call_later(self._patience_seconds, self._give_up)
        super().handle_exit(sig, frame)


def make_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How an application of ``create_app`` is served; logging is left to ``configure_logging``."""
    return BridgeConfig(
        app,
        HeadBounds.of(settings),
        counting=app.state.request_counting,
        loop="uvloop",
        http=BoundedProtocol,
        ws=BoundedWebSocketProtocol,
        ws_max_size=settings.websocket_max_message_bytes or settings.max_body_bytes,
        ws_ping_interval=settings.heartbeat_seconds,
        ws_ping_timeout=settings.stream_send_timeout_seconds,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[*SECURITY_HEADERS],
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )


def make_server(
    app: FastAPI, settings: Settings, *, on_started: Callable[[], None] = _nothing
) -> BridgeServer:
    """The server for an application of ``create_app``, which takes the management port at once.

    The OpenAPI document is made here. It takes a fifth of a second of the event loop, and the first path that
    is not known asks for it, whoever sends it.

    Raises:
        OSError: that address or port cannot be had.
    """
    app.openapi()  # made now: no request, and no stream beside it, has to wait for it
    seconds = settings.drain_seconds
    return BridgeServer(
        make_config(app, settings),
        app.state.hub.drain,
        give_up=app.state.gate.stop,
        patience_seconds=max(seconds - FAREWELL_SECONDS, seconds / 2),
        on_started=on_started,
        management=_management(app, settings),
    )


class _ManagementServer(uvicorn.Server):
    """A server that leaves the signals to the one beside it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def _management(app: FastAPI, settings: Settings) -> contextlib.AbstractAsyncContextManager[None] | None:
    """Serves the management port; None where there is none.

    Raises:
        OSError: the address or port cannot be had.
    """
    if app.state.management is None or settings.management_port is None:
        return None
    listening = listen(settings.management_host, settings.management_port, setting="TIDEGATE_MANAGEMENT_PORT")
    config = BridgeConfig(
        app.state.management,
        HeadBounds.of(settings),  # and nobody counts: probes and scrapes are no load
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    return _served(_ManagementServer(config), listening)


@contextlib.asynccontextmanager
async def _served(server: uvicorn.Server, listening: socket.socket) -> AsyncIterator[None]:
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="management port")
    logger.info("the management port is served at %s", url_of(listening))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        listening.close()


def listen(host: str, port: int, *, setting: str = "--port (TIDEGATE_PORT)") -> socket.socket:
    """Take an address and a port.

    Args:
        host: the address, or a name for it.
        port: the port; 0 for any that is free.
        setting: what names the port, for whoever has to name another.

    Raises:
        OSError: the name is unknown, or the address or port cannot be had; the text names both.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        listening = socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:  # the library's words name the address once more
            reason = f"{os.strerror(error.errno)}; name another with {setting}"
        raise OSError(error.errno, f"nothing can listen at {host}, port {port}: {reason}") from None
    if sys.platform == "linux":
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)  # inherited
    return listening


def url_of(listening: socket.socket) -> str:
    """The URL of what listens here."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"


def warn_if_insecure(settings: Settings, url: str) -> None:
    """Say loudly that nobody is asked who they are, where the settings allow it beyond loopback."""
    if settings.insecure and not settings.has_authentication:
        logger.warning(
            "INSECURE: there is no authentication, and TIDEGATE_INSECURE is set: whoever reaches %s may read "
            "and publish everything that the broker lets the bridge",
            url,
        )


def run(app: FastAPI, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OSError: the address or port cannot be had.
        SystemExit: the application did not start; the log tells why.
    """
    listening = listen(settings.host, settings.port)
    warn_if_insecure(settings, url_of(listening))
    raise_file_limit(settings.max_connections)

    def begin() -> None:
        spare_the_collector()
        logger.info("serving at %s", url_of(listening))

    make_server(app, settings, on_started=begin).run(sockets=[listening])


def spare_the_collector() -> None:
    """Leave what was made at the start out of garbage collection for good.

    Looking through it again and again took a fifth of the time of a batch.
    """
    gc.collect()
    gc.freeze()
