"""CloudEvents in HTTP: ``ce-…`` headers in both directions, and bodies in structured mode.

What an event is says ``app.publishing.cloud_events``; here is how HTTP carries it (HTTP binding §3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import orjson

from app.api.input.percent import percent_decode, percent_encode
from app.api.output.refusals import malformed_body
from app.problems import ProblemError, ProblemType, json_pointer
from app.publishing.cloud_events import (
    BATCH,
    STRUCTURED,
    CloudEventError,
    binary_attributes,
    check_attributes,
    check_structured,
    media_type,
)
from tidegate.message import Message
from tidegate.strings import why_not_a_string

PREFIX: Final = "ce-"
EVENT_HEADERS: Final = (
    "ce-specversion",
    "ce-id",
    "ce-source",
    "ce-type",
    "ce-subject",
    "ce-time",
    "ce-dataschema",
)
"""Those that the specification defines; an extension may have any name behind ``ce-``."""

_SAFE: Final = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_quoted: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"').fullmatch
_escaped: Final = re.compile(rb"\\(.)")


def is_structured(content_type: str) -> bool:
    """Whether a body is an event in structured mode.

    Raises:
        ProblemError: UNSUPPORTED_MEDIA_TYPE where it is several events at once.
    """
    kind = media_type(content_type)
    if kind == BATCH:
        raise ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            f"{BATCH} is several events, and a publish is one message; nothing was sent",
            field="Content-Type",
            hint=f"send each event by itself, as {STRUCTURED}",
        )
    return kind == STRUCTURED


def require_structured(body: bytes) -> None:
    """Check a body in structured mode.

    Raises:
        ProblemError: MALFORMED_BODY where it is not JSON, INVALID_CLOUD_EVENT where it is no event.
    """
    try:
        content = orjson.loads(body)
    except ValueError as error:
        raise malformed_body(str(error)) from None
    try:
        check_structured(content)
    except CloudEventError as error:
        field = json_pointer([error.attribute]) if error.attribute else ""
        raise ProblemError(
            ProblemType.INVALID_CLOUD_EVENT, f"{error}; nothing was sent", field=field
        ) from None


def read_event_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """The attributes that ``ce-…`` headers hold, in their order, checked.

    Raises:
        ProblemError: INVALID_HEADER where one cannot be read, INVALID_CLOUD_EVENT where they are no event's.
    """
    attributes: dict[str, str] = {}
    for raw_name, raw_value in headers:
        header = raw_name.decode("latin-1")
        name = header.removeprefix(PREFIX)
        if name in attributes:
            raise ProblemError(ProblemType.INVALID_HEADER, f"{header} is there twice", field=header)
        attributes[name] = _value(header, raw_value)
    if "datacontenttype" in attributes:
        raise ProblemError(
            ProblemType.INVALID_CLOUD_EVENT,
            "ce-datacontenttype: in binary mode the Content-Type says it; nothing was sent",
            field="ce-datacontenttype",
            hint="write it into Content-Type",
        )
    try:
        check_attributes(attributes)
    except CloudEventError as error:
        raise ProblemError(
            ProblemType.INVALID_CLOUD_EVENT,
            f"{PREFIX}{error}; nothing was sent",
            field=f"{PREFIX}{error.attribute}",
            hint=f"an event needs the headers {', '.join(EVENT_HEADERS[:4])}",
        ) from None
    return tuple(attributes.items())


def event_headers(message: Message) -> list[tuple[bytes, bytes]]:
    """The attributes of a received message as ``ce-…`` headers; empty where it is no event in binary mode."""
    attributes = binary_attributes(message)
    if attributes is None:
        return []
    return [
        (f"{PREFIX}{name}".encode("ascii"), percent_encode(value, safe=_SAFE))
        for name, value in attributes.items()
    ]


def _value(header: str, raw: bytes) -> str:
    """A value, unescaped and percent-decoded once (HTTP binding §3.1.3.2)."""
    quoted = _quoted(raw)
    if quoted is not None:
        raw = _escaped.sub(rb"\1", quoted[1])
    text = percent_decode(raw, field=header, kind=ProblemType.INVALID_HEADER)
    reason = why_not_a_string(text)
    if reason is not None:
        raise ProblemError(ProblemType.INVALID_HEADER, f"{header}: {reason}", field=header)
    return text
