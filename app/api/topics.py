"""``/v1/topics/{topic}``: POST publishes to a topic, PUT keeps, GET reads what is kept, DELETE clears it.

Most requests publish. They are read straight from ASGI: the framework's own reading costs several times as
much, and its path decoding loses what the topic was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.types import Receive, Scope, Send

from app.api.input.body import BodyReader
from app.api.input.headers import (
    CORRELATION_DATA,
    USER_PROPERTY,
    content_type_property,
    message_headers,
    read_headers,
    read_mqtt_headers,
    refuse_mqtt_headers,
)
from app.api.input.negotiation import preferred
from app.api.input.path import topic_in
from app.api.input.query import (
    ClearQuery,
    PublishQuery,
    RetainedQuery,
    TopicQuery,
    parse_query,
)
from app.api.input.topic_rules import require_filter, require_topic
from app.api.output.answer import answer, answer_publish
from app.api.output.refusals import empty_retained, without_properties
from app.api.raw_route import REST, RawRoute
from app.broker.link import BrokerLink
from app.hub.event import envelope
from app.hub.hub import Hub
from app.hub.retained import TooManyRetainedError, read_retained
from app.problems import ProblemError, ProblemType
from app.publishing.gate import Gate
from tidegate.errors import UnsupportedError
from tidegate.message import NO_PROPERTIES, Message, Properties

PATH: Final = "/v1/topics"

_FREQUENT_QUERIES: Final = (b"", b"qos=0", b"qos=1", b"qos=2", b"retain=true", b"qos=0&retain=true")
_MAX_CONTENT_TYPES: Final = 64

NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"
_SANDBOX: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cache-control", b"no-store"),
]
"""A payload is somebody else's input: a browser must not run it as a page of the bridge."""


class TopicsRoute(RawRoute):
    """The four calls of ``/v1/topics``.

    Args:
        gate: the way to the broker.
        link: the broker, for round trips.
        hub: through which retained messages are read.
        bodies: how bodies are read.
        retained_timeout_seconds: bound on reading retained messages.
        max_retained_messages: how many of them one answer may hold.
    """

    path = PATH
    path_format = PATH + "/{topic}"
    methods = ("DELETE", "GET", "POST", "PUT")
    takes_rest = True

    def __init__(
        self,
        gate: Gate,
        link: BrokerLink,
        hub: Hub,
        bodies: BodyReader,
        *,
        retained_timeout_seconds: float,
        max_retained_messages: int,
    ) -> None:
        super().__init__()
        self._gate = gate
        self._link = link
        self._hub = hub
        self._bodies = bodies
        self._retained_timeout_seconds = retained_timeout_seconds
        self._max_retained_messages = max_retained_messages
        self._publish_queries = {raw: parse_query(raw, PublishQuery) for raw in _FREQUENT_QUERIES}
        self._content_types: dict[bytes, Properties] = {}

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        method = scope["method"]
        if method == "POST":
            await self._post(scope, receive, send)
        elif method == "PUT":
            await self._put(scope, receive, send)
        elif method == "GET":
            await self._get(scope, send)
        else:
            await self._delete(scope, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_query: bytes = scope["query_string"]
        query = self._publish_queries.get(raw_query) or parse_query(raw_query, PublishQuery)
        await self._send_message(scope, receive, send, query, query.retain)

    async def _put(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_message(
            scope, receive, send, parse_query(scope["query_string"], RetainedQuery), True
        )

    async def _send_message(
        self, scope: Scope, receive: Receive, send: Send, query: RetainedQuery, retain: bool
    ) -> None:
        topic = _topic(scope, query)
        require_topic(topic)
        headers = read_headers(scope["headers"])
        properties = NO_PROPERTIES
        if headers.content_type is not None:
            properties = self._content_type(headers.content_type)
        is_asked_for = False
        if headers.mqtt is not None or query.expiry is not None or query.response_topic is not None:
            properties = self._asked_for(headers.mqtt, query, properties.content_type)
            is_asked_for = True
        payload = await self._bodies.read(receive, headers.content_length)
        if retain and not payload:
            raise empty_retained()
        message = Message(topic, payload, query.qos, retain, properties)
        try:
            reason_code = await self._gate.publish(message)
        except UnsupportedError:
            # The connection came after the request, and speaks 3.1.1: a content type is left aside there.
            if is_asked_for or properties is NO_PROPERTIES or not self._is_without_properties():
                raise
            reason_code = await self._gate.publish(replace(message, properties=NO_PROPERTIES))
        await answer_publish(send, message, reason_code)

    async def _delete(self, scope: Scope, send: Send) -> None:
        query = parse_query(scope["query_string"], ClearQuery)
        refuse_mqtt_headers(read_headers(scope["headers"]), "clearing carries no properties")
        topic = _topic(scope, query)
        require_topic(topic)
        message = Message(topic, b"", query.qos, True)
        await answer_publish(send, message, await self._gate.publish(message))

    async def _get(self, scope: Scope, send: Send) -> None:
        topic_filter = _topic(scope, parse_query(scope["query_string"], TopicQuery))
        require_filter(topic_filter)
        if topic_filter.startswith("$share/"):
            raise ProblemError(
                ProblemType.INVALID_TOPIC,
                "a shared subscription gets no retained messages (MQTT 5 §4.8.2)",
                field="topic",
                hint="ask for the filter behind $share/{name}/",
            )
        is_list = "+" in topic_filter or "#" in topic_filter
        form = preferred(scope["headers"], (JSON, NDJSON)) if is_list else JSON
        try:
            messages = await read_retained(
                self._hub,
                topic_filter,
                round_trip=self._link.session.ping,
                timeout_seconds=self._retained_timeout_seconds,
                limit=self._max_retained_messages,
            )
        except TooManyRetainedError as error:
            raise ProblemError(
                ProblemType.TOO_MANY_RETAINED, str(error), field="topic", hint="ask for a narrower filter"
            ) from None
        if is_list:
            await _answer_list(send, messages, form)
        elif messages:
            await answer(send, 200, message_headers(messages[0]) + _SANDBOX, messages[0].payload)
        else:
            raise ProblemError(
                ProblemType.NO_RETAINED_MESSAGE,
                f"the broker keeps no message for {topic_filter!r}",
                field="topic",
            )

    def _content_type(self, value: bytes) -> Properties:
        """The properties that a Content-Type alone makes; none where the connection cannot carry them."""
        found = self._content_types.get(value)
        if found is None:
            content_type = content_type_property(value)
            found = NO_PROPERTIES if content_type is None else Properties(content_type=content_type)
            if len(self._content_types) < _MAX_CONTENT_TYPES:
                self._content_types[value] = found
        return NO_PROPERTIES if self._is_without_properties() else found

    def _asked_for(
        self, headers: list[tuple[bytes, bytes]] | None, query: RetainedQuery, content_type: str | None
    ) -> Properties:
        properties = read_mqtt_headers(headers or ())
        if self._is_without_properties():
            field = USER_PROPERTY if properties.user_properties else CORRELATION_DATA
            if query.response_topic is not None:
                field = "response_topic"
            if query.expiry is not None:
                field = "expiry"
            raise without_properties(field)
        return replace(
            properties,
            content_type=content_type,
            message_expiry=query.expiry,
            response_topic=query.response_topic,
        )

    def _is_without_properties(self) -> bool:
        limits = self._gate.limits
        return limits is not None and limits.protocol_version < 5


def _topic(scope: Scope, query: TopicQuery) -> str:
    topic = topic_in(scope[REST])
    if query.topic is None:
        if topic:
            return topic
        raise ProblemError(
            ProblemType.INVALID_TOPIC,
            "there is no topic; it must have at least one character",
            field="topic",
            hint="write /v1/topics/{topic}, or /v1/topics?topic=…",
        )
    if topic:
        raise ProblemError(
            ProblemType.INVALID_PARAMETER,
            "the topic is in the path and in the query; it belongs in one of them",
            field="topic",
        )
    return query.topic


async def _answer_list(send: Send, messages: list[Message], form: str) -> None:
    lines = [envelope(message) for message in messages]
    body = b"".join(line + b"\n" for line in lines) if form == NDJSON else b"[" + b",".join(lines) + b"]"
    await answer(send, 200, [(b"content-type", form.encode()), (b"cache-control", b"no-store")], body)
