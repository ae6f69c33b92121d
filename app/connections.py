"""What the server adds to uvicorn's connections: a way to give one up, and to see whether its reader reads.

ASGI has neither. An application that stops answering has the connection closed once everything written is
with the reader, and a reader that takes nothing keeps that from happening for as long as it likes. ``abort``
closes at once. What is written and not with the kernel yet tells a slow reader from one that stopped.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

CLOSE_SECONDS: Final = 1.0
"""How long a close frame may wait for a client that answers no ping."""

NOT_UTF_8: Final = 1007
"""The status of a close (RFC 6455 §7.4.1)."""

ABORT: Final = "tidegate.abort"
"""The key of the ASGI scope under which a request finds what closes its connection at once."""

UNSENT_BYTES: Final = "tidegate.unsent_bytes"
"""The key of the ASGI scope under which a request finds what counts the bytes that wait to be sent."""


class AbortableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, whose requests can be aborted."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        _equip(self.scope, self.transport)


class AbortableWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, which can be aborted too."""

    def handle_connect(self, event: Any) -> None:
        """The handshake begins; the application runs later."""
        super().handle_connect(event)
        if not self.handshake_complete:
            _equip(self.scope, self.transport)

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
                self.conn.send_close(NOT_UTF_8)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


def _equip(scope: Any, transport: asyncio.Transport) -> None:
    scope[ABORT] = transport.abort
    scope[UNSENT_BYTES] = transport.get_write_buffer_size
