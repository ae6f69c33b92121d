"""The forms in which a stream leaves: Server-Sent Events, or one JSON object a line; whole or payload alone.

A message is encoded once for each QoS that is told, and kept with the event; a run of events is joined once
for all listeners that have just the same ones pending. The SSE event name of a message stays ``message`` and
its topic stays inside the JSON: a topic is somebody else's input, and never becomes a field of the stream
(WHATWG HTML §9.2.6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import orjson
from sse_starlette.event import ServerSentEvent

from app.hub.event import ControlEvent, Event, encode_payload, envelope
from app.hub.position import Position

RETRY_MILLISECONDS: Final = 2000
"""How long a browser waits before it connects again."""

EVENT_STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"


class Form(ABC):
    """One form; there is one object of each in an application.

    Attributes:
        media_type: what ``Content-Type`` says.
        heartbeat: what is written when nothing else is.
        has_controls: control events can be told from messages.
    """

    media_type: str
    heartbeat: bytes
    has_controls = True

    def __init__(self) -> None:
        self._joined: Sequence[Event | ControlEvent] = ()
        self._joined_qos = 0
        self._joined_bytes = b""

    def encode(self, events: Sequence[Event | ControlEvent], qos: int, epoch: str, *, marked: bool) -> bytes:
        """Events in a row, as they are written.

        Args:
            events: what to write.
            qos: the QoS that the listener asked for; the told one is not higher.
            epoch: the run of the bridge, for ids of control events.
            marked: the ids tell that retained messages are still on their way.
        """
        if marked:
            return b"".join([self._encode(event, qos, epoch, marked=True) for event in events])
        if qos != self._joined_qos or events != self._joined:
            self._joined_bytes = b"".join([self._encode(each, qos, epoch, marked=False) for each in events])
            self._joined = events
            self._joined_qos = qos
        return self._joined_bytes

    def opening(self, position: Position | None, hints: Sequence[str]) -> bytes:
        """What a stream begins with.

        Args:
            position: where the client stands, unless it knows.
            hints: remarks to the reader.
        """
        del position, hints
        return b""

    def standing(self, position: Position) -> bytes:
        """Tell a client where it stands, if the form can without an event."""
        del position
        return b""

    def _encode(self, event: Event | ControlEvent, qos: int, epoch: str, *, marked: bool) -> bytes:
        if isinstance(event, ControlEvent):
            return self.control(event, epoch, marked=marked)
        told = min(qos, event.message.qos)
        marked = marked or event.message.retain
        key = told * 2 + marked
        encoded = event.encoded.get((self, key))
        if encoded is None:
            position = Position(event.epoch, event.sequence, marked)
            encoded = event.encoded[self, key] = self.message(event, told, position)
        return encoded

    @abstractmethod
    def message(self, event: Event, qos: int, position: Position) -> bytes:
        """A message, as it is written."""

    @abstractmethod
    def control(self, event: ControlEvent, epoch: str, *, marked: bool) -> bytes:
        """A control event, as it is written."""


class EventStreamForm(Form):
    """Server-Sent Events (WHATWG HTML §9.2)."""

    media_type = f"{EVENT_STREAM}; charset=utf-8"
    heartbeat = b": heartbeat\n\n"

    def opening(self, position: Position | None, hints: Sequence[str]) -> bytes:
        """How long to wait before coming back, remarks as comments, and the id to come back with."""
        comments = [ServerSentEvent(comment=each, sep="\n").encode() for each in hints]
        retry = ServerSentEvent(retry=RETRY_MILLISECONDS, sep="\n").encode()
        return b"".join([retry, *comments, self.standing(position) if position is not None else b""])

    def standing(self, position: Position) -> bytes:
        """An id without data: a browser takes note, and tells its page nothing."""
        return b"id: %b\n\n" % str(position).encode()

    def message(self, event: Event, qos: int, position: Position) -> bytes:
        """The envelope."""
        return b"id: %b\ndata: %b\n\n" % (
            str(position).encode(),
            envelope(event.message, qos=qos, fault=event.fault),
        )

    def control(self, event: ControlEvent, epoch: str, *, marked: bool) -> bytes:
        """A named event, with an id where the client's standing changes."""
        position = str(Position(epoch, event.sequence, marked)) if event.sequence else None
        data = orjson.dumps(event.facts).decode()
        return ServerSentEvent(data, event=event.name, id=position, sep="\n").encode()


class RawEventStreamForm(EventStreamForm):
    """Server-Sent Events whose data is the payload alone."""

    def message(self, event: Event, qos: int, position: Position) -> bytes:
        """The payload as text, or in base64 where it is none.

        A line break of whatever kind is read as U+000A at the other end (WHATWG HTML §9.2.6).
        """
        del qos
        payload = event.message.payload
        try:
            text = payload.decode("utf-8")
        except UnicodeDecodeError:
            text = orjson.loads(encode_payload(payload)[0])
        return ServerSentEvent(text, id=str(position), sep="\n").encode()


class LinesForm(Form):
    """One JSON object a line (NDJSON)."""

    media_type = NDJSON
    heartbeat = b"\n"

    def message(self, event: Event, qos: int, position: Position) -> bytes:
        """The envelope with the id in front."""
        return b'{"id":"%b",%b\n' % (
            str(position).encode(),
            envelope(event.message, qos=qos, fault=event.fault)[1:],
        )

    def control(self, event: ControlEvent, epoch: str, *, marked: bool) -> bytes:
        """An object whose first member is ``event``."""
        facts = {"event": event.name}
        if event.sequence:
            facts["id"] = str(Position(epoch, event.sequence, marked))
        return orjson.dumps({**facts, **event.facts}) + b"\n"


class RawLinesForm(Form):
    """One payload a line, as JSON; nothing can stand between them, so a stream ends where something has
    to.
    """

    media_type = NDJSON
    heartbeat = b"\n"
    has_controls = False

    def message(self, event: Event, qos: int, position: Position) -> bytes:
        """The payload: JSON as it came, text as a string, the rest as a string in base64."""
        del qos, position
        return encode_payload(event.message.payload)[0] + b"\n"

    def control(self, event: ControlEvent, epoch: str, *, marked: bool) -> bytes:
        """Nothing."""
        del event, epoch, marked
        return b""
