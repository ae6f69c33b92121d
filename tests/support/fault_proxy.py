"""A TCP proxy on loopback that makes the faults of a network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from tests.support.ports import LOOPBACK, ReservedPort

CHUNK_BYTES: Final = 65_536


class Fault(StrEnum):
    """What the proxy does with connections and bytes."""

    PASS = "pass"
    """Everything goes through at once."""
    BLACK_HOLE = "black hole"
    """Connections are accepted and stay open; no byte moves until the mode changes, then all held ones do."""
    REFUSE = "refuse"
    """Open connections are reset, and nothing listens."""
    RESET = "reset"
    """Open connections are reset, and so is each new one."""
    DELAY = "delay"
    """Each read is passed on after ``delay_seconds``, in order."""


class FaultProxy:
    """Forwards connections to one port of 127.0.0.1; an async context manager.

    Args:
        target_port: where connections go.
        delay_seconds: how late bytes are in the mode DELAY.
        host: the loopback address to listen at.
    """

    def __init__(self, target_port: int, *, delay_seconds: float = 0.1, host: str = LOOPBACK) -> None:
        self.host = host
        self.target_port = target_port
        self.delay_seconds = delay_seconds
        self.accepted = 0
        """How many connections were made to the proxy so far."""
        self._reserved = ReservedPort(host)
        self.port = self._reserved.number
        self._fault = Fault.PASS
        self._moves = asyncio.Event()
        self._moves.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def fault(self) -> Fault:
        """The mode of the moment."""
        return self._fault

    async def set(self, fault: Fault) -> None:
        """Change the mode; PASS heals."""
        self._fault = fault
        if fault is Fault.BLACK_HOLE:
            self._moves.clear()
        else:
            self._moves.set()
        if fault is Fault.REFUSE:
            await self._stop_listening()
        else:
            await self._listen()
        if fault in (Fault.REFUSE, Fault.RESET):
            self.reset_connections()

    def reset_connections(self) -> None:
        """Reset (RST) every open connection, on both sides; the mode stays."""
        for writer in tuple(self._writers):
            _reset(writer)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_listening()
        self.reset_connections()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reserved.close()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port)

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._fault in (Fault.RESET, Fault.REFUSE):
                _reset(writer)
                return
            await self._moves.wait()
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.target_port)
                self._writers.add(far_writer)
                try:
                    await asyncio.gather(
                        self._pump(reader, far_writer, lambda data: data),
                        self._pump(far_reader, writer, self._make_answer_filter()),
                    )
                finally:
                    self._writers.discard(far_writer)
                    far_writer.close()
        except asyncio.CancelledError:
            return  # only ``__aexit__`` cancels, and a cancelled handler would be logged by asyncio
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    def _make_answer_filter(self) -> Callable[[bytes], bytes]:
        """What a new connection does with the target's bytes, for a subclass that knows them."""
        return lambda data: data

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        let_through: Callable[[bytes], bytes],
    ) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if self._fault is Fault.DELAY:
                    await asyncio.sleep(self.delay_seconds)
                await self._moves.wait()
                writer.write(let_through(data))
                await writer.drain()
            await self._moves.wait()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
