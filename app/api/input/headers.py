"""HTTP headers and MQTT 5 properties: what stands for what, in both directions.

Rules:

1. Values of ``Mqtt-…`` headers are percent-encoded UTF-8: decoded once on the way in, encoded on the way out.
2. An ``Mqtt-…`` header that is unknown is refused with the nearest known name, so that no typo is silent.
3. Nothing with a control character reaches the broker: some brokers end the connection on it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from app.api.input.idempotency_key import (
    IDEMPOTENCY_KEY,
    read_idempotency_key,
    repeated_idempotency_key,
)
from app.api.input.percent import percent_decode, percent_encode
from app.problems import ProblemError, ProblemType, did_you_mean
from tidegate.errors import TopicError
from tidegate.message import Message, Properties
from tidegate.strings import MAX_EXPIRY_SECONDS, MAX_STRING_BYTES, why_not_a_string
from tidegate.topics import validate_topic

DEFAULT_CONTENT_TYPE: Final = b"application/octet-stream"
FORM_CONTENT_TYPE: Final = b"application/x-www-form-urlencoded"
"""What ``curl -d`` sends without being asked: it says nothing about the payload."""

USER_PROPERTY: Final = "Mqtt-User-Property"
CORRELATION_DATA: Final = "Mqtt-Correlation-Data"
MESSAGE_EXPIRY: Final = "Mqtt-Message-Expiry"
RESPONSE_TOPIC: Final = "Mqtt-Response-Topic"
PAYLOAD_FORMAT: Final = "Mqtt-Payload-Format"
REQUEST_HEADERS: Final = (USER_PROPERTY, CORRELATION_DATA, MESSAGE_EXPIRY, RESPONSE_TOPIC, PAYLOAD_FORMAT)
FAULT: Final = "Mqtt-Fault"
REPLIES_AWAITED: Final = "Mqtt-Replies-Awaited"
REPLIES_RECEIVED: Final = "Mqtt-Replies-Received"
ANSWER_HEADERS: Final = ("Mqtt-Topic", *REQUEST_HEADERS, FAULT, REPLIES_AWAITED, REPLIES_RECEIVED)

_BYTES_MAX: Final = 65_535
_RARE: Final = (b"mqtt-", b"ce-", b"trace", b"idempotency-key")
"""What the other headers that matter begin with."""

_is_media_type: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[\x20-\x7e]+").fullmatch
_NAME_SAFE: Final = "!\"#$&'()*+,-./:;<>?@[\\]^_`{|}~"


class RequestHeaders(NamedTuple):
    """The headers of a publish that matter.

    Attributes:
        content_length: in bytes; None where the body is chunked.
        content_type: as it came, or None.
        mqtt: names and values of ``Mqtt-…`` headers, or None.
        event: those of ``ce-…`` headers, which make a CloudEvent, or None.
        trace: those of ``traceparent`` and ``tracestate``, or None.
        idempotency_key: the key of ``Idempotency-Key``, or None.
    """

    content_length: int | None
    content_type: bytes | None
    mqtt: list[tuple[bytes, bytes]] | None
    event: list[tuple[bytes, bytes]] | None = None
    trace: list[tuple[bytes, bytes]] | None = None
    idempotency_key: str | None = None


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> RequestHeaders:
    """Pick what matters, in one pass.

    Raises:
        ProblemError: INVALID_HEADER where ``Idempotency-Key`` is no key.
    """
    content_length: int | None = None
    content_type: bytes | None = None
    rare: list[tuple[bytes, bytes]] | None = None
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            content_length = int(value)
        elif name.startswith(_RARE):
            if rare is None:
                rare = []
            rare.append((name, value))
    if rare is None:
        return RequestHeaders(content_length, content_type, None)
    return _sort(content_length, content_type, rare)


def _sort(
    content_length: int | None, content_type: bytes | None, rare: Iterable[tuple[bytes, bytes]]
) -> RequestHeaders:
    mqtt: list[tuple[bytes, bytes]] = []
    event: list[tuple[bytes, bytes]] = []
    trace: list[tuple[bytes, bytes]] = []
    idempotency_key: str | None = None
    for name, value in rare:
        if name.startswith(b"mqtt-"):
            mqtt.append((name, value))
        elif name.startswith(b"ce-"):
            event.append((name, value))
        elif name in (b"traceparent", b"tracestate"):
            trace.append((name, value))
        elif name == b"idempotency-key":
            if idempotency_key is not None:
                raise repeated_idempotency_key()
            idempotency_key = read_idempotency_key(value)
    return RequestHeaders(
        content_length, content_type, mqtt or None, event or None, trace or None, idempotency_key
    )


def content_type_property(value: bytes) -> str | None:
    """A request's Content-Type as the MQTT 5 content type; None where it says nothing about the payload.

    Raises:
        ProblemError: INVALID_HEADER where it is not ASCII.
    """
    if not value or value.partition(b";")[0].strip().lower() == FORM_CONTENT_TYPE:
        return None
    text = value.decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise ProblemError(
            ProblemType.INVALID_HEADER, "the Content-Type is not printable ASCII", field="Content-Type"
        )
    if len(text) > MAX_STRING_BYTES:
        raise ProblemError(
            ProblemType.INVALID_HEADER,
            f"the Content-Type is {len(text)} bytes; MQTT carries at most {MAX_STRING_BYTES}",
            field="Content-Type",
        )
    return text


def refuse_idempotency_key(headers: RequestHeaders, reason: str) -> None:
    """Refuse ``Idempotency-Key`` on a call that does not honour it; raises UNSUPPORTED_HEADER."""
    if headers.idempotency_key is not None:
        raise ProblemError(
            ProblemType.UNSUPPORTED_HEADER,
            f"this call does not honour {IDEMPOTENCY_KEY}: {reason}; nothing was done",
            field=IDEMPOTENCY_KEY,
            hint="leave the header out",
        )


def refuse_mqtt_headers(headers: RequestHeaders, hint: str) -> None:
    """Refuse ``Mqtt-…`` and ``ce-…`` headers on a call that takes none, with what to do instead.

    Raises:
        ProblemError: INVALID_HEADER.
    """
    refused = headers.mqtt or headers.event
    if refused is not None:
        name = _shown(refused[0][0])
        raise ProblemError(
            ProblemType.INVALID_HEADER, f"this call has no header {name}", field=name, hint=hint
        )


def read_mqtt_headers(headers: Iterable[tuple[bytes, bytes]]) -> Properties:
    """The properties that ``Mqtt-…`` headers of a request stand for.

    Raises:
        ProblemError: INVALID_HEADER: the name is unknown, or the value cannot be read.
    """
    user_properties: list[tuple[str, str]] = []
    found: dict[str, Any] = {}
    for raw_name, value in headers:
        name = _shown(raw_name)
        if name == USER_PROPERTY:
            user_properties.append(_user_property(value))
        elif name in found:
            raise ProblemError(ProblemType.INVALID_HEADER, f"{name} is there twice", field=name)
        elif name in _READERS:
            found[name] = _READERS[name](value)
        else:
            raise ProblemError(
                ProblemType.INVALID_HEADER,
                f"a publish has no header {name}",
                field=name,
                hint=did_you_mean(name, REQUEST_HEADERS),
            )
    return Properties(
        payload_format=found.get(PAYLOAD_FORMAT),
        message_expiry=found.get(MESSAGE_EXPIRY),
        response_topic=found.get(RESPONSE_TOPIC),
        correlation_data=found.get(CORRELATION_DATA),
        user_properties=tuple(user_properties),
    )


def message_headers(message: Message) -> list[tuple[bytes, bytes]]:
    """A received message's topic, QoS and properties as headers; the payload is the body."""
    properties = message.properties
    content_type = properties.content_type
    found = [
        (
            b"content-type",
            content_type.encode("ascii")
            if content_type is not None and _is_media_type(content_type)
            else DEFAULT_CONTENT_TYPE,
        ),
        (b"mqtt-topic", percent_encode(message.topic)),
    ]
    if properties.payload_format is not None:
        found.append((b"mqtt-payload-format", b"%d" % properties.payload_format))
    if properties.message_expiry is not None:
        found.append((b"mqtt-message-expiry", b"%d" % properties.message_expiry))
    if properties.response_topic is not None:
        found.append((b"mqtt-response-topic", percent_encode(properties.response_topic)))
    if properties.correlation_data is not None:
        found.append((b"mqtt-correlation-data", base64.b64encode(properties.correlation_data)))
    found.extend(
        (b"mqtt-user-property", percent_encode(name, safe=_NAME_SAFE) + b"=" + percent_encode(value))
        for name, value in properties.user_properties
    )
    return found


def _shown(name: bytes) -> str:
    """A header's name as it is written in prose; a CloudEvent's are lower case."""
    text = name.decode("latin-1")
    return text if text.startswith("ce-") else text.title()


def _user_property(value: bytes) -> tuple[str, str]:
    raw_name, separator, raw_value = value.partition(b"=")
    if not separator:
        raise ProblemError(
            ProblemType.INVALID_HEADER,
            f"{USER_PROPERTY} has no '='",
            field=USER_PROPERTY,
            hint=f"write {USER_PROPERTY}: name=value",
        )
    name, text = (
        percent_decode(part, field=USER_PROPERTY, kind=ProblemType.INVALID_HEADER)
        for part in (raw_name, raw_value)
    )
    for part in (name, text):
        reason = why_not_a_string(part)
        if reason is not None:
            raise ProblemError(ProblemType.INVALID_HEADER, f"{USER_PROPERTY}: {reason}", field=USER_PROPERTY)
    return name, text


def _correlation_data(value: bytes) -> bytes:
    try:
        octets = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ProblemError(
            ProblemType.INVALID_HEADER, f"{CORRELATION_DATA} is not base64: {error}", field=CORRELATION_DATA
        ) from None
    if len(octets) > _BYTES_MAX:
        raise ProblemError(
            ProblemType.INVALID_HEADER,
            f"{CORRELATION_DATA} is {len(octets)} bytes; MQTT carries at most {_BYTES_MAX}",
            field=CORRELATION_DATA,
        )
    return octets


def _number(value: bytes, name: str, highest: int) -> int:
    if not value.isdigit() or len(value) > 10 or int(value) > highest:
        raise ProblemError(
            ProblemType.INVALID_HEADER,
            f"{name}: {value.decode('latin-1')!r} is no whole number from 0 to {highest}",
            field=name,
        )
    return int(value)


def _response_topic(value: bytes) -> str:
    topic = percent_decode(value, field=RESPONSE_TOPIC, kind=ProblemType.INVALID_HEADER)
    try:
        validate_topic(topic)
    except TopicError as error:
        raise ProblemError(
            ProblemType.INVALID_HEADER, f"{RESPONSE_TOPIC}: {error}", field=RESPONSE_TOPIC
        ) from None
    return topic


_READERS: Final[dict[str, Callable[[bytes], Any]]] = {
    CORRELATION_DATA: _correlation_data,
    MESSAGE_EXPIRY: lambda value: _number(value, MESSAGE_EXPIRY, MAX_EXPIRY_SECONDS),
    PAYLOAD_FORMAT: lambda value: _number(value, PAYLOAD_FORMAT, 1),
    RESPONSE_TOPIC: _response_topic,
}
"""How each header that is there once is read."""
