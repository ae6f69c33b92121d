"""The forms of a stream in which each event is a CloudEvent in structured mode.

A message that is one comes out as it is, and any other is told as one (``app.publishing.cloud_events``). Its
place in the stream, for which Server-Sent Events have a field, is one attribute more of a line.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

import orjson

from app.api.stream.forms import EventStreamForm, LinesForm, Parts, where
from app.hub.event import ControlEvent, Event, time_text
from app.hub.position import Epoch, standing
from app.publishing.cloud_events import SPECVERSION, cloud_event, with_attribute

POSITION_ATTRIBUTE: Final = "tidegateid"
"""What to come back with, as ``last_event_id``."""

CONTROL_TYPE: Final = "io.tidegate."
"""What the type of an event about the stream itself begins with."""


def event_text(event: Event, qos: int, source: str) -> bytes:
    """A message as a CloudEvent; its id is the same for all who get it."""
    return cloud_event(event.message, where(event).decode(), source, qos=qos, fault=event.fault)


class CloudEventStreamForm(EventStreamForm):
    """Server-Sent Events whose data is a CloudEvent; those with a name are as in every stream.

    Args:
        source: the source of events that are made here.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def message(self, event: Event, qos: int) -> Parts:
        """The CloudEvent."""
        return b"id: %b" % where(event), b"\ndata: %b\n\n" % event_text(event, qos, self._source)


class CloudEventLinesForm(LinesForm):
    """One CloudEvent a line; what is to be told of the stream itself is one too.

    Args:
        source: the source of events that are made here.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def message(self, event: Event, qos: int) -> Parts:
        """The CloudEvent with its place."""
        text = event_text(event, qos, self._source)
        placed = with_attribute(text, POSITION_ATTRIBUTE, where(event).decode())
        return placed.removesuffix(b'"}'), b'"}\n'

    def control(self, event: ControlEvent, epoch: Epoch, *, marked: bool, filters: str = "") -> bytes:
        """A CloudEvent whose type ends in the event's name."""
        content = {
            "specversion": SPECVERSION,
            "id": secrets.token_hex(8),
            "source": self._source,
            "type": CONTROL_TYPE + event.name,
            "time": time_text(time.time()).decode(),
            "datacontenttype": "application/json",
            "data": event.facts,
        }
        if event.sequence:
            content[POSITION_ATTRIBUTE] = str(standing(epoch, event.sequence, filters, marked))
        return orjson.dumps(content) + b"\n"
