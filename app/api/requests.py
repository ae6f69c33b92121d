"""``/v1/requests/{topic}``: publish the body, wait for the device's reply, and answer with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.body import BodyReader, require_text
from app.api.input.cloud_event import is_structured, require_structured
from app.api.input.headers import (
    CORRELATION_DATA,
    PAYLOAD_FORMAT,
    REPLIES_AWAITED,
    REPLIES_RECEIVED,
    RESPONSE_TOPIC,
    USER_PROPERTY,
    RequestHeaders,
    content_type_property,
    read_headers,
)
from app.api.input.negotiation import preferred
from app.api.input.path import required_topic
from app.api.input.properties import asked_properties
from app.api.input.query import parse_query
from app.api.input.request_options import RequestQuery
from app.api.input.topic_rules import require_topic
from app.api.output.answer import answer
from app.api.output.messages import JSON, LIST_FORMS, answer_list, answer_message
from app.api.output.once import Once
from app.api.raw_route import REST, RawRoute
from app.hub.event import Event
from app.problems import ProblemError, ProblemType
from app.publishing.gate import Gate
from app.publishing.idempotency import fingerprint_of
from app.publishing.replies import QOS
from app.publishing.requests import Question, Requests
from app.security.authorization import Authorization
from app.settings import Settings
from tidegate.errors import refusal
from tidegate.message import NO_PROPERTIES, Message, Properties

PATH: Final = "/v1/requests"


class RequestsRoute(RawRoute):
    """The call.

    Args:
        gate: the way to the broker, which knows what that can carry.
        requests: publishes, and waits for replies.
        bodies: how bodies are read.
        once: how an Idempotency-Key is honoured.
        authorization: decides whether a principal may follow a response topic of its own choice.
        settings: the bounds of what may be asked for.
    """

    path = PATH
    path_format = PATH + "/{topic}"
    methods = ("POST",)
    takes_rest = True

    def __init__(
        self,
        gate: Gate,
        requests: Requests,
        bodies: BodyReader,
        once: Once,
        authorization: Authorization,
        settings: Settings,
    ) -> None:
        super().__init__()
        self._gate = gate
        self._requests = requests
        self._bodies = bodies
        self._once = once
        self._authorization = authorization
        self._settings = settings

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        arrived_at = asyncio.get_running_loop().time()
        query = parse_query(scope["query_string"], RequestQuery)
        form = JSON if query.replies is None else preferred(scope["headers"], LIST_FORMS)
        headers = read_headers(scope["headers"])
        question = await self._read(scope, receive, headers, query, arrived_at)
        key = headers.idempotency_key
        if key is None:
            replies = await _unless_left(receive, asyncio.create_task(self._requests.ask(question)))
            await self._answer(send, query, form, replies)
        else:
            work = partial(self._ask, query, form, question)
            late = partial(_answer_late, question.message)
            # The trace is another one each time, and does not make it another request.
            more = repr((question.response_topic, query.replies, query.timeout)).encode()
            fingerprint = fingerprint_of(f"POST {self.path_format}", question.message, more)
            qos = question.message.qos
            await self._once.answer(
                partial(answer, send), question.principal, key, fingerprint, qos, work, late
            )

    async def _ask(self, query: RequestQuery, form: str, question: Question, send: Send) -> None:
        """Ask and answer, also when the client leaves: who comes back with its key gets the reply."""
        await self._answer(send, query, form, await self._requests.ask(question))

    async def _answer(self, send: Send, query: RequestQuery, form: str, replies: list[Event]) -> None:
        if query.replies is None:
            await answer_message(send, replies[0])
        else:
            told = [(REPLIES_AWAITED, query.replies), (REPLIES_RECEIVED, len(replies))]
            headers = [(name.lower().encode(), b"%d" % count) for name, count in told]
            await answer_list(send, replies, form, self._settings.cloudevents_source, headers)

    async def _read(
        self,
        scope: Scope,
        receive: Receive,
        headers: RequestHeaders,
        query: RequestQuery,
        arrived_at: float,
    ) -> Question:
        topic = required_topic(scope[REST], query.topic, PATH)
        require_topic(topic)
        timeout_seconds = self._timeout_seconds(query)
        if query.replies is not None and query.replies > self._settings.max_replies:
            raise ProblemError(
                ProblemType.INVALID_PARAMETER,
                f"replies={query.replies} is more than TIDEGATE_MAX_REPLIES allows: "
                f"{self._settings.max_replies}",
                field="replies",
            )
        content_type, is_event = _content_type(headers)
        asked = self._asked(headers, query, is_event=is_event)
        principal = principal_of(scope)
        response_topic = asked.response_topic
        named_by = RESPONSE_TOPIC if query.response_topic is None else "response_topic"
        if response_topic is not None and response_topic.startswith("$"):
            raise ProblemError(
                ProblemType.RESERVED_TOPIC,
                f"{response_topic!r} begins with '$': no device replies there, and a shared "
                "subscription would take messages from those that share it",
                field=named_by,
            )
        if response_topic == topic:
            raise ProblemError(
                ProblemType.INVALID_PARAMETER,
                "the response topic is the topic of the request, which would be its own reply",
                field=named_by,
            )
        if response_topic is not None:
            self._authorization.require_subscribe(
                principal, response_topic, QOS, field=named_by, action="reply"
            )
        payload = await self._bodies.read(receive, headers.content_length)
        if is_event:
            require_structured(payload)
        if asked.payload_format:
            require_text(payload, "payload_format" if query.payload_format else PAYLOAD_FORMAT)
        properties = replace(asked, content_type=content_type, response_topic=None)
        deadline = arrived_at + timeout_seconds
        if asyncio.get_running_loop().time() >= deadline:
            raise ProblemError(
                ProblemType.BODY_TIMEOUT,
                f"the body took longer than the time-out of {timeout_seconds:g} s; nothing was sent",
                field="timeout",
            )
        return Question(
            principal,
            Message(topic, payload, query.qos, properties=properties),
            timeout_seconds,
            deadline,
            query.replies or 1,
            response_topic,
            headers.trace or (),
        )

    def _timeout_seconds(self, query: RequestQuery) -> float:
        if query.timeout is None:
            return self._settings.request_timeout_seconds
        longest = self._settings.max_request_timeout_seconds
        if query.timeout > longest:
            raise ProblemError(
                ProblemType.INVALID_PARAMETER,
                f"timeout={query.timeout:g} is longer than TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS allows: "
                f"{longest:g}",
                field="timeout",
            )
        return query.timeout

    def _asked(self, headers: RequestHeaders, query: RequestQuery, *, is_event: bool) -> Properties:
        """What query and headers ask for; the response topic is where the device answers by itself."""
        asked = asked_properties(headers, query, is_event=is_event)
        if asked is None:
            return NO_PROPERTIES
        if asked.properties.correlation_data is not None:
            raise ProblemError(
                ProblemType.INVALID_HEADER,
                "a request's correlation data is made by the bridge, which tells replies apart by it",
                field=CORRELATION_DATA,
                hint=f"leave it out; what the device should see can stand in {USER_PROPERTY}",
            )
        limits = self._gate.limits
        is_old = limits is not None and limits.protocol_version < 5
        if is_old and asked.properties.response_topic is not None and asked.refusal is not None:
            raise asked.refusal
        return asked.properties


def _content_type(headers: RequestHeaders) -> tuple[str | None, bool]:
    """The content type, and whether it says that the body is a CloudEvent in structured mode."""
    content_type = None if headers.content_type is None else content_type_property(headers.content_type)
    return content_type, content_type is not None and is_structured(content_type)


async def _answer_late(message: Message, _: Send, reason_code: int) -> None:
    """The broker's answer came after the time was up, and nobody waits for a reply any more."""
    if reason_code >= 0x80:
        raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
    raise ProblemError(
        ProblemType.NO_REPLY,
        "the broker answered after the request's time was up, and no reply was waited for",
        reason_code=reason_code,
    )


async def _unless_left(receive: Receive, asking: asyncio.Task[list[Event]]) -> list[Event]:
    """What a request brings, unless its client leaves first: then it is given up at once.

    Raises:
        ClientDisconnect: the client left.
    """
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ClientDisconnect
        return asking.result()
    finally:
        asking.cancel()
        leaving.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
