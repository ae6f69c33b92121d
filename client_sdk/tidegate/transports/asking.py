"""Requests through a bridge, which waits for the reply: ``POST /v1/requests/{topic}``."""

from __future__ import annotations

import asyncio
import base64
import random
import time
import uuid
from typing import Final
from urllib.parse import quote, unquote

import httpx

from tidegate.errors import ConfigurationError, NotConnectedError, OutcomeUnknownError, UnsupportedError
from tidegate.message import Message, Properties
from tidegate.transports.calls import Calls
from tidegate.transports.posts import IDEMPOTENCY_KEY, fits
from tidegate.transports.problems import error_of, retry_after_seconds

ANSWER_SECONDS: Final = 5.0
"""How much longer than the bridge waits for the device its own answer is waited for."""
RETRY_SECONDS: Final = 0.2

_NO_CONTENT_TYPE: Final = "application/octet-stream"


async def ask(
    calls: Calls, message: Message, *, timeout_seconds: float, response_topic: str | None
) -> Message:
    """Have a bridge publish a request, and return the reply.

    A bridge that cannot be reached is tried again. So is a request that got no answer, under the same
    Idempotency-Key, but at QoS 2, since a bridge that was restarted has forgotten its keys.

    Raises:
        UnsupportedError: the request has a property that the call does not carry.
        MQTTTimeoutError: it was sent, and no reply came; OutcomeUnknownError where that is not known.
        MQTTError: what ``error_of`` makes of the bridge's answer.
    """
    headers = _headers(message.properties)
    path = f"/v1/requests/{quote(message.topic, safe='')}"
    query = {"qos": str(message.qos)}
    if not fits(message.topic, path):
        path, query["topic"] = "/v1/requests", message.topic
    if response_topic is not None:
        query["response_topic"] = response_topic
    if message.properties.message_expiry is not None:
        query["expiry"] = str(message.properties.message_expiry)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    key = ""
    while True:
        left = deadline - loop.time()
        if not key:  # nothing was sent so far
            key = str(uuid.uuid4())
            query["timeout"] = f"{max(left, 0.001):.3f}"
        asked_seconds = 0.0
        try:
            answer = await calls.send(
                "POST",
                path,
                query=query,
                headers=[*headers, (IDEMPOTENCY_KEY, key)],
                content=message.payload,
                topic=message.topic,
                timeout=httpx.Timeout(max(left, 0.0) + ANSWER_SECONDS),
            )
            if answer.is_success:
                return _reply(calls, answer)
            asked_seconds = retry_after_seconds(answer)
            raise error_of(answer, topic=message.topic)
        except NotConnectedError as error:
            key = ""
            failure: NotConnectedError | OutcomeUnknownError = error
        except OutcomeUnknownError as error:
            if message.qos == 2:
                raise
            failure = error
        pause = max(asked_seconds, random.uniform(RETRY_SECONDS / 2, RETRY_SECONDS))  # noqa: S311 - jitter
        if loop.time() + pause >= deadline:
            raise failure
        await asyncio.sleep(pause)


def _headers(properties: Properties) -> list[tuple[str, str]]:
    refused = {
        "response_topic": properties.response_topic,
        "correlation_data": properties.correlation_data,
        "payload_format": properties.payload_format,
    }
    for name, value in refused.items():
        if value is not None:
            raise UnsupportedError(f"a request through a bridge carries no {name} of the caller's")
    headers = [
        ("Mqtt-User-Property", f"{quote(name, safe='')}={quote(value, safe='')}")
        for name, value in properties.user_properties
    ]
    if properties.content_type is not None:
        if not (properties.content_type.isascii() and properties.content_type.isprintable()):
            raise UnsupportedError("a request through a bridge carries a content type in ASCII alone")
        headers.append(("Content-Type", properties.content_type))
    return headers


def _reply(calls: Calls, answer: httpx.Response) -> Message:
    """The message that an answer is: its payload the body, the rest in headers."""
    found = answer.headers
    if "Mqtt-Topic" not in found:
        raise ConfigurationError(f"what answers at {calls.url} is no bridge")
    content_type = found.get("Content-Type", _NO_CONTENT_TYPE)
    payload_format = found.get("Mqtt-Payload-Format")
    message_expiry = found.get("Mqtt-Message-Expiry")
    response_topic = found.get("Mqtt-Response-Topic")
    correlation_data = found.get("Mqtt-Correlation-Data")
    pairs = [each.partition("=") for each in found.get_list("Mqtt-User-Property")]
    return Message(
        unquote(found["Mqtt-Topic"]),
        answer.content,
        properties=Properties(
            payload_format=None if payload_format is None else int(payload_format),
            message_expiry=None if message_expiry is None else int(message_expiry),
            content_type=None if content_type == _NO_CONTENT_TYPE else content_type,
            response_topic=None if response_topic is None else unquote(response_topic),
            correlation_data=None if correlation_data is None else base64.b64decode(correlation_data),
            user_properties=tuple((unquote(name), unquote(value)) for name, _, value in pairs),
        ),
        received_at=time.time(),
    )
