"""The forms in which a stream leaves: Server-Sent Events, or one JSON object a line; whole or payload alone.

A message is encoded once for each QoS that is told, in two parts, between which stands the end of the id: it
differs from stream to stream. A form keeps a bounded amount of what it encoded last. A run of events is
joined once for all listeners that have just the same ones pending, and follow the same filters. The SSE event
name of a message stays ``message`` and its topic stays inside the JSON: a topic is somebody else's input, and
never becomes a field of the stream (WHATWG HTML §9.2.6).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import orjson
from sse_starlette.event import ServerSentEvent

from app.hub.event import ControlEvent, Event, encode_payload, envelope
from app.hub.position import Epoch, Position, standing

RETRY_MILLISECONDS: Final = 2000
"""How long a browser waits before it connects again."""

EVENT_STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"

KEPT_BYTES: Final = 4 * 1024 * 1024
"""What a form keeps of what it encoded, before it throws all of it away and begins anew."""

Parts = tuple[bytes, bytes]
"""A message, as it is written: what comes before the end of its id, and what comes after."""


class Form(ABC):
    """One form; there is one object of each in an application.

    Attributes:
        media_type: what ``Content-Type`` says.
        heartbeat: what is written when nothing else is.
        has_controls: control events can be told from messages.
        has_ids: messages have ids.
    """

    media_type: str
    heartbeat: bytes
    has_controls = True
    has_ids = True

    def __init__(self) -> None:
        self._joined: Sequence[Event | ControlEvent] = ()
        self._joined_for = (0, "", False)
        self._joined_bytes = b""
        self._kept: tuple[dict[Event, Parts], ...] = ({}, {}, {})
        self._kept_bytes = 0

    def encode(
        self,
        events: Sequence[Event | ControlEvent],
        qos: int,
        epoch: Epoch,
        *,
        marked: bool,
        filters: str = "",
    ) -> bytes:
        """Events in a row, as they are written.

        Args:
            events: what to write.
            qos: the QoS that the listener asked for; the told one is not higher.
            epoch: the run of the bridge, for ids of control events.
            marked: the ids tell that retained messages are still on their way.
            filters: the digest of the listener's filters, for ids.
        """
        joined_for = (qos, filters, marked)
        if joined_for != self._joined_for or events != self._joined:
            self._joined_bytes = self._join(events, qos, epoch, filters, marked=marked)
            self._joined = events
            self._joined_for = joined_for
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

    def _join(
        self, events: Sequence[Event | ControlEvent], qos: int, epoch: Epoch, filters: str, *, marked: bool
    ) -> bytes:
        ending = b"-%b" % filters.encode() if self.has_ids else b""
        ending_marked = ending + b"-r" if self.has_ids else b""
        pieces: list[bytes] = []
        for event in events:
            if isinstance(event, ControlEvent):
                pieces.append(self.control(event, epoch, marked=marked, filters=filters))
                continue
            message = event.message
            told = min(qos, message.qos)
            before, after = self._kept[told].get(event) or self._keep(event, told)
            pieces += (before, ending_marked if marked or message.retain else ending, after)
        return b"".join(pieces)

    def _keep(self, event: Event, told: int) -> Parts:
        parts = self.message(event, told)
        cost = event.size + len(parts[0]) + len(parts[1])
        self._kept_bytes += cost
        if self._kept_bytes > KEPT_BYTES:
            for each in self._kept:
                each.clear()
            self._kept_bytes = cost
        self._kept[told][event] = parts
        return parts

    @abstractmethod
    def message(self, event: Event, qos: int) -> Parts:
        """A message, as it is written, without the end of its id."""

    @abstractmethod
    def control(self, event: ControlEvent, epoch: Epoch, *, marked: bool, filters: str = "") -> bytes:
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

    def message(self, event: Event, qos: int) -> Parts:
        """The envelope."""
        return b"id: %b" % where(event), b"\ndata: %b\n\n" % _envelope(event, qos)

    def control(self, event: ControlEvent, epoch: Epoch, *, marked: bool, filters: str = "") -> bytes:
        """A named event, with an id where the client's standing changes."""
        position = str(standing(epoch, event.sequence, filters, marked)) if event.sequence else None
        data = orjson.dumps(event.facts).decode()
        return ServerSentEvent(data, event=event.name, id=position, sep="\n").encode()


class RawEventStreamForm(EventStreamForm):
    """Server-Sent Events whose data is the payload alone."""

    def message(self, event: Event, qos: int) -> Parts:
        """The payload as text, or in base64 where it is none.

        A line break of whatever kind is read as U+000A at the other end (WHATWG HTML §9.2.6).
        """
        del qos
        payload = event.message.payload
        try:
            text = payload.decode("utf-8")
        except UnicodeDecodeError:
            text = orjson.loads(encode_payload(payload)[0])
        return b"id: %b" % where(event), b"\n" + ServerSentEvent(text, sep="\n").encode()


class LinesForm(Form):
    """One JSON object a line (NDJSON)."""

    media_type = NDJSON
    heartbeat = b"\n"

    def message(self, event: Event, qos: int) -> Parts:
        """The envelope with the id in front."""
        return b'{"id":"%b' % where(event), b'",%b\n' % _envelope(event, qos)[1:]

    def control(self, event: ControlEvent, epoch: Epoch, *, marked: bool, filters: str = "") -> bytes:
        """An object whose first member is ``event``."""
        facts = {"event": event.name}
        if event.sequence:
            facts["id"] = str(standing(epoch, event.sequence, filters, marked))
        return orjson.dumps({**facts, **event.facts}) + b"\n"


class RawLinesForm(Form):
    """One payload a line, as JSON; nothing can stand between them, so a stream ends where something has
    to.
    """

    media_type = NDJSON
    heartbeat = b"\n"
    has_controls = False
    has_ids = False

    def message(self, event: Event, qos: int) -> Parts:
        """The payload: JSON as it came, text as a string, the rest as a string in base64."""
        del qos
        return encode_payload(event.message.payload)[0], b"\n"

    def control(self, event: ControlEvent, epoch: Epoch, *, marked: bool, filters: str = "") -> bytes:
        """Nothing."""
        del event, epoch, marked, filters
        return b""


def _envelope(event: Event, qos: int) -> bytes:
    return envelope(event.message, qos=qos, fault=event.fault)


def where(event: Event) -> bytes:
    """The beginning of an event's id, which is the same on every stream."""
    return event.epoch.place(event.sequence)
