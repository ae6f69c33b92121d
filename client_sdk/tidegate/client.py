"""What publishers and subscribers have in common: their options and their one transport."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self, Unpack

from tidegate.configuration import Options, Where, resolve
from tidegate.errors import NotConnectedError
from tidegate.formatters import Formatter, JSONFormatter
from tidegate.transports.transport import Transport


class AsyncClient:
    """An asynchronous client: made anywhere, used on one event loop.

    Args:
        url: a broker's or a bridge's URL; else ``configure``, ``TIDEGATE_URL``, ``mqtt://localhost:1883``.
        host: the broker's host; wins over the URL.
        port: the broker's TCP port.
        username: the broker's user name.
        password: the broker's password.
        client_id: the client identifier (MQTT 5 §3.1.3.1); made up where it is left out.
        tls: an ``ssl.SSLContext``; a ``Bundle`` or the path of one (a directory, a ZIP, a file); a mapping of
            files (``ca_certs``, ``certfile``, ``keyfile`` …); or True. Else ``TIDEGATE_TLS``, a path.
        token: a bridge's bearer token, or what gives one for each request; else ``TIDEGATE_TOKEN``.
        formatter: what writes and reads payloads; JSON where it is left out.
        connect: what opens broker connections, for a test: ``MemoryBroker().connect``.

    Raises:
        ConfigurationError: the options cannot be used together.
        TLSError: a certificate file cannot be used.
    """

    def __init__(self, url: str | None = None, **where: Unpack[Where]) -> None:
        options = resolve(Options(url=url, **where))
        self.formatter: Formatter = options.formatter or JSONFormatter()
        self._transport: Transport = options.make_transport()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used_in = 0
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_disconnect: list[Callable[[], None]] = []

    async def connect(self) -> None:
        """Connect now, instead of with the first call; harmless where there is a connection.

        Raises:
            MQTTError: why there is none. The client goes on trying in the background, and the call may be
                repeated.
        """
        await self._open().connect()

    async def disconnect(self) -> None:
        """Finish what is in flight and disconnect; a second call does nothing."""
        if self._used_in not in (0, os.getpid()):
            return  # a copy in a child process; the connection is the parent's
        if not self._is_closed:
            self._is_closed = True
            for task in list(self._tasks):
                task.cancel()
            await self._transport.close()
            for call in self._at_disconnect:
                call()

    def share_connection(self, other: AsyncClient) -> None:
        """Use the connection of another client with the same options; before the first call of either."""
        self._transport = other._transport

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.disconnect()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    def _open(self) -> Transport:
        if self._is_closed:
            raise NotConnectedError("the client was disconnected; make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._used_in = os.getpid()
        elif self._used_in != os.getpid():
            raise NotConnectedError(
                "the connection is that of the parent process; make a new client after fork"
            )
        elif self._loop is not loop:
            raise RuntimeError("the client is used on two event loops; make one for each")
        return self._transport
