"""A stream over a plain socket, read only when a test says so.

Nothing is read between two calls, so a reader that stops reading is made by not calling; the connection may
be cut as a network does it, and what came is kept to the byte.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode

from tests.support.ports import LOOPBACK

SECONDS: Final = 20.0
"""How long anything is waited for."""

PIECE_BYTES: Final = 65_536


class Told(NamedTuple):
    """One event as a client sees it; ``data`` is text as it came."""

    name: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        """The data read as JSON."""
        return json.loads(self.data)


class RawStream:
    """One request for a stream, and what came of it; a context manager that closes it.

    Args:
        port: the bridge's port on 127.0.0.1.
        filters: topic filters, for the query.
        accept: the value of ``Accept``.
        last_event_id: the value of the header ``Last-Event-ID``; none where it is empty.
        receive_buffer_bytes: a small receive buffer of the kernel, for a reader that stops reading.
        token: what ``Authorization: Bearer`` carries; none where it is empty.
        body: send this as JSON, with POST and no query.
        is_open: wait for the head of the answer, and insist on 200.
        parameters: more of the query.

    Attributes:
        status: the HTTP status; 0 as long as the head has not come.
        headers: of the answer, names in lower case.
        text: the body so far, without the marks of chunks.
        events: what came so far, from Server-Sent Events.
        lines: what came so far, from NDJSON: objects, and None for a heartbeat.
        last_event_id: where the client stands, as EventSource keeps it (WHATWG HTML §9.2.6).
        has_ended: the terminating chunk came.
        is_closed: the connection is over, properly or not.
    """

    def __init__(
        self,
        port: int,
        *filters: str,
        accept: str = "text/event-stream",
        last_event_id: str = "",
        token: str = "",
        receive_buffer_bytes: int | None = None,
        body: object = None,
        is_open: bool = True,
        **parameters: str | float,
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = bytearray()
        self.events: list[Told] = []
        self.lines: list[Any] = []
        self.last_event_id = last_event_id
        self.has_ended = False
        self.is_closed = False
        self._unread = b""
        self._unparsed = b""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(SECONDS)
        query = urlencode([*(("topic", each) for each in filters), *parameters.items()])
        content = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"GET /v1/subscribe?{query} HTTP/1.1" if body is None else "POST /v1/subscribe HTTP/1.1",
            "Host: 127.0.0.1",
            f"Accept: {accept}",
        ]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if last_event_id:
            lines.append(f"Last-Event-ID: {last_event_id}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        try:
            self._socket.connect((LOOPBACK, port))
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        except OSError:
            self._socket.close()
            raise
        if is_open:
            self.read_until(lambda: self.status != 0)
            assert self.status == 200, (self.status, self._unread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def messages(self) -> list[Told]:
        """The messages so far."""
        return [each for each in self.events if each.name == "message"]

    @property
    def payloads(self) -> list[Any]:
        """Their payloads, where they come in envelopes."""
        return [each.json["payload"] for each in self.messages]

    def named(self, name: str) -> list[Any]:
        """The data of each control event of this name so far."""
        return [each.json for each in self.events if each.name == name]

    def fileno(self) -> int:
        """The socket, to wait on."""
        return self._socket.fileno()

    def read(self) -> None:
        """Take in what comes next; waits for it."""
        try:
            received = self._socket.recv(PIECE_BYTES)
        except ConnectionResetError:
            received = b""
        if not received:
            self.is_closed = True
            return
        self._unread += received
        if self.status == 0:
            head, mark, rest = self._unread.partition(b"\r\n\r\n")
            if not mark:
                return
            first, *others = head.decode("latin-1").split("\r\n")
            self.status = int(first.split(" ")[1])
            pairs = (line.partition(": ")[::2] for line in others)
            self.headers = {name.lower(): value for name, value in pairs}
            self._unread = rest
        if self.headers.get("transfer-encoding") == "chunked":
            self._join_chunks()
            self._parse()

    def read_until(self, holds: Callable[[], bool]) -> None:
        """Read until something holds; raises AssertionError where the stream is over or it takes too long."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert not self.is_closed, f"the stream is over: {bytes(self.text[-2000:])!r}"
            assert time.monotonic() < deadline, f"it did not come about: {bytes(self.text[-2000:])!r}"
            self.read()

    def read_messages(self, count: int) -> list[Any]:
        """Read until this many messages have come; their payloads."""
        self.read_until(lambda: len(self.messages) >= count)
        return self.payloads

    def read_messages_count(self, count: int) -> None:
        """Read until this many messages have come, whatever is in them."""
        self.read_until(lambda: len(self.messages) >= count)

    def read_to_end(self) -> None:
        """Read until the connection or the body is over."""
        self.read_until(lambda: self.has_ended or self.is_closed)

    def cut(self) -> None:
        """Reset the connection (RST), as a network does that forgets it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _join_chunks(self) -> None:
        """Undo the chunked transfer coding (RFC 9112 §7.1)."""
        while not self.has_ended:
            size, mark, rest = self._unread.partition(b"\r\n")
            if not mark or len(rest) < int(size, 16) + 2:
                return
            length = int(size, 16)
            self.has_ended = length == 0
            self.text += rest[:length]
            self._unparsed += rest[:length]
            self._unread = rest[length + 2 :]

    def _parse(self) -> None:
        if self.headers["content-type"].startswith("application/x-ndjson"):
            *lines, self._unparsed = self._unparsed.split(b"\n")
            self.lines += [json.loads(line) if line else None for line in lines]
            return
        *blocks, self._unparsed = self._unparsed.split(b"\n\n")
        for block in blocks:
            self._take(block.decode().split("\n"))

    def _take(self, lines: list[str]) -> None:
        fields: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        self.last_event_id = fields.get("id", [self.last_event_id])[-1]
        if "data" in fields:
            name = fields.get("event", ["message"])[-1]
            self.events.append(Told(name, self.last_event_id, "\n".join(fields["data"])))
