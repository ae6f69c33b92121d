"""``POST /v1/publish``: one message as JSON."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.body import BodyReader, require_json
from app.api.input.headers import read_headers, refuse_mqtt_headers
from app.api.input.publish_request import read_message, require_carriable
from app.api.input.query import NoQuery, parse_query
from app.api.output.answer import answer_publish
from app.api.output.once import Once
from app.api.raw_route import RawRoute
from app.publishing.gate import Gate
from app.publishing.trace_context import with_trace
from app.security.principal import Principal
from tidegate.errors import UnsupportedError
from tidegate.message import Message

PATH: Final = "/v1/publish"
FIELD: Final = "/topic"


class PublishRoute(RawRoute):
    """The call.

    Args:
        gate: the way to the broker.
        bodies: how bodies are read.
        once: how an Idempotency-Key is honoured.
    """

    path = PATH
    path_format = PATH
    methods = ("POST",)

    def __init__(self, gate: Gate, bodies: BodyReader, once: Once) -> None:
        super().__init__()
        self._gate = gate
        self._bodies = bodies
        self._once = once

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        parse_query(scope["query_string"], NoQuery)
        headers = read_headers(scope["headers"])
        refuse_mqtt_headers(headers, "write it into the member 'properties' of the body")
        require_json(
            headers.content_type,
            "send Content-Type: application/json (curl --json does), or a raw body to /v1/topics/{topic}",
        )
        message = read_message(await self._bodies.read(receive, headers.content_length))
        principal = principal_of(scope)
        key = headers.idempotency_key
        if key is None:
            await self._publish(principal, message, headers.trace, send)
        else:
            # The trace is another one each time, and does not make it another request.
            work = partial(self._publish, principal, message, headers.trace)
            await self._once.publish(send, principal, key, f"POST {PATH}", message, work)

    async def _publish(
        self, principal: Principal, message: Message, trace: list[tuple[bytes, bytes]] | None, send: Send
    ) -> None:
        require_carriable(message, self._gate.limits)
        if trace is None:
            reason_code = await self._gate.publish(principal, message, field=FIELD)
        else:
            reason_code = await self._publish_traced(principal, message, trace)
        await answer_publish(send, message, reason_code)

    async def _publish_traced(
        self, principal: Principal, message: Message, trace: list[tuple[bytes, bytes]]
    ) -> int:
        """Publish with the trace that the request tells of, where the connection can carry it."""
        limits = self._gate.limits
        properties = message.properties
        if limits is None or limits.protocol_version >= 5:
            properties = with_trace(properties, trace)
        try:
            return await self._gate.publish(principal, replace(message, properties=properties), field=FIELD)
        except UnsupportedError:
            # The connection came after the request, and speaks 3.1.1.
            if properties is message.properties:
                raise
            return await self._gate.publish(principal, message, field=FIELD)
