"""A connection to a bridge that sends what a test says, byte for byte, and nothing else."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from tests.support.ports import LOOPBACK

SECONDS: Final = 20.0


class RawSocket:
    """A context manager that closes it.

    Args:
        port: the bridge's port on 127.0.0.1.
        sends: what is sent at once.

    Attributes:
        received: all that came so far.
    """

    def __init__(self, port: int, sends: bytes = b"") -> None:
        self.received = b""
        self._socket = socket.create_connection((LOOPBACK, port), timeout=SECONDS)
        if sends:
            self.send(sends)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, piece: bytes) -> None:
        """Send these bytes."""
        self._socket.sendall(piece)

    def send_to_refusal(self, piece: bytes, times: int) -> None:
        """Send the same again and again; a bridge that closes meanwhile is what is waited for."""
        try:
            for _ in range(times):
                self.send(piece)
        except ConnectionError:
            return

    def trickle(self, piece: bytes, *, pause_seconds: float, times: int) -> int:
        """Send a piece whenever nothing came for a moment; gives how often, up to so many times."""
        for sent in range(times):
            if select.select([self._socket], [], [], pause_seconds)[0]:
                return sent
            self.send(piece)
        return times

    def read_answer(self) -> None:
        """Read one answer with a length, to its end."""
        self._read_while(lambda: not self._has_answer())

    def read_until(self, mark: bytes, times: int = 1) -> None:
        """Read until these bytes came so many times, or the bridge closes."""
        self._read_while(lambda: self.received.count(mark) < times)

    def read_to_close(self) -> bytes:
        """Read until the bridge closes; raises TimeoutError where it does not. All that came."""
        self._read_while(lambda: True)
        return self.received

    @property
    def status(self) -> int:
        """The status of the first answer; 0 where none came."""
        return int(self.received.split(b" ", 2)[1]) if self.received else 0

    @property
    def head(self) -> str:
        """The head of the first answer, in lower case."""
        return self.received.partition(b"\r\n\r\n")[0].decode("latin-1").lower()

    @property
    def json(self) -> Any:
        """The body of the only answer, read as JSON."""
        return json.loads(self.received.partition(b"\r\n\r\n")[2])

    def _read_while(self, asked: Callable[[], bool]) -> None:
        while asked():
            try:
                part = self._socket.recv(65_536)
            except ConnectionResetError:
                return
            if not part:
                return
            self.received += part

    def _has_answer(self) -> bool:
        head, mark, body = self.received.partition(b"\r\n\r\n")
        if not mark:
            return False
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return len(body) >= length
