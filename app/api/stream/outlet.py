"""A listener's end as an HTTP response without an end.

Who owns what: the hub's flusher has the pending events written, as long as the connection takes them; a
short task of ``Sending`` waits while it does not. The request's own task waits for the client to leave,
which is also how it learns of the response's end (ASGI, ``http.disconnect``). A wheel looks after
heartbeat, idle time-out and lifetime. However it ends, the listener leaves the hub in ``run`` and nowhere
else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from app.api.stream.forms import Form
from app.api.stream.sending import Sending
from app.api.stream.wheel import Wheel
from app.connections.http import ABORT, UNSENT_BYTES
from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener

logger = logging.getLogger("tidegate.streams")

PIECE_BYTES: Final = 131_072
"""About how much is written at once; what a connection takes in one go and a slow reader costs beside its
buffer."""


FAREWELL_SECONDS: Final = 1.0
"""How long a reader that takes nothing keeps a bridge that stops, or a stream that it may follow no more."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of a stream, in seconds; None for no bound.

    Attributes:
        heartbeat: silence after which a heartbeat is written.
        send_timeout: how long the reader may take nothing.
        idle_timeout: silence after which the stream ends.
        lifetime: when it ends in any case.
    """

    heartbeat: float
    send_timeout: float
    idle_timeout: float | None = None
    lifetime: float | None = None


class Outlet:
    """Writes one listener to one connection.

    Args:
        hub: the hub that the listener has joined already, and leaves at the end.
        listener: the listener.
        form: how events are written.
        pace: when.
        wheel: wakes it for what time alone brings about.
    """

    __slots__ = (
        "_abort",
        "_began_at",
        "_farewell",
        "_form",
        "_has_ended",
        "_hub",
        "_is_marked",
        "_listener",
        "_loop",
        "_message_at",
        "_pace",
        "_request",
        "_sending",
        "_wakes_at",
        "_wheel",
        "_wrote_at",
    )

    def __init__(self, hub: Hub, listener: Listener, form: Form, pace: Pace, wheel: Wheel) -> None:
        self._hub = hub
        self._listener = listener
        self._form = form
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._began_at = self._message_at = self._wrote_at = self._loop.time()
        self._has_ended = False
        self._is_marked = False
        self._abort: Callable[[], object] | None = None
        self._request: asyncio.Task[object] | None = None
        self._wheel = wheel
        self._wakes_at = 0
        self._sending: Sending | None = None
        self._farewell: asyncio.TimerHandle | None = None

    async def begin(self, scope: Scope, send: Send, start: Message, opening: bytes) -> None:
        """Begin the response; if that fails the listener leaves.

        Args:
            scope: the request's, in which the server may have ways to watch the connection and to end it.
            send: ASGI's.
            start: the ``http.response.start``.
            opening: the first bytes of the body.
        """
        self._abort = scope.get(ABORT)
        self._sending = Sending(
            send, self, timeout_seconds=self._pace.send_timeout, unsent_bytes=scope.get(UNSENT_BYTES)
        )
        try:
            await send(start)
            await send({"type": "http.response.body", "body": opening, "more_body": True})
        except BaseException:
            self._hub.leave(self._listener)
            raise

    async def run(self, receive: Receive) -> None:
        """Write until the listener is closed or the client has left; once, after ``begin``."""
        listener = self._listener
        self._request = asyncio.current_task()
        try:
            self._is_marked = listener.lacks_retained
            self.look_after()
            listener.attach(self)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._has_ended = True
            self._wheel.discard(self, self._wakes_at)
            if self._farewell is not None:
                self._farewell.cancel()
            if self._sending is not None:
                self._sending.cancel()
            self._hub.leave(listener)
            seconds = self._loop.time() - self._began_at
            reason = "unknown" if listener.close_reason is None else listener.close_reason.reason
            count = len(listener.filters)
            filters = "filter" if count == 1 else "filters"
            logger.info("a stream of %d %s ended after %.0f s: %s", count, filters, seconds, reason)

    def schedule(self) -> None:
        """Have the listener written in its turn."""
        self._hub.flusher.add(self)

    def write(self) -> None:
        """Write what is pending, as far as the connection takes it."""
        sending = self._sending
        listener = self._listener
        assert sending is not None
        if self._has_ended:
            return
        while listener.is_due and not sending.is_blocked:
            events = listener.take(PIECE_BYTES)
            if events:
                self._hub.counts.deliveries += len(events)
                sending.send({"type": "http.response.body", "body": self._encode(events), "more_body": True})
        reason = listener.close_reason
        if reason is not None and not (listener.is_due or sending.is_blocked):
            self._end(sending)
        if reason is not None and reason.is_pressing and sending.is_blocked and self._farewell is None:
            self._farewell = self._loop.call_later(FAREWELL_SECONDS, self.give_up)

    def _encode(self, events: list[Event | ControlEvent]) -> bytes:
        listener = self._listener
        if not self._form.has_controls:
            events = self._until_untold(events)
        self._is_marked = listener.retained_until > 0
        self._wrote_at = self._loop.time()
        if self._pace.idle_timeout is not None and any(isinstance(each, Event) for each in events):
            self._message_at = self._wrote_at
        return self._form.encode(
            events, listener.qos, self._hub.epoch, marked=self._is_marked, filters=listener.digest
        )

    def _until_untold(self, events: list[Event | ControlEvent]) -> list[Event | ControlEvent]:
        """The events up to what this form has no words for; the stream ends there."""
        for index, event in enumerate(events):
            if isinstance(event, ControlEvent) and event.name in ("gap", "lag"):
                self._listener.close(CloseReason.GAP)
                self._listener.discard()
                return events[:index]
        return events

    def _end(self, sending: Sending) -> None:
        """Say why, and end the response; ``receive`` then tells the request's task."""
        self._has_ended = True
        assert self._listener.close_reason is not None
        farewell = self._form.control(self._listener.close_reason.event(), self._hub.epoch, marked=False)
        sending.send({"type": "http.response.body", "body": farewell, "more_body": False})

    def give_up(self) -> None:
        """The reader takes nothing: there is no use in a farewell."""
        self._listener.close(CloseReason.TOO_SLOW)
        self._has_ended = True
        if self._abort is not None:
            self._abort()
        elif self._request is not None:
            self._request.cancel()

    def look_after(self) -> None:
        """Do what time alone brings about, and be woken for the next of it."""
        if self._has_ended:
            return
        pace = self._pace
        now = self._loop.time()
        if pace.lifetime is not None and now >= self._began_at + pace.lifetime:
            self._listener.close(CloseReason.LIFETIME)
            return
        if pace.idle_timeout is not None and now >= self._message_at + pace.idle_timeout:
            self._listener.close(CloseReason.IDLE_TIMEOUT)
            return
        if now >= self._wrote_at + pace.heartbeat:
            self._beat()
        due = self._wrote_at + pace.heartbeat
        if pace.lifetime is not None:
            due = min(due, self._began_at + pace.lifetime)
        if pace.idle_timeout is not None:
            due = min(due, self._message_at + pace.idle_timeout)
        self._wakes_at = self._wheel.add(self, max(due, now))

    def _beat(self) -> None:
        """Write a heartbeat, so that no proxy closes the connection and a dead one is noticed."""
        self._wrote_at = self._loop.time()
        assert self._sending is not None
        if self._sending.is_blocked or self._listener.is_due or self._listener.buffer:
            return
        body = self._form.heartbeat
        if self._is_marked and not self._listener.settle():
            self._is_marked = False
            body += self._form.standing(self._hub.position_of(self._listener))
        self._sending.send({"type": "http.response.body", "body": body, "more_body": True})
