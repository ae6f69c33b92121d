"""What a bridge's error answers mean in the error tree (RFC 9457)."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Final

import httpx

from tidegate.errors import (
    ConfigurationError,
    MQTTError,
    MQTTTimeoutError,
    NotAuthorizedError,
    NotConnectedError,
    OutcomeUnknownError,
    PayloadError,
    QueueFullError,
    RefusedError,
    TLSError,
    TopicError,
    UnsupportedError,
)

_BY_TYPE: Final[dict[str, type[MQTTError]]] = {
    "body-timeout": NotConnectedError,
    "body-too-large": PayloadError,
    "broker-timeout": MQTTTimeoutError,
    "broker-unavailable": NotConnectedError,
    "conflict": OutcomeUnknownError,
    "empty-retained": PayloadError,
    "idempotency-unavailable": NotConnectedError,
    "invalid-cloudevent": PayloadError,
    "invalid-payload": PayloadError,
    "invalid-topic": TopicError,
    "no-reply": MQTTTimeoutError,
    "not-ready": NotConnectedError,
    "outcome-unknown": OutcomeUnknownError,
    "packet-too-large": UnsupportedError,
    "queue-full": QueueFullError,
    "reply-topic-busy": QueueFullError,
    "reserved-topic": TopicError,
    "schema-mismatch": PayloadError,
    "shutting-down": NotConnectedError,
    "too-many-requests": QueueFullError,
    "too-many-streams": NotConnectedError,
    "too-many-waiting": QueueFullError,
    "unsupported": UnsupportedError,
}

# For answers without a type that is known: a proxy's, or a newer bridge's.
_BY_STATUS: Final[dict[int, type[MQTTError]]] = {
    408: NotConnectedError,
    413: PayloadError,
    429: QueueFullError,
    500: OutcomeUnknownError,
    502: OutcomeUnknownError,
    503: NotConnectedError,
    504: OutcomeUnknownError,
}


def error_of(answer: httpx.Response, *, topic: str | None = None) -> MQTTError:
    """The error that an answer of 400 or above, or a redirection, stands for.

    Args:
        answer: the answer, its body read.
        topic: the topic name or filter that the request was about.
    """
    problem: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        body = answer.json()
        problem = body if isinstance(body, dict) else {}
    otherwise = f"{answer.url.host} answered {answer.status_code}, and not as a bridge does"
    return problem_error(problem, answer.status_code, topic=topic, otherwise=otherwise)


def problem_error(
    problem: dict[str, Any], status: int, *, topic: str | None = None, otherwise: str = "it failed"
) -> MQTTError:
    """The error that one problem stands for.

    Args:
        problem: the members that there are.
        status: the HTTP status.
        topic: the topic name or filter that it is about.
        otherwise: the text where the problem has none.
    """
    text = str(problem.get("detail") or otherwise)
    if problem.get("hint"):
        text = f"{text}; {problem['hint']}"
    reason_code = problem.get("reason_code")
    if status in (401, 403) and not isinstance(reason_code, int):
        reason_code = 0x87
    name = str(problem.get("type", "")).rpartition(":")[2]
    kind = _BY_TYPE.get(name)
    if kind is not None:
        return kind(text, topic=topic)
    if isinstance(reason_code, int) and reason_code >= 0x80:
        refusal = NotAuthorizedError if reason_code == 0x87 else RefusedError
        return refusal(text, reason_code=reason_code, topic=topic)
    return _BY_STATUS.get(status, ConfigurationError)(text, topic=topic)


def retry_after_seconds(answer: httpx.Response) -> float:
    """How long an answer asks to wait before the next attempt (RFC 9110 §10.2.3); 0 where it does not."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0


def transport_error(url: str, error: Exception, *, topic: str | None = None) -> MQTTError:
    """The error for a request that got no answer.

    Args:
        url: the bridge's.
        error: what the HTTP client raised.
        topic: the topic name or filter that the request was about.
    """
    reason = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return TLSError(f"TLS with the bridge at {url} failed: {reason}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(
        error,
        httpx.ConnectError
        | httpx.ConnectTimeout
        | httpx.PoolTimeout
        | httpx.ProxyError
        | httpx.UnsupportedProtocol
        | httpx.LocalProtocolError,
    ):
        return NotConnectedError(f"the bridge at {url} cannot be reached: {reason}", topic=topic)
    return OutcomeUnknownError(
        f"the bridge at {url} gave no answer ({reason}): the message may have arrived, or not", topic=topic
    )
