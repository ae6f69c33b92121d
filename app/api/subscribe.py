"""``/v1/subscribe``: follow topics as a stream of events.

Everything that can be refused is refused before the first byte: after a 200 no status is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.body import BodyReader, require_json
from app.api.input.headers import read_headers, refuse_idempotency_key, refuse_mqtt_headers
from app.api.input.negotiation import is_named, preferred
from app.api.input.query import NoQuery, parse_query
from app.api.input.stream_options import SubscribeQuery, SubscribeRequest
from app.api.output.answer import NO_STORE
from app.api.output.refusals import invalid_body
from app.api.raw_route import RawRoute
from app.api.stream.cloud_event_forms import CloudEventLinesForm, CloudEventStreamForm
from app.api.stream.forms import (
    EVENT_STREAM,
    NDJSON,
    EventStreamForm,
    Form,
    LinesForm,
    RawEventStreamForm,
    RawLinesForm,
)
from app.api.stream.holdings import Holdings
from app.api.stream.outlet import Outlet, Pace
from app.api.stream.subscriptions import Subscriptions
from app.api.stream.wheel import Wheel
from app.hub.hub import Hub
from app.publishing.cloud_events import STRUCTURED
from app.settings import Settings

PATH: Final = "/v1/subscribe"
POSITION: Final = b"last-event-id"
"""The header with which a client comes back, and that tells one whose stream has no ids where it begins."""

_request: Final = TypeAdapter(SubscribeRequest)


class SubscribeRoute(RawRoute):
    """The call.

    Args:
        hub: whom to join.
        subscriptions: makes listeners within the bounds of the settings.
        holdings: knows who holds which stream.
        bodies: how bodies are read.
        settings: the times of streams.
    """

    path = path_format = PATH
    methods = ("GET", "POST")

    def __init__(
        self,
        hub: Hub,
        subscriptions: Subscriptions,
        holdings: Holdings,
        bodies: BodyReader,
        settings: Settings,
    ) -> None:
        super().__init__()
        self._hub = hub
        self._holdings = holdings
        self._subscriptions = subscriptions
        self._bodies = bodies
        self._usual_pace = Pace(
            heartbeat=settings.heartbeat_seconds,
            send_timeout=settings.stream_send_timeout_seconds,
            lifetime=settings.stream_lifetime_seconds,
        )
        self._wheel = Wheel()
        self._forms: dict[tuple[str, str], Form] = {
            (EVENT_STREAM, "envelope"): EventStreamForm(),
            (EVENT_STREAM, "raw"): RawEventStreamForm(),
            (NDJSON, "envelope"): LinesForm(),
            (NDJSON, "raw"): RawLinesForm(),
            (EVENT_STREAM, "cloudevents"): CloudEventStreamForm(settings.cloudevents_source),
            (NDJSON, "cloudevents"): CloudEventLinesForm(settings.cloudevents_source),
        }

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a stream (ASGI)."""
        # What the request said is not kept for as long as the stream lasts: there may be thousands.
        outlet = await self._open(scope, receive, send)
        await outlet.run(receive)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> Outlet:
        if scope["method"] == "GET":
            request = parse_query(scope["query_string"], SubscribeQuery).as_request()
            field = "topic"
        else:
            request = await self._read(scope, receive)
            field = "/topics"
        form = self._forms[_form(scope, request)]
        # The header first: a browser that connects again repeats the URL of the first time.
        last_event_id = _last_event_id(scope) or request.last_event_id
        principal = principal_of(scope)
        with self._holdings.room(principal):
            listener, position = await self._subscriptions.open(
                principal, request, last_event_id, field=field
            )
            self._holdings.hold(principal, listener)
        outlet = Outlet(self._hub, listener, form, self._pace(request), self._wheel)
        headers = [
            (b"content-type", form.media_type.encode("ascii")),
            NO_STORE,
            (b"x-accel-buffering", b"no"),
            (POSITION, str(position).encode("ascii")),
        ]
        await outlet.begin(
            scope,
            send,
            {"type": "http.response.start", "status": 200, "headers": headers},
            form.opening(None if last_event_id else position, _hints(request.topics)),
        )
        return outlet

    def _pace(self, request: SubscribeRequest) -> Pace:
        if request.idle_timeout is None:
            return self._usual_pace
        return replace(self._usual_pace, idle_timeout=request.idle_timeout)

    async def _read(self, scope: Scope, receive: Receive) -> SubscribeRequest:
        parse_query(scope["query_string"], NoQuery)
        headers = read_headers(scope["headers"])
        refuse_mqtt_headers(headers, "it belongs to a message to publish")
        refuse_idempotency_key(headers, "a stream may be opened again as it is")
        require_json(headers.content_type, "send Content-Type: application/json, as curl --json does")
        try:
            return _request.validate_json(await self._bodies.read(receive, headers.content_length))
        except ValidationError as error:
            raise invalid_body(error, SubscribeRequest) from None


def _form(scope: Scope, request: SubscribeRequest) -> tuple[str, str]:
    """The media type and the format that a client asks for.

    ``Accept: application/cloudevents+json`` is a line for each event, unless it says how else to send them.
    """
    headers = scope["headers"]
    streams = (EVENT_STREAM, NDJSON)
    if request.format != "envelope" or not is_named(headers, STRUCTURED):
        return preferred(headers, streams), request.format
    named = [each for each in streams if is_named(headers, each)]
    return preferred(headers, named) if named else NDJSON, "cloudevents"


def _last_event_id(scope: Scope) -> str:
    return next((v.decode("latin-1")[:200] for k, v in scope["headers"] if k == POSITION), "")


def _hints(filters: tuple[str, ...]) -> list[str]:
    return [
        f"the filter {each!r} ends in an empty level; if it should end in #, write %23"
        for each in filters
        if each.endswith("/")
    ]
