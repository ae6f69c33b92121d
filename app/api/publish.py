"""``POST /v1/publish``: one message as JSON."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from app.api.answer import answer_publish
from app.api.body import BodyReader
from app.api.headers import read_headers, refuse_mqtt_headers
from app.api.members import split_members
from app.api.models import PublishRequest
from app.api.query import NoQuery, parse_query
from app.api.raw_route import RawRoute
from app.api.refusals import empty_retained, invalid_body, malformed_body, without_properties
from app.api.topic_rules import require_topic
from app.broker.link import BrokerLink
from app.problems import ProblemError, ProblemType
from tidegate.message import NO_PROPERTIES, Message

PATH: Final = "/v1/publish"
_is_json: Final = re.compile(rb"\s*application/(?:json|[^\s;/]+\+json)\s*(?:;|$)", re.IGNORECASE).match
_request: Final = TypeAdapter(PublishRequest)


class PublishRoute(RawRoute):
    """The call.

    Args:
        link: the broker.
        bodies: how bodies are read.
    """

    path = PATH
    path_format = PATH
    methods = ("POST",)

    def __init__(self, link: BrokerLink, bodies: BodyReader) -> None:
        super().__init__()
        self._link = link
        self._bodies = bodies

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        parse_query(scope["query_string"], NoQuery)
        headers = read_headers(scope["headers"])
        refuse_mqtt_headers(headers, "write it into the member 'properties' of the body")
        if headers.content_type is None or not _is_json(headers.content_type):
            raise _not_json(headers.content_type)
        message = self._message(await self._bodies.read(receive, headers.content_length))
        await answer_publish(send, message, await self._link.publish(message))

    def _message(self, body: bytes) -> Message:
        try:
            request = _request.validate_json(body)
        except ValidationError as error:
            raise invalid_body(error, PublishRequest) from None
        require_topic(request.topic, field="/topic")
        payload = _payload(request, body)
        if request.retain and not payload:
            raise empty_retained()
        properties = NO_PROPERTIES if request.properties is None else request.properties.carried()
        if properties is not NO_PROPERTIES:
            limits = self._link.limits
            if limits is not None and limits.protocol_version < 5:
                raise without_properties("/properties")
        return Message(request.topic, payload, request.qos, request.retain, properties)


def _payload(request: PublishRequest, body: bytes) -> bytes:
    try:
        members = split_members(body.decode("utf-8"))
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


def _not_json(content_type: bytes | None) -> ProblemError:
    told = "none" if content_type is None else repr(content_type.decode("latin-1"))
    return ProblemError(
        ProblemType.UNSUPPORTED_MEDIA_TYPE,
        f"the body is JSON, and its Content-Type says so; this request has {told}",
        field="Content-Type",
        hint="send Content-Type: application/json (curl --json does), or a raw body to /v1/topics/{topic}",
    )
