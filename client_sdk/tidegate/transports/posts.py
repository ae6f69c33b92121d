"""How messages are written as HTTP requests.

A message without properties goes out as the raw body of ``POST /v1/topics/{topic}``. What a path or a header
cannot carry as it is (properties, long topics, a topic that a URL takes for a step up) goes to
``POST /v1/publish``, several messages to ``POST /v1/publish/batch``, and a retained one without a payload,
which clears its topic, is a ``DELETE``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from tidegate.errors import UnsupportedError
from tidegate.message import NO_PROPERTIES, Message
from tidegate.transports.envelope import written_properties

MAX_PATH_CHARACTERS: Final = 2000
"""A longer path may be too long for a proxy on the way."""

BATCH_PATH: Final = "/v1/publish/batch"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

_DOT_SEGMENTS: Final = (".", "..")
_JSON: Final = (("Content-Type", "application/json"),)
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Post:
    """One request that publishes."""

    method: str
    path: str
    query: dict[str, str] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes = field(default=b"", repr=False)


def is_clearing(message: Message) -> bool:
    """Whether a message takes away what is kept under its topic."""
    return message.retain and not message.payload


def single_post(message: Message) -> Post:
    """The request for one message.

    Raises:
        UnsupportedError: it clears its topic and has properties, for which there is no place.
    """
    path = f"/v1/topics/{quote(message.topic, safe='')}"
    query = {"qos": str(message.qos)}
    has_properties = message.properties != NO_PROPERTIES
    if is_clearing(message):
        if has_properties:
            raise UnsupportedError("a message that clears a topic carries no properties through a bridge")
        if fits(message.topic, path):
            return Post("DELETE", path, query)
        return Post("DELETE", "/v1/topics", {**query, "topic": message.topic})
    if has_properties or not fits(message.topic, path):
        return Post("POST", "/v1/publish", None, _JSON, batch_item(message))
    if message.retain:
        query["retain"] = "true"
    return Post("POST", path, query, content=message.payload)


def batch_post(items: Sequence[bytes]) -> Post:
    """The request for several messages."""
    return Post("POST", BATCH_PATH, None, _JSON, b"[" + b",".join(items) + b"]")


def batch_item(message: Message) -> bytes:
    """One message as the JSON object that ``POST /v1/publish`` takes."""
    try:
        payload, encoding = message.payload.decode("utf-8"), "text"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(message.payload).decode("ascii"), "base64"
    body: dict[str, Any] = {
        "topic": message.topic,
        "payload": payload,
        "encoding": encoding,
        "qos": message.qos,
        "retain": message.retain,
    }
    if message.properties is not NO_PROPERTIES and (properties := written_properties(message.properties)):
        body["properties"] = properties
    return _encode(body).encode("utf-8")


def fits(topic: str, path: str) -> bool:
    """Whether a topic may stand in this path."""
    return len(path) <= MAX_PATH_CHARACTERS and topic not in _DOT_SEGMENTS
