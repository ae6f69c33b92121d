"""A listener's end as Server-Sent Events (WHATWG HTML §9.2).

Who owns what: the request's task runs ``EventSourceResponse``, which waits for the listener, writes what is
pending in one piece, sends the heartbeat, and notices a client that left. However it ends, the listener
leaves the hub here and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.hub.event import ControlEvent
from app.hub.hub import Hub
from app.hub.listener import Listener

logger = logging.getLogger("tidegate.streams")

RETRY_MILLISECONDS: Final = 2000
"""How long a browser waits before it connects again."""

DRAIN_GRACE_SECONDS: Final = 3.0
"""How long a stream may take to say goodbye once the server stops."""


class EventStream(EventSourceResponse):
    """Streams one listener until it is closed or its reader leaves.

    Args:
        listener: a listener that has joined already.
        hub: the hub that it leaves at the end.
        heartbeat_seconds: silence after which a comment line is sent.
        send_timeout_seconds: how long a reader may refuse to read before the stream ends.
        opening: control events to send first.
        hints: remarks to the reader, sent as comments.
    """

    def __init__(
        self,
        listener: Listener,
        hub: Hub,
        *,
        heartbeat_seconds: float,
        send_timeout_seconds: float,
        opening: Sequence[ControlEvent] = (),
        hints: Sequence[str] = (),
    ) -> None:
        self._listener = listener
        self._hub = hub
        self._opening = opening
        self._hints = hints
        super().__init__(
            self._pieces(),
            ping=heartbeat_seconds,
            ping_message_factory=lambda: ServerSentEvent(comment="heartbeat", sep="\n"),
            send_timeout=send_timeout_seconds,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=DRAIN_GRACE_SECONDS,
            sep="\n",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream to its end (ASGI)."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("a stream was ended: its reader took nothing for too long")
        finally:
            self._hub.leave(self._listener)

    async def _pieces(self) -> AsyncIterator[bytes]:
        listener = self._listener
        head = [b"retry: %d\n" % RETRY_MILLISECONDS]
        head += [b": %b\n" % hint.replace("\n", " ").encode() for hint in self._hints]
        yield b"".join([*head, b"\n", *(event.sse(0) for event in self._opening)])
        while True:
            await listener.wait()
            piece = listener.drain()
            if piece:
                yield piece
            elif listener.close_reason is not None:
                yield listener.close_reason.event().sse(0)
                return
