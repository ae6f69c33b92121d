"""A line in the log for each request that is through (ASGI middleware); only there where it is asked for.

A line says the route and not the path, since topics may be private, and never the query, which may hold a
ticket. Streams are logged when they end.
"""

from __future__ import annotations

import logging
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs.context import route_of

logger = logging.getLogger("tidegate.access")


class AccessLog:
    """Logs requests.

    Args:
        app: the rest of the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and log it (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began_at = perf_counter()
        status = 0
        sent = 0

        async def watch(message: Message) -> None:
            nonlocal status, sent
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            sent += len(message.get("body") or message.get("bytes") or (message.get("text") or "").encode())
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            status = 500  # answered by who stands before
            raise
        finally:
            logger.info(
                "request",
                extra={
                    "method": scope.get("method", "GET"),
                    "route": route_of(scope),
                    "status": status,
                    "milliseconds": round((perf_counter() - began_at) * 1000, 3),
                    "bytes": sent,
                },
            )
