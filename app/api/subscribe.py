"""``GET /v1/subscribe``: follow topics as a stream of events.

Everything that can be refused is refused before the first byte: after a 200 no status is left.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from app.api.event_stream import EventStream
from app.api.negotiation import preferred
from app.api.query import Flag, QoS, parse_query
from app.api.raw_route import RawRoute
from app.api.topic_rules import require_filter
from app.hub.event import ControlEvent
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from app.problems import ProblemError, ProblemType
from app.settings import Settings

PATH: Final = "/v1/subscribe"
EVENT_STREAM: Final = "text/event-stream"
MAX_EVENT_ID_CHARACTERS: Final = 200


class SubscribeQuery(BaseModel):
    """What may be said about a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: tuple[str, ...] = Field(
        description="A topic filter (MQTT 5 §4.7). May be repeated: one stream follows many filters, and "
        "gets a message once however many of them match. Write `%2B` for `+` and `%23` for `#`.",
        examples=[["sensors/+/temperature", "alerts/#"]],
    )
    qos: QoS = Field(1, description="The highest quality of service wanted (MQTT 5 §3.8.3.1).", examples=[1])
    retained: Flag = Field(True, description="Begin with the retained messages that match.", examples=[True])
    last_event_id: str | None = Field(
        None, description="The last event seen, for a client that cannot set `Last-Event-ID`."
    )
    lastEventId: str | None = Field(  # noqa: N815 - the name that EventSource polyfills use
        None, description="The same, under the name that EventSource polyfills use."
    )


class SubscribeRoute(RawRoute):
    """The call.

    Args:
        hub: whom to join.
        settings: bounds of streams, and their heartbeat.
    """

    path = path_format = PATH
    methods = ("GET",)

    def __init__(self, hub: Hub, settings: Settings) -> None:
        super().__init__()
        self._hub = hub
        self._settings = settings

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a stream (ASGI)."""
        query = parse_query(scope["query_string"], SubscribeQuery)
        preferred(scope["headers"], (EVENT_STREAM,))
        self._refuse_beyond_bounds(query)
        for topic_filter in query.topic:
            require_filter(topic_filter)
        settings = self._settings
        listener = Listener(
            query.topic,
            qos=query.qos,
            retained=query.retained,
            max_messages=settings.listener_max_messages,
            max_bytes=settings.listener_max_bytes,
        )
        await self._hub.join(listener)
        if listener.close_reason is CloseReason.SHUTDOWN:
            raise ProblemError(ProblemType.SHUTTING_DOWN, "the bridge stops; connect again in a moment")
        stream = EventStream(
            listener,
            self._hub,
            heartbeat_seconds=settings.heartbeat_seconds,
            send_timeout_seconds=settings.stream_send_timeout_seconds,
            opening=_opening(scope, query),
            hints=_hints(query),
        )
        await stream(scope, receive, send)

    def _refuse_beyond_bounds(self, query: SubscribeQuery) -> None:
        settings = self._settings
        if len(query.topic) > settings.max_filters_per_stream:
            raise ProblemError(
                ProblemType.INVALID_PARAMETER,
                f"{len(query.topic)} filters; a stream may have {settings.max_filters_per_stream}",
                field="topic",
                hint="use a filter with a wildcard, or several streams",
            )
        if self._hub.listeners >= settings.max_streams:
            raise ProblemError(
                ProblemType.TOO_MANY_STREAMS, f"{settings.max_streams} streams are open: as many as may be"
            )


def _opening(scope: Scope, query: SubscribeQuery) -> list[ControlEvent]:
    """A client that comes back is told that what it missed is gone: this version keeps no journal."""
    last = query.last_event_id or query.lastEventId
    if last is None:
        last = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"last-event-id"), None)
    if not last:
        return []
    return [ControlEvent("gap", {"reason": "not_kept", "last_event_id": last[:MAX_EVENT_ID_CHARACTERS]})]


def _hints(query: SubscribeQuery) -> list[str]:
    return [
        f"the filter {each!r} ends in an empty level; if it should end in #, write %23"
        for each in query.topic
        if each.endswith("/")
    ]
