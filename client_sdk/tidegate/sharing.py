"""One connection for all clients of the process that name the same client identifier.

A broker closes the older of two connections under one client identifier (MQTT 5 §3.1.4), so a publisher and a
subscriber with the same options would throw each other off for ever.

Rules:

1. A connection with a client identifier of the user's lives on the SDK's engine, whatever loop its clients
   are on; calls from other loops hop there.
2. The first call of a client joins it to the connection, and ``close`` leaves it; the last closes it.
3. Clients that name one identifier at one broker with different options cannot both be served: that is an
   error of the second's first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Final, TypeVar

from tidegate.background import at_fork_in_child, engine
from tidegate.errors import ConfigurationError
from tidegate.message import Message
from tidegate.session import StateChange
from tidegate.transports.direct import DirectTransport
from tidegate.transports.transport import Receive

T = TypeVar("T")


class _Kept:
    """A connection that is in use."""

    def __init__(self, transport: DirectTransport, options: tuple[object, ...]) -> None:
        self.transport = transport
        self.options = options
        self.users = 0


_kept: Final[dict[tuple[object, ...], _Kept]] = {}
"""The connections in use; touched on the engine's loop alone."""

_of_parents: Final[list[_Kept]] = []  # for why they are kept see BackgroundLoop.forget


@at_fork_in_child
def _forget() -> None:
    """In a child process: the connections are the parent's."""
    _of_parents.extend(_kept.values())
    _kept.clear()


class SharedTransport:
    """One client's share of a connection.

    Args:
        spare: a transport that was made of the client's options and not used; it becomes the connection where
            there is none yet.
        options: what the client was told; what tells apart clients that cannot share.
    """

    def __init__(self, spare: DirectTransport, options: tuple[object, ...]) -> None:
        broker = spare.options
        self._identity = (broker.host, broker.port, broker.transport, broker.path, broker.client_id)
        self._spare = spare
        self._options = options
        self._joined: _Kept | None = None
        self._received: dict[Receive, None] = {}
        self._told: list[Callable[[StateChange], None]] = []

    async def connect(self) -> None:
        """Connect, or prove the connection."""
        await _on_engine(self._connect)

    async def publish(self, message: Message, *, timeout_seconds: float | None = None) -> int:
        """Publish over the connection."""
        return await _on_engine(lambda: self._join().publish(message, timeout_seconds=timeout_seconds))

    async def subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        """Subscribe over the connection; ``receive`` is called on the engine's loop."""
        await _on_engine(lambda: self._subscribe(filters, receive))

    async def unsubscribe(self, receive: Receive) -> None:
        """End one subscription."""
        await _on_engine(lambda: self._unsubscribe(receive))

    async def close(self) -> None:
        """Leave the connection; the last one closes it."""
        await _on_engine(self._leave)

    def watch(self, tell: Callable[[StateChange], None]) -> None:
        """Be told of the connection's states, on the engine's loop, from the first call on."""
        self._told.append(tell)
        if self._joined is not None:
            self._joined.transport.watch(tell)

    @property
    def broker(self) -> Hashable:
        """``DirectTransport.broker``."""
        return self._spare.broker

    def has_properties(self) -> bool:
        """``DirectTransport.has_properties``."""
        return self._joined is None or self._joined.transport.has_properties()

    def takes_unwaited(self, message: Message) -> bool:
        """``DirectTransport.takes_unwaited``."""
        return self._joined is not None and self._joined.transport.takes_unwaited(message)

    def submit(self, message: Message) -> asyncio.Future[int]:
        """``DirectTransport.submit``; on the engine's loop."""
        return self._join().submit(message)

    def _join(self) -> DirectTransport:
        if self._joined is None:
            found = _kept.setdefault(self._identity, _Kept(self._spare, self._options))
            if found.options != self._options:
                raise ConfigurationError(
                    f"client_id={self._identity[-1]!r} is in use in this process with other options; the "
                    "broker would throw one of the two off: give each its own client_id, or the same options"
                )
            self._joined = found
            found.users += 1
            for tell in self._told:
                found.transport.watch(tell)
        return self._joined.transport

    async def _connect(self) -> None:
        await self._join().connect()

    async def _subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        await self._join().subscribe(filters, receive)
        self._received[receive] = None

    async def _unsubscribe(self, receive: Receive) -> None:
        if receive in self._received:
            del self._received[receive]
            await self._join().unsubscribe(receive)

    async def _leave(self) -> None:
        joined, self._joined = self._joined, None
        if joined is None:
            return
        joined.users -= 1
        for tell in self._told:
            joined.transport.unwatch(tell)
        if joined.users == 0:
            if _kept.get(self._identity) is joined:
                del _kept[self._identity]
            await joined.transport.close()
            return
        received, self._received = self._received, {}
        for receive in received:
            await joined.transport.unsubscribe(receive)


async def _on_engine(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if asyncio.get_running_loop() is engine.loop:
        return await call()
    return await asyncio.wrap_future(engine.submit(_called(call)))


async def _called(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Call on the loop that this runs on."""
    return await call()
