"""The topic in a path, read from the bytes of the request target.

A server hands over a decoded path too, in which bad UTF-8 is replaced; the raw one has all.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope

from app.api.input.percent import percent_decode
from app.problems import ProblemError, ProblemType

_NO_ROOT: Final = ""


def raw_path(scope: Scope) -> bytes:
    """The path as it came, without the prefix that a proxy or a mount put before the application.

    A server that knows no raw path hands over the decoded one alone; it is encoded again.
    """
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raw = quote(scope["path"]).encode("ascii")
    root: str = scope.get("root_path", _NO_ROOT)
    if root:
        prefix = quote(root.rstrip("/")).encode("ascii")
        if raw.startswith(prefix) and raw[len(prefix) : len(prefix) + 1] in (b"/", b""):
            return raw[len(prefix) :]
    return raw


def after_prefix(scope: Scope, prefix: bytes) -> bytes | None:
    """What follows ``prefix`` in the raw path: empty or beginning with ``/``; None where the path is another.

    Args:
        scope: the request.
        prefix: a path without a trailing slash, such as ``b"/v1/topics"``.
    """
    raw = raw_path(scope)
    if raw.startswith(prefix):
        rest = raw[len(prefix) :]
        return rest if not rest or rest[:1] == b"/" else None
    if b"%" not in raw:
        return None
    # The fixed part may be percent-encoded too, if seldom is: it means the same (RFC 3986 §6.2.2.2).
    count = prefix.count(b"/")
    parts = raw.split(b"/", count + 1)
    if [unquote_to_bytes(part) for part in parts[: count + 1]] != prefix.split(b"/"):
        return None
    return b"/" + parts[count + 1] if len(parts) > count + 1 else b""


def required_topic(rest: bytes, in_query: str | None, path: str) -> str:
    """The topic of a call that takes it behind its path or in its query.

    Args:
        rest: what follows the path, still percent-encoded.
        in_query: the query parameter ``topic``, where it is there.
        path: the call's path, for the hint.

    Raises:
        ProblemError: INVALID_TOPIC where it is nowhere, or cannot be decoded; INVALID_PARAMETER where it is
            in both places.
    """
    topic = topic_in(rest)
    if in_query is None:
        if topic:
            return topic
        raise ProblemError(
            ProblemType.INVALID_TOPIC,
            "there is no topic; it must have at least one character",
            field="topic",
            hint=f"write {path}/{{topic}}, or {path}?topic=…",
        )
    if topic:
        raise ProblemError(
            ProblemType.INVALID_PARAMETER,
            "the topic is in the path and in the query; it belongs in one of them",
            field="topic",
        )
    return in_query


def topic_in(rest: bytes) -> str:
    """The topic or filter behind a path: percent-decoded once, nothing else changed.

    ``%2F`` and ``/`` are one; leading slashes and empty levels survive. Empty where there is none.

    Raises:
        ProblemError: INVALID_TOPIC where it is not UTF-8 or an escape is broken.
    """
    if not rest:
        return ""
    return percent_decode(rest[1:], field="topic", kind=ProblemType.INVALID_TOPIC)
