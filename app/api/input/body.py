"""Reading a request's body within bounds of size and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from app.problems import ProblemError, ProblemType

_is_json: Final = re.compile(rb"\s*application/(?:json|[^\s;/]+\+json)\s*(?:;|$)", re.IGNORECASE).match
_CLOSE: Final = {"Connection": "close"}
"""What the client still sends is nobody's to read."""


class BodyReader:
    """Reads bodies.

    Args:
        max_bytes: the largest body.
        timeout_seconds: bound on the whole of it, from the end of the headers on.
    """

    def __init__(self, *, max_bytes: int, timeout_seconds: float) -> None:
        self.max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def read(self, receive: Receive, content_length: int | None) -> bytes:
        """The whole body.

        Args:
            receive: the request's channel (ASGI).
            content_length: what the header says, so that a body too large is refused before it is read.

        Raises:
            ProblemError: BODY_TOO_LARGE or BODY_TIMEOUT; both close the connection.
            ClientDisconnect: the client left before the end.
        """
        if content_length is not None and content_length > self.max_bytes:
            raise self._too_large(content_length)
        if content_length == 0:
            return b""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body", False):
                    body: bytes = message.get("body", b"")
                    if len(body) > self.max_bytes:
                        raise self._too_large(len(body))
                    return body
                return await self._rest(receive, message)
        except TimeoutError:
            raise ProblemError(
                ProblemType.BODY_TIMEOUT,
                f"the body did not arrive within the {self._timeout_seconds:g} s of "
                "TIDEGATE_BODY_TIMEOUT_SECONDS; nothing was sent",
                headers=_CLOSE,
            ) from None

    async def stream(self, receive: Receive) -> AsyncIterator[bytes]:
        """The parts of a body of lines, of any length, as they come; nothing is read ahead.

        Each line has as long as a whole body of another kind: a byte now and then is no sign of life. The
        time in which nothing more is asked for does not count.

        Args:
            receive: the request's channel (ASGI).

        Raises:
            ProblemError: BODY_TIMEOUT, which closes the connection: no line was complete in time.
            ClientDisconnect: the client left before the end.
        """
        clock = asyncio.get_running_loop().time
        left = self._timeout_seconds
        more = True
        while more:
            asked_at = clock()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(
                    ProblemType.BODY_TIMEOUT,
                    f"no line of the body was complete within the {self._timeout_seconds:g} s of "
                    "TIDEGATE_BODY_TIMEOUT_SECONDS; what came before is published",
                    headers=_CLOSE,
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            part: bytes = message.get("body", b"")
            left = self._timeout_seconds if b"\n" in part else left - (clock() - asked_at)
            yield part

    async def _rest(self, receive: Receive, message: Message) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > self.max_bytes:
                raise self._too_large(None)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()

    def _too_large(self, size: int | None) -> ProblemError:
        has = "more bytes than may be" if size is None else f"{size} bytes"
        return ProblemError(
            ProblemType.BODY_TOO_LARGE,
            f"the body has {has}; TIDEGATE_MAX_BODY_BYTES allows {self.max_bytes}",
            headers=_CLOSE,
        )


async def read_whole(bodies: BodyReader, request: Request) -> bytes:
    """The body of a request to one of the framework's own routes.

    Raises:
        ProblemError: as ``BodyReader.read``; or BAD_REQUEST, which nobody reads: the client left.
    """
    told = request.headers.get("content-length", "")
    try:
        return await bodies.read(request.receive, int(told) if told.isdecimal() else None)
    except ClientDisconnect:
        raise ProblemError(ProblemType.BAD_REQUEST, "the client left before the end of the body") from None


def require_json(content_type: bytes | None, hint: str) -> None:
    """Check that a body says that it is JSON.

    Args:
        content_type: the header, or None.
        hint: what to do where it does not.

    Raises:
        ProblemError: UNSUPPORTED_MEDIA_TYPE where it does not.
    """
    if content_type is None or not _is_json(content_type):
        told = "none" if content_type is None else repr(content_type.decode("latin-1"))
        raise ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            f"the body is JSON, and its Content-Type says so; this request has {told}",
            field="Content-Type",
            hint=hint,
        )


def require_text(payload: bytes, field: str) -> None:
    """Check a payload that is said to be text: a broker may end the connection on one that is none.

    Args:
        payload: the payload.
        field: what says so.

    Raises:
        ProblemError: INVALID_PAYLOAD where it is not UTF-8 (MQTT 5 §3.3.2.3.2).
    """
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(
            ProblemType.INVALID_PAYLOAD,
            f"the payload is said to be UTF-8 text, and is not: byte {error.start + 1}; nothing was sent",
            field=field,
            hint="leave the payload format out, or set it to 0",
        ) from None
