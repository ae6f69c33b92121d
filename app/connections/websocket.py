"""What the server adds to uvicorn's WebSocket connections: bounds, and a way to give one up."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from app.connections.head_bounds import written
from app.connections.http import bounds_of, counting_of, equip
from app.logs.context import HEADER, RAW_HEADER, request_id, request_id_of
from app.problems import ProblemError, ProblemType

CLOSE_SECONDS: Final = 1.0
"""How long a close frame may wait for a client that answers no ping."""

MAX_FRAGMENTS: Final = 10_000
"""Frames that one message may come in; empty ones take memory too, and never reach its size."""

MAX_UNSENT_BYTES: Final = 65_536
"""With more that waits for the reader no ping is answered (RFC 6455 §5.5.3: the last one is enough)."""

NOT_UTF_8: Final = 1007
POLICY: Final = 1008
"""The status of a close (RFC 6455 §7.4.1)."""


class BoundedWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, within bounds, which can be aborted too."""

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
        self._message_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """A piece came. A handshake that cannot be read gets an answer, which uvicorn does not give it."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not (self.handshake_initiated or self.close_sent):
            self.close_sent = self.handshake_complete = True
            problem = ProblemError(
                ProblemType.BAD_REQUEST, f"the handshake of the WebSocket: {self.conn.handshake_exc}"
            )
            self._count_refused_head(problem.kind.status)
            self.transport.write(b"".join(self.conn.data_to_send()) or written(problem))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_connect(self, event: Any) -> None:
        """The handshake begins; the application runs later."""
        raw = event.headers.get_all(HEADER)
        identity = request_id_of([(RAW_HEADER, each.encode("utf-8", "replace")) for each in raw])
        self.default_headers = [*self.default_headers, (RAW_HEADER, identity)]
        if self._counting is not None:
            self.app = self._counting.counted(self.app, self)
        token = request_id.set(identity.decode("ascii"))
        try:
            super().handle_connect(event)  # the task that begins here takes the id along
        finally:
            request_id.reset(token)
        if self.handshake_complete:  # the server refused it by itself
            self._count_refused_head(self.response.status_code)
        else:
            equip(self.scope, self.transport)

    def handle_text(self, event: Frame) -> None:
        """A message in text, or its first fragment."""
        super().handle_text(event)
        if not event.fin:
            self._wait_for_rest()

    def handle_bytes(self, event: Frame) -> None:
        """A message in bytes, or its first fragment."""
        super().handle_bytes(event)
        if not event.fin:
            self._wait_for_rest()

    def handle_cont(self, event: Frame) -> None:
        """One more fragment."""
        super().handle_cont(event)
        if event.fin:
            self._stop_waiting()
        elif len(self.frames) > MAX_FRAGMENTS and not self.close_sent:
            self._refuse(POLICY, f"more than {MAX_FRAGMENTS} fragments")

    def handle_ping(self) -> None:
        """Answer, unless the client takes no answers."""
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.conn.data_to_send()
        else:
            super().handle_ping()

    def keepalive_timeout(self) -> None:
        """No pong came. The close frame may wait for ever behind what the client does not read."""
        super().keepalive_timeout()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def send_receive_event_to_app(self) -> None:
        """A message is complete. Text that is not UTF-8 is the client's fault, and no error to log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._refuse(NOT_UTF_8, "")
                return
        super().send_receive_event_to_app()

    def _count_refused_head(self, status: int) -> None:
        if self._counting is not None:
            self._counting.count_refused_head(status)

    def _wait_for_rest(self) -> None:
        self._message_timer = self.loop.call_later(self._bounds.message_timeout_seconds, self._end_waiting)

    def _stop_waiting(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _end_waiting(self) -> None:
        self._message_timer = None
        if not self.close_sent and not self.transport.is_closing():
            seconds = self._bounds.message_timeout_seconds
            self._refuse(
                POLICY, f"a message was not complete within {seconds:g} s (TIDEGATE_BODY_TIMEOUT_SECONDS)"
            )

    def _refuse(self, code: int, reason: str) -> None:
        self._stop_waiting()
        self.frames = []
        self.conn.send_close(code, reason)
        self.handle_parser_exception()
