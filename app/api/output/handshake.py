"""Refusing a WebSocket before it is accepted, with an answer that says why."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.types import Receive, Send

from app.api.output.answer import NO_STORE
from app.api.output.security_headers import SECURITY_HEADERS
from app.problems import CONTENT_TYPE, ProblemError

CLOSE_SECONDS: Final = 1.0

# The server's WebSocket protocol leaves its own headers out here.
_SECURITY_HEADERS: Final = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS]


async def deny(receive: Receive, send: Send, problem: ProblemError) -> None:
    """Answer the handshake with a problem.

    Args:
        receive: ASGI's; ``websocket.connect`` was received already.
        send: ASGI's.
        problem: why it is refused.
    """
    headers = [(b"content-type", CONTENT_TYPE.encode()), NO_STORE, *_SECURITY_HEADERS]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "websocket.http.response.start", "status": problem.kind.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.body()})
    # The server says once that it is over, and once that the connection is closed; it takes an application
    # that returns in between for one that never answered.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await receive()
            await receive()
