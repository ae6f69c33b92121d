"""The HTTP half of a pair: one stream of Server-Sent Events on a socket of its own, read without a thread.

The socket is read when there is something to read, in the turn of whoever waits; so a test knows exactly when
anything was seen.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from tests.support.ports import LOOPBACK

MARKERS: Final = "$marker/"
"""Where markers are published. A wildcard in a first level matches none of it (MQTT 5 §4.7.2), so that they
come by their own subscription alone."""

CONNECT_SECONDS: Final = 10.0
_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """A message as a client saw it; ``payload`` is its text."""

    topic: str
    payload: str
    qos: int
    retain: bool


class EventStream:
    """A listener.

    Args:
        port: the bridge's port on 127.0.0.1.
        filters: its topic filters; markers are followed beside them.
        qos: the highest QoS wanted.
        retained: whether retained messages are wanted on joining.
        earlier: the stream that this one goes on from, by its last event id; what was seen there counts here.

    Attributes:
        is_joined: whether the answer's head has come: the bridge holds all its filters.
        seen: the messages that came since ``take``.
        told: the control events so far, each as its name and data.
        marker: the last marker that came.
        last_event_id: the position, as EventSource keeps it (WHATWG HTML §9.2.6).
    """

    def __init__(
        self,
        port: int,
        filters: Sequence[str],
        *,
        qos: int,
        retained: bool,
        earlier: EventStream | None = None,
    ) -> None:
        self.is_joined = False
        self.seen: list[Seen] = [] if earlier is None else earlier.take()
        self.told: list[tuple[str, Any]] = []
        self.marker = ""
        self.last_event_id: str = "" if earlier is None else earlier.last_event_id
        self._ids: set[str] = set() if earlier is None else earlier._ids
        self._unread = b""
        self._text = b""
        self._fields: dict[bytes, bytes] = {}
        query = [("topic", each) for each in (*filters, MARKERS + "#")]
        query += [("qos", str(qos)), ("retained", "true" if retained else "false")]
        lines = [
            f"GET /v1/subscribe?{urlencode(query)} HTTP/1.1",
            "Host: 127.0.0.1",
            "Accept: text/event-stream",
        ]
        if earlier is not None:
            lines.append(f"Last-Event-ID: {self.last_event_id}")
        self._socket = socket.create_connection((LOOPBACK, port), timeout=CONNECT_SECONDS)
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The socket, to wait on."""
        return self._socket.fileno()

    def read(self) -> None:
        """Take in what the socket has; raises AssertionError where the bridge ended or refused the stream."""
        received = self._socket.recv(65_536)
        assert received, f"the bridge ended a stream; it had told {self.told}"
        self._unread += received
        if not self.is_joined:
            head, mark, rest = self._unread.partition(_END_OF_HEAD)
            if not mark:
                return
            assert head.startswith(b"HTTP/1.1 200 "), self._unread.decode()
            self.is_joined = True
            self._unread = rest
        self._join_chunks()
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            self._take_line(line)

    def take(self) -> list[Seen]:
        """What came since the last call."""
        seen, self.seen = self.seen, []
        return seen

    def close(self) -> None:
        """Leave without a word, as a closed tab does."""
        self._socket.close()

    def _join_chunks(self) -> None:
        """Undo the chunked transfer coding (RFC 9112 §7.1)."""
        while True:
            size, mark, rest = self._unread.partition(b"\r\n")
            if not mark or len(rest) < int(size, 16) + 2:
                return
            self._text += rest[: int(size, 16)]
            self._unread = rest[int(size, 16) + 2 :]

    def _take_line(self, line: bytes) -> None:
        if line:
            name, _, value = line.partition(b":")
            self._fields[name] = value.removeprefix(b" ")
            return
        fields, self._fields = self._fields, {}
        event_id = fields.get(b"id", b"").decode()
        self.last_event_id = event_id or self.last_event_id
        if b"data" not in fields:
            return
        event = json.loads(fields[b"data"])
        if b"event" in fields:
            self.told.append((fields[b"event"].decode(), event))
            return
        assert event_id, f"a message without an id: {event}"
        assert event_id not in self._ids, f"two events have the id {event_id}"
        self._ids.add(event_id)
        if event["topic"].startswith(MARKERS):
            self.marker = event["payload"]
        else:
            self.seen.append(Seen(event["topic"], str(event["payload"]), event["qos"], event["retain"]))
