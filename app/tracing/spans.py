"""The spans: of a request, of a message that is published, and of one that is handed to streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from time import time_ns
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from app.broker.link import BrokerLink, Receiver
from app.hub.hub import Hub
from app.logs.context import route_of, trace_id
from app.problems import ProblemError, problem_of
from app.publishing.gate import Check, Gate
from app.publishing.trace_context import NAMES, TRACEPARENT, trace_of
from app.security.authorization import Authorization
from app.security.principal import Principal
from app.security.rates import Rate
from tidegate.errors import MQTTError, QueueFullError, refusal
from tidegate.message import Message

STREAM_PATHS: Final = ("/v1/subscribe", "/v1/ws")
"""Requests that last as long as their reader likes, and publish nothing by themselves."""

CLOSE_SECONDS: Final = 2.0
"""How long the last spans may take at the end."""

_propagator: Final = TraceContextTextMapPropagator()
_incoming: Final[ContextVar[str]] = ContextVar("incoming", default="")
"""The ``traceparent`` that the request at hand came with."""


class Tracing:
    """What traces; made once, and asked for the parts that take the place of those that do not trace.

    Args:
        provider: makes and exports spans.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("tidegate", version("tidegate-bridge"))

    def gate(
        self,
        link: BrokerLink,
        authorization: Authorization,
        checks: Sequence[Check] = (),
        rate: Rate | None = None,
    ) -> Gate:
        """The way to the broker; as ``Gate`` takes its parts."""
        return TracedGate(self.tracer, link, authorization, checks, rate)

    def receiver(self, hub: Hub) -> Receiver:
        """What takes messages from the broker."""
        return TracedHub(self.tracer, hub)

    def add_to(self, app: Starlette) -> None:
        """Have the requests of an application traced."""
        app.add_middleware(TracedRequests, tracer=self.tracer)

    async def close(self) -> None:
        """Export what is left, if the collector takes it soon: a bridge that stops does not wait for it."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)


class TracedRequests:
    """A SERVER span for each request of the API that is no stream (ASGI middleware).

    Args:
        app: the rest of the application.
        tracer: begins spans.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within a span (ASGI)."""
        if scope["type"] != "http" or "/v1/" not in scope["path"] or scope["path"].endswith(STREAM_PATHS):
            await self._app(scope, receive, send)
            return
        carried = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _RAW}
        attributes = {HTTP_REQUEST_METHOD: scope["method"], URL_SCHEME: scope["scheme"]}
        with self._tracer.start_as_current_span(
            scope["method"], _propagator.extract(carried), SpanKind.SERVER, attributes
        ) as span:
            _incoming.set(carried.get(TRACEPARENT, ""))
            if span.is_recording():
                trace_id.set(f"{span.get_span_context().trace_id:032x}")

            async def watch(message: ASGIMessage) -> None:
                if message["type"] == "http.response.start":
                    _tell_status(span, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, watch)
            finally:
                route = route_of(scope)
                span.set_attribute(HTTP_ROUTE, route)
                span.update_name(f"{scope['method']} {route}")


class TracedGate(Gate):
    """A gate that has each message carry the context of its own PRODUCER span.

    Where the connection has no properties, or there is none yet, the message carries nothing. What a caller
    says about the message's trace in a user property stays as it is.
    """

    def __init__(
        self,
        tracer: Tracer,
        link: BrokerLink,
        authorization: Authorization,
        checks: Sequence[Check],
        rate: Rate | None,
    ) -> None:
        super().__init__(link, authorization, checks, rate)
        self._tracer = tracer

    async def publish(self, principal: Principal, message: Message, *, field: str = "topic") -> int:
        """As ``Gate.publish``, within a span."""
        span = self._begin(message)
        try:
            reason_code = await super().publish(principal, self._carrying(message, span), field=field)
        except (ProblemError, MQTTError) as error:
            _tell_error(span, error)
            raise
        finally:
            span.end()
        return reason_code

    def submit(
        self,
        principal: Principal,
        message: Message,
        *,
        field: str = "topic",
        timeout_seconds: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> asyncio.Future[int]:
        """As ``Gate.submit``, with a span until the outcome; one that found no room is not told of."""
        span = self._begin(message)
        try:
            future = super().submit(
                principal,
                self._carrying(message, span),
                field=field,
                timeout_seconds=timeout_seconds,
                on_sent=on_sent,
            )
        except QueueFullError:
            raise
        except (ProblemError, MQTTError) as error:
            _tell_error(span, error)
            span.end()
            raise
        future.add_done_callback(partial(_end, span, message))
        return future

    def _begin(self, message: Message) -> Span:
        facts = _facts(message, "send", "publish")
        return self._tracer.start_span("publish", kind=SpanKind.PRODUCER, attributes=facts)

    def _carrying(self, message: Message, span: Span) -> Message:
        limits = self.limits
        if limits is None or limits.protocol_version < 5:
            return message
        given = message.properties.user_properties
        own = [value for name, value in given if name == TRACEPARENT]
        if own and own != [_incoming.get()]:
            return message
        carried: dict[str, str] = {}
        _propagator.inject(carried, set_span_in_context(span))
        others = tuple(pair for pair in given if pair[0] not in NAMES)
        return replace(
            message, properties=replace(message.properties, user_properties=(*others, *carried.items()))
        )


class TracedHub:
    """A hub that tells of each message that came with a trace, and that somebody here follows."""

    def __init__(self, tracer: Tracer, hub: Hub) -> None:
        self._tracer = tracer
        self._hub = hub
        self.broker_down = hub.broker_down
        self.broker_returns = hub.broker_returns
        self.broker_up = hub.broker_up

    def deliver(self, message: Message) -> None:
        """Hand it out, and tell of it once, however many get it: the trace is the publisher's."""
        found = trace_of(message.properties)
        if not found:
            self._hub.deliver(message)
            return
        began_at = time_ns()
        before = self._hub.counts.messages
        self._hub.deliver(message)
        if self._hub.counts.messages != before:
            self._tracer.start_span(
                "deliver",
                _propagator.extract(dict(found)),
                SpanKind.CONSUMER,
                _facts(message, "process", "deliver"),
                start_time=began_at,
            ).end()


_RAW: Final = frozenset(name.encode() for name in NAMES)


def _facts(message: Message, kind: str, operation: str) -> dict[str, AttributeValue]:
    """What a span tells of a message (OpenTelemetry's semantic conventions for messaging)."""
    return {
        "messaging.system": "mqtt",
        "messaging.operation.type": kind,
        "messaging.operation.name": operation,
        "messaging.destination.name": message.topic,
        "messaging.message.body.size": len(message.payload),
        "tidegate.qos": message.qos,
        "tidegate.retain": message.retain,
    }


def _end(span: Span, message: Message, future: asyncio.Future[int]) -> None:
    if not future.cancelled():
        error = future.exception()
        if error is None and future.result() >= 0x80:
            error = refusal("publish", future.result(), topic=message.topic, qos=message.qos)
        if isinstance(error, MQTTError):
            _tell_error(span, error)
    span.end()


def _tell_error(span: Span, error: ProblemError | MQTTError) -> None:
    kind = (error if isinstance(error, ProblemError) else problem_of(error)).kind
    span.set_attribute(ERROR_TYPE, kind.slug)
    span.set_status(Status(StatusCode.ERROR, kind.title))


def _tell_status(span: Span, status: int) -> None:
    span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
    if status >= 500:
        span.set_attribute(ERROR_TYPE, str(status))
        span.set_status(Status(StatusCode.ERROR))
