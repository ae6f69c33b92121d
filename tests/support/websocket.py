"""A client of ``/v1/ws`` over a plain socket, read only when a test says so.

It has no thread: nothing is read between two calls, so a client that stops reading is made by not calling,
and every wait is bounded. The protocol itself (RFC 6455) is that of the package ``websockets``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from tests.support.ports import LOOPBACK

SECONDS: Final = 15.0
"""How long anything is waited for."""

PIECE_BYTES: Final = 65_536
SUBPROTOCOL: Final = "tidegate.v1"

Id = int | str


class SocketClient:
    """One WebSocket to a bridge; a context manager that closes it.

    Args:
        port: the bridge's port on 127.0.0.1.
        path: the path, with its query.
        subprotocols: what is offered.
        origin: the value of ``Origin``; none where it is empty.
        headers: more headers of the handshake.
        receive_buffer_bytes: a small receive buffer of the kernel, for a client that stops reading.
        is_open: insist that the bridge accepts.

    Attributes:
        answer: the bridge's answer to the handshake.
        frames: what came so far, each read as JSON.
        texts: the same, as it came.
        is_closed: the connection is over, properly or not.
        pings: how many came so far; each was answered.
    """

    def __init__(
        self,
        port: int,
        *,
        path: str = "/v1/ws",
        subprotocols: Sequence[str] = (SUBPROTOCOL,),
        origin: str = "",
        headers: Mapping[str, str] | None = None,
        receive_buffer_bytes: int | None = None,
        is_open: bool = True,
    ) -> None:
        self.answer: Response | None = None
        self.frames: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.is_closed = False
        self.pings = 0
        self._ids = itertools.count(1)
        self._unsent = b""
        self._protocol = ClientProtocol(
            parse_uri(f"ws://{LOOPBACK}:{port}{path}"),
            origin=Origin(origin) if origin else None,
            subprotocols=[Subprotocol(each) for each in subprotocols] or None,
            max_size=None,
        )
        request = self._protocol.connect()
        request.headers.update(headers or {})
        self._protocol.send_request(request)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(SECONDS)
        self._socket.connect((LOOPBACK, port))
        self._write()
        self.read_until(lambda: self.answer is not None)
        if is_open:
            assert self.status == 101, (self.status, self.problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    # The handshake.

    @property
    def status(self) -> int:
        """The HTTP status of the answer to the handshake."""
        assert self.answer is not None
        return self.answer.status_code

    @property
    def problem(self) -> Any:
        """The body of a refusal, read as JSON."""
        assert self.answer is not None
        return json.loads(self.answer.body or b"null")

    @property
    def subprotocol(self) -> str | None:
        """What the bridge chose."""
        return self._protocol.subprotocol

    # What is asked.

    def send(self, **members: Any) -> Id:
        """Send a frame, with an id of its own where none is given; the id."""
        members.setdefault("id", next(self._ids))
        self.send_text(json.dumps(members))
        frame_id: Id = members["id"]
        return frame_id

    def send_text(self, *texts: str) -> None:
        """Send text frames as they are, in one write."""
        for text in texts:
            self._protocol.send_text(text.encode("utf-8", "surrogatepass"))
        self._write()

    def send_fragment(self, text: str, *, is_first: bool = False, times: int = 1) -> None:
        """Send a fragment of a message that does not end with it, so many times in one write."""
        for number in range(times):
            send = self._protocol.send_text if is_first and not number else self._protocol.send_continuation
            send(text.encode(), fin=False)
        self._write()

    def send_last(self, text: str) -> None:
        """Send the last fragment of a message."""
        self._protocol.send_continuation(text.encode(), fin=True)
        self._write()

    def send_pings(self, content: bytes, times: int) -> None:
        """Send a ping so many times, and read nothing meanwhile."""
        self._protocol.send_ping(content)
        self._socket.sendall(b"".join(self._protocol.data_to_send()) * times)

    def send_bytes(self, content: bytes) -> None:
        """Send a binary frame."""
        self._protocol.send_binary(content)
        self._write()

    def send_until_full(self, texts: Iterable[str], *, quiet_seconds: float) -> int:
        """Send text frames, and read nothing, until the bridge takes nothing for a while.

        What it did not take of the last one leaves with the next reads. A connection that is over takes
        nothing either.

        Returns:
            How many it is.
        """
        for count, text in enumerate(texts, start=1):
            self._protocol.send_text(text.encode())
            self._unsent += b"".join(self._protocol.data_to_send())
            while self._unsent:
                if not select.select([], [self._socket], [], quiet_seconds)[1]:
                    return count
                try:
                    self._unsent = self._unsent[self._socket.send(self._unsent) :]
                except ConnectionError:
                    return count
        raise AssertionError("the bridge took everything")

    def say_goodbye(self, *texts: str) -> None:
        """Send text frames and the close frame, all in one write."""
        for text in texts:
            self._protocol.send_text(text.encode())
        self._protocol.send_close(1000)
        self._write()

    def ask(self, op: str, **members: Any) -> dict[str, Any]:
        """Send a frame and read until its answer has come; the answer."""
        seen = len(self.frames)
        frame_id = self.send(op=op, **members)
        return self.answer_to(frame_id, after=seen)

    def answer_to(self, frame_id: Id | None, *, after: int = 0) -> dict[str, Any]:
        """Read until a frame is answered; the answer.

        Args:
            frame_id: its id; None for an answer to a frame that has none.
            after: how many of the frames so far do not count.
        """

        def found() -> list[dict[str, Any]]:
            answers = (each for each in self.frames[after:] if each["op"] in {"ack", "error"})
            return [each for each in answers if each["id"] == frame_id]

        self.read_until(lambda: bool(found()))
        return found()[0]

    def subscribe(self, *topics: str, **options: Any) -> Id:
        """Subscribe, and insist that it was granted; the subscription."""
        answer = self.ask("subscribe", topics=list(topics), **options)
        assert answer["op"] == "ack", answer
        subscription: Id = answer["subscription"]
        return subscription

    def publish(self, topic: str, payload: Any, **members: Any) -> dict[str, Any]:
        """Publish, and insist that it was taken; the answer."""
        answer = self.ask("publish", topic=topic, payload=payload, **members)
        assert answer["op"] == "ack", answer
        return answer

    def refusal(self, op: str, **members: Any) -> dict[str, Any]:
        """Send a frame, and insist that it is refused; the problem."""
        answer = self.ask(op, **members)
        assert answer["op"] == "error", answer
        problem: dict[str, Any] = answer["problem"]
        return problem

    # What came.

    def messages(self, subscription: Id) -> list[dict[str, Any]]:
        """The messages of a subscription so far."""
        return [
            each for each in self.frames if each["op"] == "message" and each["subscription"] == subscription
        ]

    def payloads(self, subscription: Id) -> list[Any]:
        """Their payloads."""
        return [each["payload"] for each in self.messages(subscription)]

    def named(self, op: str) -> list[dict[str, Any]]:
        """The frames of this op so far, without it."""
        return [
            {name: value for name, value in each.items() if name != "op"}
            for each in self.frames
            if each["op"] == op
        ]

    def read_messages(self, subscription: Id, count: int) -> list[Any]:
        """Read until a subscription has had this many messages; their payloads."""
        self.read_until(lambda: len(self.messages(subscription)) >= count)
        return self.payloads(subscription)

    def read_to_payload(self, subscription: Id, payload: Any) -> list[Any]:
        """Read until a subscription has had a message with this payload; all its payloads."""
        self.read_until(lambda: payload in self.payloads(subscription))
        return self.payloads(subscription)

    def read_until(self, holds: Callable[[], bool]) -> None:
        """Read until something holds; raises AssertionError where the socket is over or it takes too long."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert not self.is_closed, f"the WebSocket is over: {self.texts[-20:]}"
            assert time.monotonic() < deadline, f"it did not come about: {self.texts[-20:]}"
            self.read()

    @property
    def close_reason(self) -> str | None:
        """The reason that the bridge closed it with."""
        return self._protocol.close_reason

    def read_to_end(self) -> int | None:
        """Read until the connection is over; the status that the bridge closed it with, if it said one."""
        self.read_until(lambda: self.is_closed)
        return self._protocol.close_code if self._protocol.close_rcvd is not None else None

    def read(self) -> None:
        """Take in what comes next, and answer pings and a close; waits for it."""
        try:
            received = self._socket.recv(PIECE_BYTES)
        except ConnectionResetError:
            received = b""
        if received:
            self._protocol.receive_data(received)
        else:
            self.is_closed = True
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.answer = event
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                text = bytes(event.data).decode()
                self.texts.append(text)
                self.frames.append(json.loads(text))
            elif isinstance(event, Frame) and event.opcode is Opcode.PING:
                self.pings += 1
        self._unsent += b"".join(self._protocol.data_to_send())
        if not self.is_closed and self._unsent and select.select([], [self._socket], [], 0)[1]:
            with contextlib.suppress(ConnectionError):  # what is said to a bridge that has gone is lost
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    # The end.

    def close(self) -> None:
        """Close as RFC 6455 asks, and wait for the bridge to do the same."""
        self.say_goodbye()
        self.read_to_end()

    def cut(self) -> None:
        """Reset the connection (RST), as a network does that forgets it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _write(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._socket.sendall(unsent + b"".join(self._protocol.data_to_send()))
