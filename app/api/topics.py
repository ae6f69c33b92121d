"""``/v1/topics/{topic}``: POST publishes to a topic, PUT keeps, GET reads what is kept, DELETE clears it.

Most requests publish. They are read straight from ASGI: the framework's own reading costs several times as
much, and its path decoding loses what the topic was.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.body import BodyReader, require_text
from app.api.input.cloud_event import is_structured, require_structured
from app.api.input.headers import (
    PAYLOAD_FORMAT,
    content_type_property,
    read_headers,
    refuse_mqtt_headers,
)
from app.api.input.negotiation import is_named, preferred
from app.api.input.path import required_topic
from app.api.input.properties import asked_properties
from app.api.input.query import (
    ClearQuery,
    PublishQuery,
    RetainedQuery,
    TopicQuery,
    parse_query,
)
from app.api.input.topic_rules import require_filter, require_topic
from app.api.output.answer import answer_publish
from app.api.output.messages import LIST_FORMS, answer_cloud_event, answer_list, answer_message
from app.api.output.once import Once
from app.api.output.refusals import empty_retained
from app.api.raw_route import REST, RawRoute
from app.broker.link import BrokerLink
from app.hub.hub import Hub
from app.hub.retained import TooManyRetainedError, read_retained
from app.problems import ProblemError, ProblemType
from app.publishing.cloud_events import STRUCTURED
from app.publishing.gate import Gate
from app.publishing.trace_context import with_trace
from app.security.authorization import Authorization
from app.security.principal import Principal
from tidegate.errors import UnsupportedError
from tidegate.message import NO_PROPERTIES, Message, Properties

PATH: Final = "/v1/topics"

_FREQUENT_QUERIES: Final = (b"", b"qos=0", b"qos=1", b"qos=2", b"retain=true", b"qos=0&retain=true")
_MAX_CONTENT_TYPES: Final = 64


class ContentType(NamedTuple):
    """What a Content-Type says.

    Attributes:
        properties: the property that it makes.
        is_event: the body is a CloudEvent in structured mode.
    """

    properties: Properties
    is_event: bool


class TopicsRoute(RawRoute):
    """The four calls of ``/v1/topics``.

    Args:
        gate: the way to the broker.
        link: the broker, for round trips.
        hub: through which retained messages are read.
        bodies: how bodies are read.
        once: how an Idempotency-Key is honoured.
        authorization: decides whether a principal may read what is retained.
        retained_timeout_seconds: bound on reading retained messages.
        max_retained_messages: how many of them one answer may hold.
        cloudevents_source: the source of CloudEvents that are made of other messages.
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
        once: Once,
        authorization: Authorization,
        *,
        retained_timeout_seconds: float,
        max_retained_messages: int,
        cloudevents_source: str,
    ) -> None:
        super().__init__()
        self._gate = gate
        self._link = link
        self._hub = hub
        self._bodies = bodies
        self._once = once
        self._authorization = authorization
        self._retained_timeout_seconds = retained_timeout_seconds
        self._max_retained_messages = max_retained_messages
        self._cloudevents_source = cloudevents_source
        self._publish_queries = {raw: parse_query(raw, PublishQuery) for raw in _FREQUENT_QUERIES}
        self._content_types: dict[bytes, ContentType] = {}

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
        topic = required_topic(scope[REST], query.topic, PATH)
        require_topic(topic)
        headers = read_headers(scope["headers"])
        properties = NO_PROPERTIES
        is_event = False
        refusal: ProblemError | None = None
        if headers.content_type is not None:
            properties, is_event = self._content_type(headers.content_type)
        if (
            headers.mqtt is not None
            or headers.event is not None
            or query.expiry is not None
            or query.response_topic is not None
            or query.payload_format is not None
        ):
            asked = asked_properties(headers, query, is_event=is_event)
            if asked is not None:
                properties = replace(asked.properties, content_type=properties.content_type)
                refusal = asked.refusal
        payload = await self._bodies.read(receive, headers.content_length)
        if retain and not payload:
            raise empty_retained()
        if is_event:
            require_structured(payload)
        if properties.payload_format:
            require_text(payload, "payload_format" if query.payload_format else PAYLOAD_FORMAT)
        message = Message(topic, payload, query.qos, retain, properties)
        principal = principal_of(scope)
        key = headers.idempotency_key
        if key is None:
            await self._publish(principal, message, headers.trace, refusal, send)
        else:
            # The trace is another one each time, and does not make it another request.
            work = partial(self._publish, principal, message, headers.trace, refusal)
            operation = f"{scope['method']} {self.path_format}"
            await self._once.publish(send, principal, key, operation, message, work)

    async def _publish(
        self,
        principal: Principal,
        message: Message,
        trace: list[tuple[bytes, bytes]] | None,
        refusal: ProblemError | None,
        send: Send,
    ) -> None:
        """Publish and answer.

        Args:
            principal: who publishes.
            message: with the properties that the request has.
            trace: the headers that become properties where the connection can carry them.
            refusal: what to answer where it can't; without one nothing was asked for, and all is left aside.
            send: the answer's channel (ASGI).
        """
        if trace is not None:
            message = replace(message, properties=with_trace(message.properties, trace))
        if message.properties is not NO_PROPERTIES and self._is_without_properties():
            message = _without_properties(message, refusal)
        try:
            reason_code = await self._gate.publish(principal, message)
        except UnsupportedError:
            # The connection came after the request, and speaks 3.1.1.
            if message.properties is NO_PROPERTIES or not self._is_without_properties():
                raise
            message = _without_properties(message, refusal)
            reason_code = await self._gate.publish(principal, message)
        await answer_publish(send, message, reason_code)

    async def _delete(self, scope: Scope, send: Send) -> None:
        query = parse_query(scope["query_string"], ClearQuery)
        headers = read_headers(scope["headers"])
        refuse_mqtt_headers(headers, "clearing carries no properties")
        topic = required_topic(scope[REST], query.topic, PATH)
        require_topic(topic)
        message = Message(topic, b"", query.qos, True)
        principal = principal_of(scope)
        key = headers.idempotency_key
        if key is None:
            await self._publish(principal, message, None, None, send)
        else:
            work = partial(self._publish, principal, message, None, None)
            await self._once.publish(send, principal, key, f"DELETE {self.path_format}", message, work)

    async def _get(self, scope: Scope, send: Send) -> None:
        query = parse_query(scope["query_string"], TopicQuery)
        topic_filter = required_topic(scope[REST], query.topic, PATH)
        require_filter(topic_filter)
        if topic_filter.startswith("$share/"):
            raise ProblemError(
                ProblemType.INVALID_TOPIC,
                "a shared subscription gets no retained messages (MQTT 5 §4.8.2)",
                field="topic",
                hint="ask for the filter behind $share/{name}/",
            )
        self._authorization.require_subscribe(
            principal_of(scope), topic_filter, 0, field="topic", action="read"
        )
        is_list = "+" in topic_filter or "#" in topic_filter
        form = preferred(scope["headers"], LIST_FORMS) if is_list else ""
        try:
            events = await read_retained(
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
            await answer_list(send, events, form, self._cloudevents_source)
        elif events and is_named(scope["headers"], STRUCTURED):
            await answer_cloud_event(send, events[0], self._cloudevents_source)
        elif events:
            await answer_message(send, events[0])
        else:
            raise ProblemError(
                ProblemType.NO_RETAINED_MESSAGE,
                f"the broker keeps no message for {topic_filter!r}",
                field="topic",
            )

    def _content_type(self, value: bytes) -> ContentType:
        """What a Content-Type makes."""
        found = self._content_types.get(value)
        if found is None:
            content_type = content_type_property(value)
            if content_type is None:
                found = ContentType(NO_PROPERTIES, False)
            else:
                found = ContentType(Properties(content_type=content_type), is_structured(content_type))
            if len(self._content_types) < _MAX_CONTENT_TYPES:
                self._content_types[value] = found
        return found

    def _is_without_properties(self) -> bool:
        limits = self._gate.limits
        return limits is not None and limits.protocol_version < 5


def _without_properties(message: Message, refusal: ProblemError | None) -> Message:
    """The message for a connection that carries no properties; raises the refusal where there is one."""
    if refusal is not None:
        raise refusal
    return replace(message, properties=NO_PROPERTIES)
