"""A message to publish, as JSON has it: in a body, or in a frame of a WebSocket."""

from __future__ import annotations

import base64
import binascii

from app.api.input.body import require_text
from app.api.input.members import split_members
from app.api.input.topic_rules import require_topic
from app.api.models import PublishRequest
from app.api.output.refusals import empty_retained, malformed_body, without_properties
from app.problems import ProblemError, ProblemType
from tidegate.connection import BrokerLimits
from tidegate.message import NO_PROPERTIES, Message


def message_of(request: PublishRequest, text: bytes, limits: BrokerLimits | None) -> Message:
    """The message that a request asks to publish; a JSON payload keeps every digit that it came with.

    Args:
        request: what was read from the text.
        text: the JSON object itself, valid.
        limits: what the broker said, where there is a connection.

    Raises:
        ProblemError: something about it is not allowed, or cannot be carried.
    """
    require_topic(request.topic, field="/topic")
    payload = _payload(request, text)
    if request.retain and not payload:
        raise empty_retained()
    properties = NO_PROPERTIES if request.properties is None else request.properties.carried()
    if properties is not NO_PROPERTIES and limits is not None and limits.protocol_version < 5:
        raise without_properties("/properties")
    if properties.payload_format:
        require_text(payload, "/properties/payload_format")
    return Message(request.topic, payload, request.qos, request.retain, properties)


def _payload(request: PublishRequest, text: bytes) -> bytes:
    try:
        members = split_members(text.decode("utf-8"))
    except RecursionError:
        raise malformed_body("it is nested too deep") from None
    except ValueError as error:
        raise malformed_body(str(error)) from None
    if request.encoding == "json":
        return members["payload"].encode()
    if not isinstance(request.payload, str):
        raise ProblemError(
            ProblemType.INVALID_BODY,
            f"/payload: with the encoding {request.encoding!r} it is a string",
            field="/payload",
            hint="leave 'encoding' out to publish JSON",
        )
    if request.encoding == "text":
        return request.payload.encode()
    try:
        return base64.b64decode(request.payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError(
            ProblemType.INVALID_BODY, f"/payload: it is not base64: {error}", field="/payload"
        ) from None
