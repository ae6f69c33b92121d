"""What the server adds to uvicorn's connections: bounds on those that send slowly or too much, a way to give
one up, to see whether its reader reads, and an id for each request.

Rules:

1. A head that does not become complete in time, or grows beyond its bounds, ends its connection; a connection
   that never sent anything ends without a word.
2. A head that is refused is answered as any request, in its turn and in words, by an application that does
   nothing else.
3. The package that speaks WebSocket has bounds of its own for heads. What exceeds them never gets there.
4. The id of a request is a header that the server adds itself, so that it is on every answer, whoever makes
   it, and costs nothing where a stream is written. The task of the request has it in its context, and
   nobody else: the server's callbacks run in one context, whichever connection they are for.
5. Who has an answer wait, and takes nothing of it for the time that streams give a reader, loses the
   connection: what waits is memory of the bridge's.

ASGI has no way to close a connection. An application that stops answering has it closed once everything
written is with the reader, and a reader that takes nothing keeps that from happening for as long as it
likes. ``abort`` closes at once. What is written and not with the kernel yet tells a slow reader from one that
stopped.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.connections.head_bounds import HeadBounds, refusing, written
from app.logs.context import RAW_HEADER, request_id, request_id_of
from app.problems import ProblemError, ProblemType

ABORT: Final = "tidegate.abort"
"""The key of the ASGI scope under which a request finds what closes its connection at once."""

UNSENT_BYTES: Final = "tidegate.unsent_bytes"
"""The key of the ASGI scope under which a request finds what counts the bytes that wait to be sent."""

SPARE_CONNECTIONS: Final = 100
"""So many beyond the bound are told why they are refused; more are closed at once."""

REFUSAL_SECONDS: Final = 1.0
"""How long one of those may take to send its request."""

STREAMS_FIRST_SECONDS: Final = 1.0
"""A stream that gives its reader up knows why, and says so in the log; so it has its turn before."""


class Counting(Protocol):
    """Counts requests by their answers."""

    def counted(self, app: Any, client: Any) -> Any:
        """The application for one request, which is counted; a client says whether it ``disconnected``."""

    def count_refused_head(self, status: int) -> None:
        """Count a head that was answered and never became a request."""


class BridgeConfig(Config):
    """uvicorn's configuration, and the bounds of its connections.

    Args:
        app: the application.
        bounds: the bounds.
        counting: counts the requests; None where they are not counted.
        options: uvicorn's own.
    """

    def __init__(
        self, app: Any, bounds: HeadBounds, *, counting: Counting | None = None, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self.bounds = bounds
        self.counting = counting


def bounds_of(config: Config) -> HeadBounds:
    """The bounds of a server's connections."""
    assert isinstance(config, BridgeConfig)
    return config.bounds


def counting_of(config: Config) -> Counting | None:
    """What counts a server's requests."""
    assert isinstance(config, BridgeConfig)
    return config.counting


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, within bounds, whose requests can be aborted."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = bounds_of(config)
        self._counting = counting_of(config)
        self._smallest_bound = min(self._bounds.max_header_bytes, self._bounds.max_target_bytes)
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._head_is_open = False
        self._head_has_come = False
        self._head_has_begun = False
        self._head_bytes = 0
        """What came of the head that is open, and of whatever stood before it in the same piece."""
        self._first_bytes = 0
        """The size of that piece."""
        self._is_too_many = False
        self._refuses = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is there; its first request has to come in time."""
        super().connection_made(transport)
        seconds = self._bounds.header_timeout_seconds
        others = len(self.connections) - 1
        if others >= self._bounds.max_connections:
            if others >= self._bounds.max_connections + SPARE_CONNECTIONS:
                transport.abort()
                return
            self._is_too_many = True
            seconds = min(seconds, REFUSAL_SECONDS)
        self._head_timer = self.loop.call_later(seconds, self._end_waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_waiting()
        self._stop_looking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits than the reader takes at once: from now on it has to take something now and then."""
        super().pause_writing()
        if self._reader_timer is None:
            self._look_again(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It took nearly all."""
        self._stop_looking()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """A piece came: see whether what it leaves unfinished is within its bounds."""
        self._head_has_come = self._head_has_begun = False
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._head_is_open:
            self._head_bytes = 0
            if self._head_has_come or self._is_taking_body:
                return  # the usual
        elif self._head_has_begun:
            self._head_bytes = self._first_bytes = len(data)
        elif self._head_bytes - self._first_bytes > self._bounds.max_head_bytes:
            self._refuse_at_once()
            return
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self._bounds.header_timeout_seconds, self._end_waiting)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_is_open = self._head_has_begun = True
        equip(self.scope, self.transport)

    def on_headers_complete(self) -> None:
        """A head is complete: it goes to the application, or to one that refuses it."""
        self._head_is_open = False
        self._head_has_come = True
        if self._head_timer is not None:
            self._stop_waiting()
        problem = None
        is_upgrade = self.parser.should_upgrade()
        # The target came with the head: where all of that is small, the target and the fields are.
        if is_upgrade or self._is_too_many or self._head_bytes > self._smallest_bound:
            problem = self._bounds.why_refused(
                self.parser.get_method(),
                self.url,
                self.headers,
                is_upgrade=is_upgrade,
                is_too_many=self._is_too_many,
            )
        if problem is None:
            super().on_headers_complete()
            if self._is_too_many:  # a probe of the bridge's health
                self.cycle.keep_alive = False
            return
        self._refuses = True
        self.url = b"/"  # one that is too long could not be taken apart
        app, self.app = self.app, refusing(problem)
        try:
            super().on_headers_complete()
        finally:
            self.app = app

    def _should_upgrade(self) -> bool:
        return not self._refuses and super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        if not self._refuses:
            super()._unsupported_upgrade_warning()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._answer_head(
            ProblemError(ProblemType.BAD_REQUEST, "what came is not HTTP/1.1, or not well-formed")
        )

    def _answer_head(self, problem: ProblemError) -> None:
        """Answer where there is no request, and close."""
        if self._counting is not None:
            self._counting.count_refused_head(problem.kind.status)
        self.transport.write(written(problem))
        self.transport.close()

    def _look_again(self, unsent: int) -> None:
        seconds = self._bounds.send_timeout_seconds + STREAMS_FIRST_SECONDS
        self._reader_timer = self.loop.call_later(seconds, self._look, unsent)

    def _look(self, before: int) -> None:
        """See whether anything went since the last look; nothing is added while so much waits."""
        unsent = self.transport.get_write_buffer_size()
        if unsent >= before:
            self.transport.abort()
        else:
            self._look_again(unsent)

    def _stop_looking(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_waiting(self) -> None:
        """The time for a head is over."""
        self._head_timer = None
        if self._is_answering:
            self._head_timer = self.loop.call_later(self._bounds.header_timeout_seconds, self._end_waiting)
        elif not self.transport.is_closing():
            if self._head_is_open:
                self._answer_head(self._bounds.header_timeout())
            else:
                self.transport.close()

    def _refuse_at_once(self) -> None:
        """More of a head came than may be, and its end is nowhere in sight."""
        self._stop_waiting()
        if self._is_answering:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._answer_head(self._bounds.head_too_large(self.url))

    @property
    def _is_answering(self) -> bool:
        """Whether a request is not answered to its end."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def _is_taking_body(self) -> bool:
        """Whether the body of such a request is on its way; whoever reads it bounds its time."""
        return self._is_answering and self.cycle.more_body

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """The application's turn for a request, whose headers are there."""
        identity = request_id_of(cycle.scope["headers"])
        cycle.default_headers = [*cycle.default_headers, (RAW_HEADER, identity)]
        if self._counting is not None:
            app = self._counting.counted(app, cycle)
        token = request_id.set(identity.decode("ascii"))
        try:
            super()._start_asgi_task(cycle, app)  # the task that begins here takes the id along
        finally:
            request_id.reset(token)  # the context is one for all connections


def equip(scope: Any, transport: asyncio.Transport) -> None:
    """Give a request what ASGI does not have."""
    scope[ABORT] = transport.abort
    scope[UNSENT_BYTES] = transport.get_write_buffer_size
