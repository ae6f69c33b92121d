"""One open WebSocket: its subscriptions, what was asked for, and what waits to be sent.

Who owns what: the request's task reads frames. What a frame asks for runs in a task of its own, since the
broker may take its time; so many at once, and then nothing more is read. Frames that leave go through one
``Sending``: answers first, then what the subscriptions have pending, which the hub's flusher has written. The
socket itself is a listener without filters, so that it is told of the broker's absence and of the bridge's
end once, and not for each subscription.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from starlette.types import Receive, Scope, Send

from app.api.input.publish_request import require_carriable
from app.api.stream.frames import (
    Id,
    PingFrame,
    PublishFrame,
    SubscribeFrame,
    UnsubscribeFrame,
    acknowledged_publish,
    acknowledgement,
    read_frame,
    refusal_frame,
    socket_frame,
)
from app.api.stream.idleness import Idleness
from app.api.stream.outlet import FAREWELL_SECONDS
from app.api.stream.sending import Sending
from app.api.stream.socket_stream import SocketStream
from app.api.stream.subscriptions import Subscriptions
from app.connections.http import ABORT, UNSENT_BYTES
from app.hub.event import ControlEvent
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from app.problems import ProblemError, ProblemType, problem_of
from app.publishing.gate import Gate
from app.security.principal import Principal
from app.security.rates import Rate
from app.settings import Settings
from tidegate.errors import MQTTError

logger = logging.getLogger("tidegate.streams")

MAX_PENDING_FRAMES: Final = 100
"""What a client may have asked for and not got an answer to; more is read only then."""

SUBSCRIPTION: Final = "subscription"
"""What each subscription of a socket is counted as, beside the socket itself."""

PIECE_BYTES: Final = 65_536
GOING_AWAY: Final = 1001
"""The status of a close that the bridge begins (RFC 6455 §7.4.1)."""

NOT_AUTHENTICATED: Final = 4401
"""The status of a close because the principal is good no more; of the range for private use (§7.4.2)."""


class Opening(NamedTuple):
    """A subscription that the broker has not granted yet."""

    task: asyncio.Task[None]
    filters: int


class Socket:
    """One open WebSocket.

    Args:
        principal: who opened it.
        listener: the socket's own, without filters, joined already.
        gate: the way to the broker.
        hub: the hub.
        subscriptions: makes listeners.
        settings: the bounds.
        rate: how often the principal may send a frame; None where that is not bounded.
    """

    def __init__(
        self,
        principal: Principal,
        listener: Listener,
        gate: Gate,
        hub: Hub,
        subscriptions: Subscriptions,
        settings: Settings,
        rate: Rate | None = None,
    ) -> None:
        self.hub = hub
        self._principal = principal
        self._listener = listener
        self._gate = gate
        self._opener = subscriptions
        self._settings = settings
        self._rate = rate
        self._streams: dict[Id, SocketStream] = {}
        self._opening: dict[Id, Opening] = {}
        self._answers: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_closing = False
        self._has_said_goodbye = False
        self._may_be_given_up = False
        self._abort: Any = None
        self._request: asyncio.Task[Any] | None = None
        self.sending: Sending | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send, subprotocol: str | None) -> None:
        """Serve until either end closes (ASGI)."""
        loop = asyncio.get_running_loop()
        self._abort = scope.get(ABORT)
        self._request = asyncio.current_task()
        lifetime = idleness = None
        try:
            await send({"type": "websocket.accept", "subprotocol": subprotocol})
            self.sending = Sending(
                send,
                self,
                timeout_seconds=self._settings.stream_send_timeout_seconds,
                unsent_bytes=scope.get(UNSENT_BYTES),
            )
            self._listener.attach(self)
            if self._settings.stream_lifetime_seconds is not None:
                lifetime = loop.call_later(
                    self._settings.stream_lifetime_seconds, self._listener.close, CloseReason.LIFETIME
                )
            idleness = Idleness(
                self._settings.websocket_idle_seconds,
                lambda: bool(self._streams or self._tasks),
                lambda: self._listener.close(CloseReason.IDLE_TIMEOUT),
            )
            while (message := await receive())["type"] == "websocket.receive":
                idleness.note()
                await self._take(message)
        finally:
            self._is_closing = True
            if idleness is not None:
                idleness.cancel()
            if lifetime is not None:
                lifetime.cancel()
            for stream in self._streams.values():
                stream.end()
            self.hub.leave(self._listener)
            for opening in self._opening.values():
                opening.task.cancel()  # what was to be published is: the client may leave before the answer
            if self.sending is not None:
                self.sending.cancel()
            reason = self._listener.close_reason
            assert reason is not None  # whoever leaves is closed
            self.hub.ended[reason] += 1
            logger.info("a WebSocket ended: %s", reason.reason)

    # What comes in.

    async def _take(self, message: Any) -> None:
        text = message.get("text")
        if text is None:
            problem = ProblemError(
                ProblemType.MALFORMED_BODY, "a frame is JSON in a text frame, and this one is binary"
            )
            self._answer(refusal_frame(None, problem))
            return
        frame, frame_id = read_frame(text.encode())
        refusal = self._why_too_often()
        if refusal is not None:
            self._answer(refusal_frame(frame_id, refusal))
        elif isinstance(frame, ProblemError):
            self._answer(refusal_frame(frame_id, frame))
        elif isinstance(frame, PingFrame):
            self._answer(acknowledgement(frame.id))
        elif isinstance(frame, UnsubscribeFrame):
            opening = self._opening.get(frame.subscription)
            if opening is None:
                self._unsubscribe(frame)
            else:
                self._spawn(frame.id, self._unsubscribe_when_open, frame, opening)
        elif isinstance(frame, SubscribeFrame):
            self._begin_to_subscribe(frame)
        else:
            self._spawn(frame.id, self._publish, frame)
        await self._has_room.wait()

    def _why_too_often(self) -> ProblemError | None:
        if self._rate is None:
            return None
        try:
            self._rate.take(self._principal.bounded_as, self._principal)
        except ProblemError as problem:
            return problem
        return None

    def _begin_to_subscribe(self, frame: SubscribeFrame) -> None:
        problem = self._why_not(frame)
        if problem is not None:
            self._answer(refusal_frame(frame.id, problem))
            return
        task = self._spawn(frame.id, self._subscribe, frame)
        self._opening[frame.id] = Opening(task, len(frame.topics))

    def _why_not(self, frame: SubscribeFrame) -> ProblemError | None:
        """What the socket itself has against a subscription; those on their way count like the others."""
        if frame.id in self._streams or frame.id in self._opening:
            return ProblemError(
                ProblemType.CONFLICT,
                f"there is a subscription {frame.id!r} already",
                field="/id",
                hint="unsubscribe first, or take another id",
            )
        held = sum(len(each.listener.filters) for each in self._streams.values())
        held += sum(each.filters for each in self._opening.values())
        if held + len(frame.topics) > self._settings.max_filters_per_stream:
            return ProblemError(
                ProblemType.INVALID_PARAMETER,
                f"the socket would follow {held + len(frame.topics)} filters; "
                f"TIDEGATE_MAX_FILTERS_PER_STREAM allows {self._settings.max_filters_per_stream}",
                field="/topics",
                hint="use a filter with a wildcard, or several sockets",
            )
        return None

    async def _subscribe(self, frame: SubscribeFrame) -> None:
        try:
            listener, position = await self._opener.open(
                self._principal,
                frame,
                frame.last_event_id,
                field="/topics",
                form=SUBSCRIPTION,
            )
        finally:
            del self._opening[frame.id]
        assert self.sending is not None
        stream = self._streams[frame.id] = SocketStream(
            self.hub, self.sending, frame.id, listener, self._forget
        )
        # in front of the first message
        self._answer(acknowledgement(frame.id, subscription=frame.id, event_id=str(position)))
        listener.attach(stream)

    async def _unsubscribe_when_open(self, frame: UnsubscribeFrame, opening: Opening) -> None:
        await asyncio.wait([opening.task])
        self._unsubscribe(frame)

    def _unsubscribe(self, frame: UnsubscribeFrame) -> None:
        stream = self._streams.pop(frame.subscription, None)
        if stream is None:
            problem = ProblemError(
                ProblemType.INVALID_BODY,
                f"there is no subscription {frame.subscription!r}",
                field="/subscription",
                hint="it is the id of the frame that subscribed",
            )
            self._answer(refusal_frame(frame.id, problem))
            return
        stream.end()
        self._answer(acknowledgement(frame.id, subscription=frame.subscription))

    async def _publish(self, frame: PublishFrame) -> None:
        require_carriable(frame.message, self._gate.limits)
        reason_code = await self._gate.publish(self._principal, frame.message, field="/topic")
        self._answer(acknowledged_publish(frame.id, frame.message, reason_code))

    def _spawn(
        self, frame_id: Id, work: Callable[..., Awaitable[None]], *arguments: Any
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._carry_out(frame_id, work, *arguments))
        self._tasks.add(task)
        self._see_whether_there_is_room()
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._see_whether_there_is_room()

    def _see_whether_there_is_room(self) -> None:
        """Read no more while much is unanswered; once nothing can be answered, read to the end."""
        is_over = self._is_closing or (self.sending is not None and self.sending.has_failed)
        if is_over or max(len(self._tasks), len(self._answers)) < MAX_PENDING_FRAMES:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _carry_out(self, frame_id: Id, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except ProblemError as problem:
            self._answer(refusal_frame(frame_id, problem))
        except MQTTError as error:
            self._answer(refusal_frame(frame_id, problem_of(error)))
        except Exception:
            logger.exception("a frame could not be carried out")
            fault = ProblemError(
                ProblemType.INTERNAL_ERROR, "the bridge failed on this frame; its log tells why"
            )
            self._answer(refusal_frame(frame_id, fault))

    # What goes out.

    def _answer(self, text: str) -> None:
        self._answers.append(text)
        self._write_answers()

    def _write_answers(self) -> None:
        sending = self.sending
        if sending is None or self._is_closing:
            return
        while self._answers and not sending.is_blocked:
            sending.send({"type": "websocket.send", "text": self._answers.popleft()})
        self._see_whether_there_is_room()

    def schedule(self) -> None:
        """Have the socket's own events written."""
        self.hub.flusher.add(self)

    def write(self) -> None:
        """Write all that is pending, as far as the connection takes it."""
        self._write_answers()
        sending = self.sending
        if sending is None or self._is_closing:
            return
        while self._listener.is_due and not sending.is_blocked:
            for event in self._listener.take(PIECE_BYTES):
                if isinstance(event, ControlEvent) and event.name == "broker":
                    self._answers.append(socket_frame(event))
            self._write_answers()
        for stream in list(self._streams.values()):
            stream.write()
        reason = self._listener.close_reason
        if reason is not None and not sending.is_blocked:
            self._say_goodbye(reason)
        has_to_go = reason is not None and reason.is_pressing and sending.is_blocked and not self._is_closing
        if (reason is CloseReason.SHUTDOWN or has_to_go) and not self._may_be_given_up:
            # nobody waits for long for a client that reads nothing, not even the close
            self._may_be_given_up = True
            asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self.give_up)

    def _say_goodbye(self, reason: CloseReason) -> None:
        assert self.sending is not None
        if not self._has_said_goodbye:
            self._has_said_goodbye = True
            self._answers.append(socket_frame(reason.event()))
        self._write_answers()
        if self.sending.is_blocked:
            return
        self._is_closing = True
        ended = (CloseReason.TOKEN_EXPIRED, CloseReason.TOKEN_REVOKED)
        code = NOT_AUTHENTICATED if reason in ended else GOING_AWAY
        self.sending.send({"type": "websocket.close", "code": code, "reason": reason.reason})

    def _forget(self, frame_id: Id) -> None:
        """A subscription ended by itself."""
        self._streams.pop(frame_id, None)

    def give_up(self) -> None:
        """The client takes nothing."""
        self._listener.close(CloseReason.TOO_SLOW)
        self._is_closing = True
        self._has_room.set()
        if self._abort is not None:
            self._abort()
        elif self._request is not None:
            self._request.cancel()
