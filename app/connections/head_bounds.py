"""The bounds of connections and of heads of requests, and their refusals in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self

from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from app.problems import CONTENT_TYPE, ProblemError, ProblemType
from app.settings import Settings

PROBES: Final = frozenset({b"/livez", b"/readyz"})
"""What is answered however many connections there are: whoever asks might restart the bridge otherwise."""

_REQUEST_LINE_BYTES: Final = len("  HTTP/1.1\r\n")
_FIELD_BYTES: Final = len(": \r\n")

Fields = Sequence[tuple[bytes, bytes]]
App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HeadBounds:
    """The bounds.

    Attributes:
        header_timeout_seconds: how long a head may take.
        max_header_bytes: the header fields of a request, all together.
        max_target_bytes: its target, path and query.
        max_connections: connections at once.
        message_timeout_seconds: how long a WebSocket's message in fragments may take.
        send_timeout_seconds: how long a reader may take nothing of an answer.
    """

    header_timeout_seconds: float
    max_header_bytes: int
    max_target_bytes: int
    max_connections: int
    message_timeout_seconds: float
    send_timeout_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the settings."""
        return cls(
            settings.header_timeout_seconds,
            settings.max_header_bytes,
            settings.max_target_bytes,
            settings.max_connections,
            settings.body_timeout_seconds,
            settings.stream_send_timeout_seconds,
        )

    @property
    def max_head_bytes(self) -> int:
        """What of a head is waited for."""
        return self.max_header_bytes + self.max_target_bytes

    def why_refused(
        self,
        method: bytes,
        target: bytes,
        fields: Fields,
        *,
        is_upgrade: bool,
        is_too_many: bool,
    ) -> ProblemError | None:
        """What a complete head is refused for; None where it is within the bounds.

        Args:
            method: the method.
            target: path and query, as they came.
            fields: the header fields.
            is_upgrade: whether it asks for another protocol.
            is_too_many: whether its connection is one too many.
        """
        if is_too_many and target not in PROBES:
            return self._too_many_connections()
        if len(target) > self.max_target_bytes:
            return self._target_too_long(len(target))
        if _size(fields) > self.max_header_bytes:
            return self._headers_too_large()
        return _why_no_websocket(method, target, fields) if is_upgrade else None

    def head_too_large(self, target: bytes) -> ProblemError:
        """The refusal of a head that is not complete and too large already."""
        if len(target) > self.max_target_bytes:
            return self._target_too_long(len(target))
        return self._headers_too_large()

    def header_timeout(self) -> ProblemError:
        """The refusal of a head that did not become complete."""
        return ProblemError(
            ProblemType.HEADER_TIMEOUT,
            "the head of the request did not arrive within the "
            f"{self.header_timeout_seconds:g} s of TIDEGATE_HEADER_TIMEOUT_SECONDS",
        )

    def _headers_too_large(self) -> ProblemError:
        return ProblemError(
            ProblemType.HEADERS_TOO_LARGE,
            "the header fields have more bytes than TIDEGATE_MAX_HEADER_BYTES allows: "
            f"{self.max_header_bytes}",
        )

    def _target_too_long(self, size: int) -> ProblemError:
        return ProblemError(
            ProblemType.TARGET_TOO_LONG,
            f"path and query have {size} bytes or more; TIDEGATE_MAX_TARGET_BYTES allows "
            f"{self.max_target_bytes}",
            hint="POST /v1/subscribe and POST /v1/publish take topics in their bodies",
        )

    def _too_many_connections(self) -> ProblemError:
        return ProblemError(
            ProblemType.TOO_MANY_CONNECTIONS,
            f"as many connections are open as TIDEGATE_MAX_CONNECTIONS allows: {self.max_connections}",
        )


def _why_no_websocket(method: bytes, target: bytes, fields: Fields) -> ProblemError | None:
    """What the package that speaks WebSocket has against a handshake; it would leave it without an answer."""
    if len(method) + len(target) + _REQUEST_LINE_BYTES > MAX_LINE_LENGTH:
        return ProblemError(
            ProblemType.TARGET_TOO_LONG,
            f"the request line of a WebSocket's handshake has at most {MAX_LINE_LENGTH} bytes",
        )
    if len(fields) > MAX_NUM_HEADERS:
        return ProblemError(
            ProblemType.HEADERS_TOO_LARGE,
            f"a WebSocket's handshake has at most {MAX_NUM_HEADERS} header fields, and not {len(fields)}",
        )
    for name, value in fields:
        if len(name) + len(value) + _FIELD_BYTES > MAX_LINE_LENGTH:
            return ProblemError(
                ProblemType.HEADERS_TOO_LARGE,
                f"a header field of a WebSocket's handshake has at most {MAX_LINE_LENGTH} bytes",
                field=name.decode("latin-1"),
            )
    return None


def _size(fields: Fields) -> int:
    return sum(len(name) + len(value) + _FIELD_BYTES for name, value in fields)


def _headers_of(problem: ProblemError, body: bytes) -> list[tuple[bytes, bytes]]:
    headers = {
        "content-type": CONTENT_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def refusing(problem: ProblemError) -> App:
    """An application that answers with a problem, reads nothing, and has the connection closed."""

    async def refuse(_: Any, __: Any, send: Any) -> None:
        body = problem.body()
        headers = _headers_of(problem, body)
        await send({"type": "http.response.start", "status": problem.kind.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return refuse


def written(problem: ProblemError) -> bytes:
    """The same answer as it stands on the wire (RFC 9112 §4)."""
    body = problem.body()
    status = problem.kind.status
    lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode("ascii"))]
    lines += [b"%b: %b" % field for field in _headers_of(problem, body)]
    return b"\r\n".join([*lines, b"", body])
