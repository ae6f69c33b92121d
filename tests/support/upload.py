"""A request whose body is sent piece by piece, in chunks, while its answer may come already."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from tests.support.ports import LOOPBACK

SECONDS: Final = 20.0


class Upload:
    """One ``POST /v1/publish/batch`` with lines; a context manager that cuts the connection at its end.

    Args:
        port: the bridge's.
        accept: what the answer shall be.
        token: what ``Authorization: Bearer`` carries; none where it is empty.
        receive_bytes: the kernel's buffer for what is not read; as it is where it is left out.

    Attributes:
        received: all that came so far.
    """

    def __init__(
        self, port: int, *, accept: str = "*/*", receive_bytes: int | None = None, token: str = ""
    ) -> None:
        self.received = b""
        self._socket = socket.socket()
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(SECONDS)
        self._socket.connect((LOOPBACK, port))
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            "POST /v1/publish/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n"
            f"Accept: {accept}\r\n{authorization}Transfer-Encoding: chunked\r\n\r\n"
        )
        self._socket.sendall(head.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut the connection."""
        self._socket.close()

    def send(self, *messages: dict[str, Any] | bytes) -> None:
        """Send lines; what is bytes goes as it is."""
        self._socket.sendall(chunk(*messages))

    def send_raw(self, piece: bytes) -> None:
        """Send what is a chunk, or a part of one."""
        self._socket.sendall(piece)

    def send_until_full(self, piece: bytes, *, quiet_seconds: float) -> int:
        """Send the same bytes again and again until none are taken for so long; gives how many were."""
        self._socket.settimeout(quiet_seconds)
        sent = 0
        try:
            while True:
                sent += self._socket.send(piece[sent % len(piece) :])
        except TimeoutError:
            return sent
        finally:
            self._socket.settimeout(SECONDS)

    def send_rest(self, piece: bytes, sent: int) -> None:
        """Complete the piece that was begun."""
        if sent % len(piece):
            self._socket.sendall(piece[sent % len(piece) :])

    def end(self) -> None:
        """The body is over."""
        self._socket.sendall(b"0\r\n\r\n")

    def read_until(self, holds: Callable[[], bool]) -> None:
        """Read until something holds; raises AssertionError where the answer is over or it takes too long."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"it did not come about: {self.received[-500:]!r}"
            part = self._socket.recv(65_536)
            assert part, f"the connection is over: {self.received[-500:]!r}"
            self.received += part

    def read_to_end(self) -> None:
        """Read the whole answer, up to the last chunk of it or the end of its length."""
        self.read_until(lambda: b"\r\n\r\n" in self.received and self._is_whole())

    def read_to_close(self) -> None:
        """Read until the bridge closes the connection; raises TimeoutError where it does not."""
        while part := self._socket.recv(65_536):
            self.received += part

    @property
    def status(self) -> int:
        """The answer's status."""
        return int(self.received.split(b" ", 2)[1])

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The JSON objects that have come, a line each."""
        lines = self.received.partition(b"\r\n\r\n")[2].split(b"\n")
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def _is_whole(self) -> bool:
        head, _, body = self.received.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            return body.endswith(b"0\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return len(body) >= length


def chunk(*messages: dict[str, Any] | bytes) -> bytes:
    """Lines as one chunk of a body (RFC 9112 §7.1)."""
    data = b"".join(
        each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in messages
    )
    return b"%x\r\n%b\r\n" % (len(data), data)
