"""Counts every HTTP request by its answer, in front of everything that answers.

Rules:

1. What counts is what the client was sent: the status that was written, whoever wrote it; none where the
   client was gone by then.
2. The end of an answer is its last message. A stream, and a WebSocket, count when they begin.
3. A message is handed on as it came, and without a coroutine of its own: this is called for each piece that a
   stream writes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.origin import STREAM
from app.logs.context import NO_ROUTE, ROUTE
from app.metrics.http_counts import NO_ANSWER, OTHER, HttpCounts

OK: Final = 200
SWITCHING_PROTOCOLS: Final = 101
FORBIDDEN: Final = 403
INTERNAL_SERVER_ERROR: Final = 500


class Client(Protocol):
    """Who made the request.

    Attributes:
        disconnected: whether they left.
    """

    disconnected: bool


class RequestCounting:
    """Counts the requests of one server.

    Args:
        counts: where they are counted.
        find_route: gives the template of a request's path, where no route left it in the scope.
    """

    __slots__ = ("counts", "find_route")

    def __init__(self, counts: HttpCounts, find_route: Callable[[Scope], str]) -> None:
        self.counts = counts
        self.find_route = find_route

    def counted(self, app: ASGIApp, client: Client) -> ASGIApp:
        """An application for one request, which is counted.

        Args:
            app: what answers it.
            client: who made it.
        """
        return _CountedRequest(app, client, self)

    def count_refused_head(self, status: int) -> None:
        """Count a head that was answered and never became a request."""
        self.counts.count_refused_head(OTHER, NO_ROUTE, status)


class _CountedRequest:
    """One request."""

    __slots__ = ("_app", "_began_at", "_client", "_counting", "_is_open", "_scope", "_send", "_status")

    def __init__(self, app: ASGIApp, client: Client, counting: RequestCounting) -> None:
        self._began_at = perf_counter()
        self._app = app
        self._client = client
        self._counting = counting
        self._status = NO_ANSWER

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        self._scope = scope
        self._send = send
        self._is_open = True
        self._counting.counts.in_progress += 1
        try:
            await self._app(scope, receive, self._watch)
        finally:
            if self._is_open:
                # The server answers for an application that does not.
                if self._status == NO_ANSWER and not self._client.disconnected:
                    self._status = INTERNAL_SERVER_ERROR
                self._end()

    def _watch(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            if self._is_open and not message.get("more_body"):
                self._end()
        elif kind == "http.response.start":
            if not self._client.disconnected:
                status = self._status = message["status"]
                if status == OK and self._scope.get(ROUTE) == STREAM:
                    self._end()
        elif self._is_open:
            self._watch_handshake(kind, message)
        return self._send(message)

    def _watch_handshake(self, kind: str, message: Message) -> None:
        """The answer to the handshake of a WebSocket (RFC 6455 §4.2.2) is its first message."""
        if not self._client.disconnected:
            if kind == "websocket.accept":
                self._status = SWITCHING_PROTOCOLS
            else:
                self._status = message.get("status", FORBIDDEN)  # closed before it was accepted
        self._end()

    def _end(self) -> None:
        self._is_open = False
        scope = self._scope
        counting = self._counting
        counting.counts.count(
            scope.get("method", "GET"),
            scope.get(ROUTE) or counting.find_route(scope),
            self._status,
            perf_counter() - self._began_at,
        )
