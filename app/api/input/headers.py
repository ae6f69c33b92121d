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
from collections.abc import Iterable
from typing import Final, NamedTuple

from app.api.input.percent import percent_decode, percent_encode
from app.problems import ProblemError, ProblemType, did_you_mean
from tidegate.message import Message, Properties
from tidegate.strings import MAX_STRING_BYTES, why_not_a_string

DEFAULT_CONTENT_TYPE: Final = b"application/octet-stream"
FORM_CONTENT_TYPE: Final = b"application/x-www-form-urlencoded"
"""What ``curl -d`` sends without being asked: it says nothing about the payload."""

USER_PROPERTY: Final = "Mqtt-User-Property"
CORRELATION_DATA: Final = "Mqtt-Correlation-Data"
REQUEST_HEADERS: Final = (USER_PROPERTY, CORRELATION_DATA)
ANSWER_HEADERS: Final = (
    "Mqtt-Topic",
    "Mqtt-Message-Expiry",
    "Mqtt-Response-Topic",
    CORRELATION_DATA,
    USER_PROPERTY,
)
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

_BYTES_MAX: Final = 65_535
_is_media_type: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[\x20-\x7e]+").fullmatch
_NAME_SAFE: Final = "!\"#$&'()*+,-./:;<>?@[\\]^_`{|}~"


class RequestHeaders(NamedTuple):
    """The headers of a publish that matter.

    Attributes:
        content_length: in bytes; None where the body is chunked.
        content_type: as it came, or None.
        mqtt: names and values of ``Mqtt-…`` headers, or None.
    """

    content_length: int | None
    content_type: bytes | None
    mqtt: list[tuple[bytes, bytes]] | None


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> RequestHeaders:
    """Pick what matters, in one pass.

    Raises:
        ProblemError: UNSUPPORTED_HEADER for ``Idempotency-Key``: whoever sends it counts on safe retries.
    """
    content_length: int | None = None
    content_type: bytes | None = None
    mqtt: list[tuple[bytes, bytes]] | None = None
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            content_length = int(value)
        elif name.startswith(b"mqtt-"):
            if mqtt is None:
                mqtt = []
            mqtt.append((name, value))
        elif name == b"idempotency-key":
            raise ProblemError(
                ProblemType.UNSUPPORTED_HEADER,
                "this version does not honour Idempotency-Key: a retry could publish twice; nothing was sent",
                field=IDEMPOTENCY_KEY,
                hint="leave the header out, and make the consumer of the topic tolerate a repeated message",
            )
    return RequestHeaders(content_length, content_type, mqtt)


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


def refuse_mqtt_headers(headers: RequestHeaders, hint: str) -> None:
    """Refuse ``Mqtt-…`` headers on a call that takes none, with what to do instead; raises INVALID_HEADER."""
    if headers.mqtt is not None:
        name = headers.mqtt[0][0].decode("latin-1").title()
        raise ProblemError(
            ProblemType.INVALID_HEADER, f"this call has no header {name}", field=name, hint=hint
        )


def read_mqtt_headers(headers: Iterable[tuple[bytes, bytes]]) -> Properties:
    """The properties that ``Mqtt-…`` headers of a request stand for.

    Raises:
        ProblemError: INVALID_HEADER: the name is unknown, or the value cannot be read.
    """
    user_properties: list[tuple[str, str]] = []
    correlation_data: bytes | None = None
    for raw_name, value in headers:
        name = raw_name.decode("latin-1").title()
        if name == USER_PROPERTY:
            user_properties.append(_user_property(value))
        elif name == CORRELATION_DATA:
            if correlation_data is not None:
                raise ProblemError(ProblemType.INVALID_HEADER, f"{name} is there twice", field=name)
            correlation_data = _correlation_data(value)
        else:
            raise ProblemError(
                ProblemType.INVALID_HEADER,
                f"a publish has no header {name}",
                field=name,
                hint=did_you_mean(name, REQUEST_HEADERS),
            )
    return Properties(correlation_data=correlation_data, user_properties=tuple(user_properties))


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
