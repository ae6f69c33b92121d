"""``POST /v1/tickets``: a ticket for a browser's EventSource or WebSocket, which can set no header."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.body import BodyReader, require_json
from app.api.input.headers import read_headers, refuse_idempotency_key, refuse_mqtt_headers
from app.api.input.query import NoQuery, parse_query
from app.api.input.stream_options import some_topics
from app.api.input.ticket import TICKET
from app.api.input.topic_rules import require_filter
from app.api.models import StrictQoS
from app.api.output.answer import JSON_CONTENT_TYPE, NO_STORE, answer
from app.api.output.refusals import invalid_body
from app.api.raw_route import RawRoute
from app.problems import ProblemError, ProblemType
from app.security.audit import Throttled
from app.security.authorization import Authorization
from app.security.grants import Grant, Grants
from app.security.principal import Principal
from app.security.tickets import LIFETIME_SECONDS, Purpose, Tickets
from app.settings import Settings
from tidegate.topics import split_share

PATH: Final = "/v1/tickets"

Filters = tuple[StrictStr, ...]


class TicketRequest(BaseModel):
    """What a ticket is to be for."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"for": "subscribe", "topics": ["sensors/+/temperature"], "qos": 1},
                {"for": "websocket", "publish": ["lamps/7/set"], "subscribe": ["lamps/7/#"]},
            ]
        },
    )

    purpose: Literal["subscribe", "websocket"] = Field(
        alias="for", description="`GET /v1/subscribe`, or `GET /v1/ws`."
    )
    topics: Annotated[Filters, BeforeValidator(some_topics)] | None = Field(
        None, description="For a stream: the filters that it may name, or parts of them."
    )
    qos: StrictQoS | None = Field(None, description="For a stream: the highest QoS; 1 where it is left out.")
    publish: Filters | None = Field(
        None,
        description="For a WebSocket: to which topics it may publish. Left out: wherever the caller may.",
    )
    subscribe: Filters | None = Field(
        None, description="For a WebSocket: which filters it may follow. Left out: whatever the caller may."
    )


class TicketAnswer(BaseModel):
    """A ticket. It is a secret for as long as it is good: half a minute, and once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ticket": "ms4hUB3nFmX0YoXp1D1rR7Yc2u8JXzPZ1sM5dYwH0aQ",
                    "expires_at": "2026-01-31T12:00:30Z",
                    "url": "subscribe?topic=sensors%2F%2B%2Ftemperature&qos=1"
                    "&ticket=ms4hUB3nFmX0YoXp1D1rR7Yc2u8JXzPZ1sM5dYwH0aQ",
                }
            ]
        }
    )

    ticket: str = Field(description="For the query parameter `ticket`.")
    expires_at: datetime = Field(description="Until when it may be used.")
    url: str = Field(
        description="Where to use it, relative to the URL of this call: `new URL(url, response.url)`."
    )


_request: Final = TypeAdapter(TicketRequest)


class TicketsRoute(RawRoute):
    """The call.

    Args:
        tickets: gives them.
        bodies: how bodies are read.
        authorization: decides what a ticket may be for.
        settings: the bounds.
        throttled: is told of who has too many.
    """

    path = path_format = PATH
    methods = ("POST",)

    def __init__(
        self,
        tickets: Tickets,
        bodies: BodyReader,
        authorization: Authorization,
        settings: Settings,
        throttled: Throttled,
    ) -> None:
        super().__init__()
        self._tickets = tickets
        self._bodies = bodies
        self._authorization = authorization
        self._max_filters = settings.max_filters_per_stream
        self._throttled = throttled

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a ticket (ASGI)."""
        request = await self._read(scope, receive)
        principal = principal_of(scope)
        query: list[tuple[str, str]] = []
        if request.purpose == "subscribe":
            purpose, place = Purpose.SUBSCRIBE, "subscribe"
            grants: Grants | None = self._stream_grants(principal, request)
            query = [("topic", each) for each in request.topics or ()]
            if request.qos is not None:
                query.append(("qos", str(request.qos)))
        else:
            purpose, place = Purpose.WEBSOCKET, "ws"
            grants = self._socket_grants(principal, request)
        try:
            ticket = await self._tickets.issue(scope, purpose, grants, principal.bounded_as)
        except ProblemError as problem:
            if problem.kind is ProblemType.TOO_MANY_REQUESTS:
                self._throttled.note("tickets", principal.bounded_as, principal, problem)
            raise
        expires_at = time.time() + LIFETIME_SECONDS
        if principal.expires_at is not None:
            expires_at = min(expires_at, principal.expires_at)
        made = TicketAnswer(
            ticket=ticket,
            expires_at=datetime.fromtimestamp(expires_at, UTC),
            url=f"{place}?{urlencode([*query, (TICKET, ticket)], quote_via=quote, safe='')}",
        )
        await answer(send, 200, [JSON_CONTENT_TYPE, NO_STORE], made.model_dump_json().encode())

    async def _read(self, scope: Scope, receive: Receive) -> TicketRequest:
        parse_query(scope["query_string"], NoQuery)
        headers = read_headers(scope["headers"])
        refuse_mqtt_headers(headers, "it belongs to a message to publish")
        refuse_idempotency_key(headers, "each ticket is another one")
        require_json(headers.content_type, "send Content-Type: application/json, as curl --json does")
        try:
            request = _request.validate_json(await self._bodies.read(receive, headers.content_length))
        except ValidationError as error:
            raise invalid_body(error, TicketRequest) from None
        foreign = ("publish", "subscribe") if request.purpose == "subscribe" else ("topics", "qos")
        for name in foreign:
            if getattr(request, name) is not None:
                raise ProblemError(
                    ProblemType.INVALID_BODY,
                    f"a ticket for {Purpose[request.purpose.upper()].words} has no {name!r}",
                    field=f"/{name}",
                )
        for name in ("topics", "publish", "subscribe"):
            self._check_filters(getattr(request, name) or (), name)
        return request

    def _check_filters(self, filters: Filters, name: str) -> None:
        if len(filters) > self._max_filters:
            raise ProblemError(
                ProblemType.INVALID_BODY,
                f"{len(filters)} filters; a ticket may have {self._max_filters}",
                field=f"/{name}",
                hint="use a filter with a wildcard, or several tickets",
            )
        for index, each in enumerate(filters):
            place = f"/{name}/{index}"
            require_filter(each, field=place)
            if name == "publish" and each.startswith("$share/"):
                raise ProblemError(
                    ProblemType.INVALID_TOPIC, "nobody publishes to a shared subscription", field=place
                )

    def _stream_grants(self, principal: Principal, request: TicketRequest) -> Grants:
        if request.topics is None:
            raise ProblemError(
                ProblemType.INVALID_BODY, "a ticket for a stream names its topics", field="/topics"
            )
        qos = 1 if request.qos is None else request.qos
        for index, each in enumerate(request.topics):
            self._authorization.require_subscribe(
                principal, each, qos, field=f"/topics/{index}", action="ticket"
            )
        return Grants((), [Grant(split_share(each)[1], qos) for each in request.topics])

    def _socket_grants(self, principal: Principal, request: TicketRequest) -> Grants | None:
        return self._authorization.narrow(principal, request.publish, request.subscribe)
