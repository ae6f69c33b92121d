"""Through a Tidegate bridge: publishing by HTTP POST, following by Server-Sent Events."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
from httpx_sse import EventSource, SSEError

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
    TopicError,
    UnsupportedError,
)
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.transports.transport import Receive

logger = logging.getLogger("tidegate")

TIMEOUT_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 60.0
"""A stream has a heartbeat; one that is silent for this long is broken."""
RECONNECT_MIN_SECONDS: Final = 0.2
RECONNECT_MAX_SECONDS: Final = 30.0


class BridgeTransport:
    """HTTP calls to one bridge over kept-alive connections, and a stream for each ``subscribe``.

    Args:
        url: the bridge's base URL, without a trailing slash.
        token: a bearer token, or what gives one for each request.
        tls: the context for ``https``; the system's authorities where it is left out.
    """

    def __init__(
        self, url: str, *, token: str | Callable[[], str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._url = url
        self._token = token
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, verify=tls or True)
        self._streams: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def connect(self) -> None:
        """Ask the bridge whether it reaches its broker."""
        await self._call("GET", "/readyz")

    async def publish(self, message: Message) -> int:
        """POST the payload as it is, with everything else in the query and the headers."""
        query: dict[str, str] = {"qos": str(message.qos)}
        if message.retain:
            query["retain"] = "true"
        headers: list[tuple[str, str]] = [("Content-Type", "application/x-www-form-urlencoded")]
        properties = message.properties
        if properties is not NO_PROPERTIES:
            if properties.content_type is not None:
                headers = [("Content-Type", properties.content_type)]
            if properties.message_expiry is not None:
                query["expiry"] = str(properties.message_expiry)
            if properties.response_topic is not None:
                query["response_topic"] = properties.response_topic
            if properties.correlation_data is not None:
                data = base64.b64encode(properties.correlation_data).decode()
                headers.append(("Mqtt-Correlation-Data", data))
            for name, value in properties.user_properties:
                headers.append(("Mqtt-User-Property", f"{quote(name, safe='')}={quote(value, safe='')}"))
        if message.retain and not message.payload:
            query.pop("retain")
            answer = await self._call("DELETE", f"/v1/topics/{quote(message.topic, safe='')}", query, headers)
        else:
            path = f"/v1/topics/{quote(message.topic, safe='')}"
            answer = await self._call("POST", path, query, headers, message.payload, topic=message.topic)
        return int(answer.json()["reason_code"])

    async def subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        """Open a stream for these filters, and keep it open; returns when the broker granted them."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream = _Stream(self, filters, receive, opened)
        task = asyncio.create_task(stream.run(), name="tidegate stream")
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)
        try:
            await opened
        except BaseException:
            task.cancel()
            raise

    async def close(self) -> None:
        """End the streams and the connections."""
        if self._is_closed:
            return
        self._is_closed = True
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await self._client.aclose()

    def authorization(self) -> list[tuple[str, str]]:
        """The header that proves who calls, or none."""
        token = self._token() if callable(self._token) else self._token
        return [("Authorization", f"Bearer {token}")] if token else []

    @property
    def client(self) -> httpx.AsyncClient:
        """The HTTP client."""
        return self._client

    @property
    def url(self) -> str:
        """The bridge's base URL."""
        return self._url

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
        topic: str | None = None,
    ) -> httpx.Response:
        if self._is_closed:
            raise NotConnectedError("the client was disconnected")
        try:
            answer = await self._client.request(
                method, path, params=query, headers=[*headers, *self.authorization()], content=content
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotConnectedError(
                f"the bridge at {self._url} cannot be reached: {error}", topic=topic
            ) from error
        except httpx.TransportError as error:
            raise OutcomeUnknownError(
                f"the bridge at {self._url} gave no answer: the message may have arrived, or not", topic=topic
            ) from error
        if not answer.is_success:
            raise error_of(answer, topic=topic)
        return answer


class _Stream:
    """One stream of the bridge, opened again whenever it ends."""

    def __init__(
        self,
        transport: BridgeTransport,
        filters: Sequence[tuple[str, int]],
        receive: Receive,
        opened: asyncio.Future[None],
    ) -> None:
        self._transport = transport
        self._receive = receive
        self._opened = opened
        self._filter = filters[0][0]
        topics = [topic_filter for topic_filter, _ in filters]
        self._query = {"topic": topics, "qos": str(max(qos for _, qos in filters))}
        self._last_event_id = ""
        self._is_refused = False

    async def run(self) -> None:
        """Follow for ever, or until the bridge says that coming back is no use."""
        failures = 0
        while not self._is_refused:
            try:
                await self._follow()
                failures = 0
            except MQTTError as error:
                if not self._opened.done():
                    self._opened.set_exception(error)
                    return
                if failures == 0:
                    logger.warning(
                        "the stream from %s ended: %s; opening it again", self._transport.url, error
                    )
            if not self._is_refused:
                ceiling = min(RECONNECT_MAX_SECONDS, RECONNECT_MIN_SECONDS * 2.0 ** min(failures, 16))
                failures += 1
                await asyncio.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter

    async def _follow(self) -> None:
        headers = [("Accept", "text/event-stream"), *self._transport.authorization()]
        if self._last_event_id:
            headers.append(("Last-Event-ID", self._last_event_id))
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        try:
            async with self._transport.client.stream(
                "GET", "/v1/subscribe", params=self._query, headers=headers, timeout=timeout
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response, topic=self._filter)
                if not self._opened.done():
                    self._opened.set_result(None)
                async with contextlib.aclosing(EventSource(response).aiter_sse()) as events:
                    async for event in events:
                        if event.data:
                            self._take(event.event, event.id, event.data)
        except (httpx.TransportError, httpx.StreamError, SSEError) as error:
            raise NotConnectedError(f"the bridge at {self._transport.url}: {str(error) or 'gone'}") from error

    def _take(self, name: str, event_id: str, data: str) -> None:
        if name == "message":
            self._last_event_id = event_id or self._last_event_id
            self._receive(read_envelope(json.loads(data)))
            return
        facts = json.loads(data)
        if name == "gap":
            logger.warning("messages may have been missed: %s", facts.get("reason"))
        elif name == "broker" and facts.get("state") == "down":
            logger.warning("the bridge lost its broker: %s", facts.get("reason"))
        elif name == "close" and not facts.get("may_reconnect", True):
            self._is_refused = True
            logger.error("the bridge ended the stream for good: %s", facts.get("reason"))


def read_envelope(body: dict[str, Any]) -> Message:
    """The message that an event of a stream stands for; JSON payloads are written anew, without spaces."""
    payload, encoding = body["payload"], body["encoding"]
    if encoding == "base64":
        octets = base64.b64decode(payload)
    elif encoding == "text":
        octets = payload.encode("utf-8")
    else:
        octets = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    found: dict[str, Any] = body.get("properties") or {}
    properties = NO_PROPERTIES
    if found:
        correlation_data = found.get("correlation_data")
        properties = Properties(
            payload_format=found.get("payload_format"),
            message_expiry=found.get("message_expiry"),
            content_type=found.get("content_type"),
            response_topic=found.get("response_topic"),
            correlation_data=None if correlation_data is None else base64.b64decode(correlation_data),
            user_properties=tuple((name, value) for name, value in found.get("user_properties", ())),
        )
    received_at = datetime.fromisoformat(body["time"]).timestamp()
    return Message(body["topic"], octets, body["qos"], body["retain"], properties, received_at=received_at)


_BY_TYPE: Final[dict[str, type[MQTTError]]] = {
    "invalid-topic": TopicError,
    "reserved-topic": TopicError,
    "unsupported": UnsupportedError,
    "invalid-payload": PayloadError,
    "empty-retained": PayloadError,
    "body-too-large": PayloadError,
    "packet-too-large": UnsupportedError,
    "queue-full": QueueFullError,
    "broker-unavailable": NotConnectedError,
    "not-ready": NotConnectedError,
    "shutting-down": NotConnectedError,
    "too-many-streams": NotConnectedError,
    "outcome-unknown": OutcomeUnknownError,
    "broker-timeout": MQTTTimeoutError,
}


def error_of(answer: httpx.Response, *, topic: str | None) -> MQTTError:
    """The error that a bridge's problem document stands for (RFC 9457)."""
    problem: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        body = answer.json()
        problem = body if isinstance(body, dict) else {}
    detail = str(problem.get("detail") or f"the bridge answered {answer.status_code}")
    reason_code = problem.get("reason_code")
    if isinstance(reason_code, int) and reason_code >= 0x80:
        kind = NotAuthorizedError if reason_code == 0x87 else RefusedError
        return kind(detail, reason_code=reason_code, topic=topic)
    found = _BY_TYPE.get(str(problem.get("type", "")).rpartition(":")[2])
    if found is None and answer.status_code in (401, 403):
        return NotAuthorizedError(detail, reason_code=0x87, topic=topic)
    if found is None:
        found = NotConnectedError if answer.status_code in (502, 503) else ConfigurationError
    return found(detail, topic=topic)
