"""What publishers and subscribers have in common: their options and their one transport."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from tidegate import detour
from tidegate.background import OF_THE_PARENT, at_exit, engine
from tidegate.configuration import Options, Where, resolve
from tidegate.errors import MQTTConnectionError, MQTTError, NotConnectedError, UnsupportedQoSWarning
from tidegate.formatters import Formatter, JSONFormatter
from tidegate.hooks import Hooked, Hooks
from tidegate.profiles import is_aws_iot
from tidegate.sharing import SharedTransport
from tidegate.transports.direct import DirectTransport
from tidegate.transports.transport import SessionTransport, Transport

T = TypeVar("T")

SETTLE_SECONDS: Final = 1.0


class AsyncClient(Hooked):
    """An asynchronous client: made anywhere, used on one event loop.

    Clients of one process that name the same client identifier share one connection.

    Args:
        url: a broker's or a bridge's URL; else ``configure``, ``TIDEGATE_URL``, ``mqtt://localhost:1883``.
        host: the broker's host; wins over the URL.
        port: the broker's TCP port.
        username: the broker's user name.
        password: the broker's password.
        client_id: the client identifier (MQTT 5 §3.1.3.1); made up where it is left out.
        tls: an ``ssl.SSLContext``; a ``Bundle`` or the path of one (a directory, a ZIP, a file); a mapping of
            files (``ca_certs``, ``certfile``, ``keyfile`` …); or True. Else ``TIDEGATE_TLS``, a path.
        token: a bridge's bearer token, or a function or coroutine function that gives one for each request,
            and another where the bridge refuses it; else ``TIDEGATE_TOKEN``.
        formatter: what writes and reads payloads; JSON where it is left out.
        connect: what opens broker connections, for a test: ``MemoryBroker().connect``.

    Raises:
        ConfigurationError: the options cannot be used together.
        TLSError: a certificate file cannot be used.
    """

    _transport: Transport
    _session_transport: SessionTransport | None

    def __init__(self, url: str | None = None, **where: Unpack[Where]) -> None:
        self._options = options = resolve(Options(url=url, **where))
        self.formatter: Formatter = options.formatter or JSONFormatter()
        self._use(detour.make_transport(options))
        self._hooked: weakref.ref[Hooked] = weakref.ref(self)
        self._has_thread = False
        self._hooks: Hooks | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = 0
        self._is_closed = False
        self._closing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_disconnect: list[Callable[[], None]] = []
        self._guard: AsyncGenerator[None, None] | None = None
        detour.register(self)

    async def connect(self) -> None:
        """Connect now, instead of with the first call; harmless where there is a connection.

        Raises:
            MQTTError: why there is none. The client goes on trying in the background, and the call may be
                repeated.
        """
        await self._told(self._open().connect())

    async def disconnect(self) -> None:
        """Finish what is in flight and disconnect; a second call does nothing."""
        if self._loop is not None and self._forks != engine.forks:
            return  # a copy in a child process; the connection is the parent's
        if self._closing is None:
            self._is_closed = True
            self._closing = asyncio.create_task(self._close(), name="tidegate disconnect")
        if self._closing.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(self._closing)  # whoever stops waiting does not stop it

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        try:
            await self._transport.close()
        finally:
            if self._hooks is not None:
                self._hooks.end()
            for call in self._at_disconnect:
                call()

    def share_connection(self, other: AsyncClient) -> None:
        """Use the connection of another client with the same options; before the first call of either."""
        self._transport = other._transport
        self._session_transport = other._session_transport

    def lend_hooks(self, client: Hooked) -> None:
        """Call the hooks of a blocking client, in a thread, instead of this one's own."""
        self._hooked = weakref.ref(client)
        self._has_thread = True

    def possible_qos(self, qos: int) -> int:
        """The QoS to use: 1 in place of 2 at AWS IoT, which never answers QoS 2, with a warning."""
        if qos == 2 and self.is_on_aws_iot:
            warn_of_qos_2()
            return 1
        return qos

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

    # For ``tidegate.detour``.

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the client is used on, once it is."""
        return self._loop

    def can_move(self, here: asyncio.AbstractEventLoop | None) -> bool:
        """Whether the client may go elsewhere, as a thread asks that runs the loop ``here``."""
        if self._is_closed or self._options.connect is not None:
            return False
        loop = self._loop
        return loop is None or (self._forks == engine.forks and loop.is_running() and loop is not here)

    async def leave(self) -> None:
        """Disconnect, and keep in mind what is followed."""
        for task in list(self._tasks):
            task.cancel()
        await self._transport.close()
        if self._hooks is not None:
            self._hooks.end()

    def take_transport(self, made: dict[Transport, Transport]) -> bool:
        """Take a new transport, or the one that a client with the same old one has taken.

        Returns:
            Whether there is one: the options of a client that was made on a detour may be good there alone.
        """
        old = self._transport
        try:
            self._use(made.get(old) or detour.make_transport(self._options))
        except MQTTError:
            return False
        made[old] = self._transport
        return True

    async def arrive(self) -> None:
        """Begin at the new place, after ``take_transport``."""
        if self._guard is not None:
            await self._guard.aclose()
            self._guard_transport()
        if self._hooks is not None and self._session_transport is not None:
            self._session_transport.watch(self._hooks.changed)

    async def settled(self) -> None:
        """Wait for what was begun in the background, for a second at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_SECONDS)

    def _use(self, transport: Transport) -> None:
        self.is_on_aws_iot = isinstance(transport, DirectTransport) and is_aws_iot(transport.options.host)
        if isinstance(transport, DirectTransport) and transport.options.client_id:
            told = replace(self._options, connect=detour.opener(self._options))
            transport = SharedTransport(transport, told.connection_key(transport.options))
        self._transport = transport
        self._session_transport = transport if isinstance(transport, SessionTransport) else None

    def _open(self) -> Transport:
        if self._is_closed:
            raise NotConnectedError("the client was disconnected; make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._begin(loop)
        elif self._forks != engine.forks:
            raise NotConnectedError(OF_THE_PARENT)
        elif self._loop is not loop:
            raise RuntimeError("the client is used on two event loops; make one for each")
        return self._transport

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first call: from now on the client belongs to this loop, and its hooks are called."""
        self._loop = loop
        self._forks = engine.forks
        if engine.is_loop(loop):
            _on_engine.add(self)
        else:
            self._guard_transport()
        hooked = self._hooked()
        if hooked is not None:
            self._hooks = Hooks(hooked, None if self._has_thread else loop)
            if self._session_transport is not None:
                self._session_transport.watch(self._hooks.changed)

    def _guard_transport(self) -> None:
        """Have the transport closed when the loop ends."""
        self._guard = _until_the_loop_ends(self._transport)
        with contextlib.suppress(StopIteration):
            self._guard.__anext__().send(None)  # up to its ``yield``

    async def _told(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call, and tell the hooks what it says about the connection where nothing else does."""
        if self._session_transport is not None or self._hooks is None:
            return await call
        try:
            outcome = await call
        except MQTTConnectionError as error:
            self._hooks.failed(error)
            raise
        self._hooks.connected()
        return outcome


async def _until_the_loop_ends(transport: Transport) -> AsyncGenerator[None, None]:
    """Close what nobody closed: a loop ends its generators when it ends, and one that goes out of use too."""
    try:
        yield
    finally:
        await transport.close()


def warn_of_qos_2() -> None:
    """Warn that QoS 1 is used instead, at the line outside the SDK that asked for QoS 2."""
    frame: FrameType | None = sys._getframe()
    level = 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tidegate."):
        frame = frame.f_back
        level += 1
    text = "AWS IoT never acknowledges QoS 2; QoS 1 is used instead"
    warnings.warn(text, UnsupportedQoSWarning, stacklevel=level + 1)


_on_engine: Final[weakref.WeakSet[AsyncClient]] = weakref.WeakSet()
"""The clients that use the engine's loop, to disconnect them when the program ends."""


@at_exit
async def disconnect_at_exit() -> None:
    """Finish what is in flight and say goodbye to brokers."""
    await asyncio.gather(*(client.disconnect() for client in list(_on_engine)), return_exceptions=True)
