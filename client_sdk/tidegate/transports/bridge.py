"""Through a Tidegate bridge: publishing by HTTP POST, following by Server-Sent Events.

A message without properties goes out as the raw body of ``POST /v1/topics/{topic}``. What a path or a header
cannot carry as it is (properties, long topics, a topic that a URL takes for a step up) goes to
``POST /v1/publish``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx

from tidegate.errors import ConfigurationError, NotConnectedError, UnsupportedError
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.transports.problems import error_of, transport_error
from tidegate.transports.stream import TIMEOUT_SECONDS, Stream
from tidegate.transports.transport import Receive

MAX_PATH_CHARACTERS: Final = 2000
"""A longer path may be too long for a proxy on the way."""

KEEPALIVE_SECONDS: Final = 3.0
"""Shorter than servers keep an idle connection, so that no request meets one that is being closed."""

MAX_CONNECTIONS: Final = 100
_DOT_SEGMENTS: Final = (".", "..")
_JSON: Final = [("Content-Type", "application/json")]


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
        verify = tls or url.startswith("https:")
        # Streams hold their connections, and must not take those of calls.
        self._client = _client(url, verify, MAX_CONNECTIONS)
        self._stream_client = _client(url, verify, None)
        self._streams: dict[asyncio.Task[None], Receive] = {}
        self._is_closed = False
        self._calls = 0
        self._last_call: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Ask the bridge whether it reaches its broker."""
        await self._call("GET", "/readyz")

    async def publish(self, message: Message) -> int:
        """Hand the message to the bridge."""
        path = f"/v1/topics/{quote(message.topic, safe='')}"
        has_properties = message.properties != NO_PROPERTIES
        if message.retain and not message.payload:
            if has_properties:
                raise UnsupportedError("a message that clears a topic carries no properties through a bridge")
            if _fits(message.topic, path):
                query = {"qos": str(message.qos)}
            else:
                path, query = "/v1/topics", {"qos": str(message.qos), "topic": message.topic}
            return await self._publish("DELETE", path, message, query=query)
        if has_properties or not _fits(message.topic, path):
            body = json.dumps(_request(message), separators=(",", ":")).encode()
            return await self._publish("POST", "/v1/publish", message, headers=_JSON, content=body)
        query = {"qos": str(message.qos), "retain": "true"} if message.retain else {"qos": str(message.qos)}
        return await self._publish("POST", path, message, query=query, content=message.payload)

    async def subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        """Open a stream for these filters, and keep it open; returns when the broker granted them."""
        self._require_open()
        stream = Stream(self._stream_client, self._authorization, filters, receive)
        task = asyncio.create_task(stream.run(), name=f"tidegate stream {filters[0][0]}")
        self._streams[task] = receive
        task.add_done_callback(self._streams.pop)
        try:
            await stream.opened
        except BaseException:
            task.cancel()
            raise

    async def unsubscribe(self, receive: Receive) -> None:
        """End the streams that were opened for ``receive``."""
        streams = [task for task, each in self._streams.items() if each == receive]
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    async def close(self) -> None:
        """Wait for calls in flight, and end the streams and the connections."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._calls:
            self._last_call = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._last_call], timeout=TIMEOUT_SECONDS)
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await self._stream_client.aclose()
        await self._client.aclose()

    async def _publish(
        self,
        method: str,
        path: str,
        message: Message,
        *,
        query: dict[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
    ) -> int:
        answer = await self._call(
            method, path, query=query, headers=headers, content=content, topic=message.topic
        )
        try:
            return int(answer.json()["reason_code"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"what answers at {self._url} is no bridge") from error

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        headers: Sequence[tuple[str, str]] = (),
        content: bytes | None = None,
        topic: str | None = None,
    ) -> httpx.Response:
        self._require_open()
        authorization = self._authorization()
        self._calls += 1
        try:
            answer = await self._client.request(
                method, path, params=query, headers=[*headers, *authorization], content=content
            )
        except httpx.HTTPError as error:
            raise transport_error(self._url, error, topic=topic) from error
        finally:
            self._calls -= 1
            if self._last_call is not None and not self._calls and not self._last_call.done():
                self._last_call.set_result(None)
        if not answer.is_success:
            raise error_of(answer, topic=topic)
        return answer

    def _require_open(self) -> None:
        if self._is_closed:
            raise NotConnectedError("the client was disconnected; make a new one")

    def _authorization(self) -> list[tuple[str, str]]:
        """The header that proves who calls, or none."""
        token = self._token() if callable(self._token) else self._token
        if not token:
            return []
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigurationError("the token has characters that no HTTP header can carry")
        return [("Authorization", f"Bearer {token}")]


def _client(url: str, verify: ssl.SSLContext | bool, max_connections: int | None) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=KEEPALIVE_SECONDS)
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, verify=verify, limits=limits)


def _fits(topic: str, path: str) -> bool:
    return len(path) <= MAX_PATH_CHARACTERS and topic not in _DOT_SEGMENTS


def _request(message: Message) -> dict[str, Any]:
    """The body of ``POST /v1/publish``."""
    body = {
        "topic": message.topic,
        "payload": base64.b64encode(message.payload).decode("ascii"),
        "encoding": "base64",
        "qos": message.qos,
        "retain": message.retain,
    }
    properties = _properties(message.properties)
    return {**body, "properties": properties} if properties else body


def _properties(properties: Properties) -> dict[str, Any]:
    correlation_data = properties.correlation_data
    found: dict[str, Any] = {
        "payload_format": properties.payload_format,
        "message_expiry": properties.message_expiry,
        "content_type": properties.content_type,
        "response_topic": properties.response_topic,
        "correlation_data": None if correlation_data is None else base64.b64encode(correlation_data).decode(),
        "user_properties": list(properties.user_properties) or None,
    }
    return {name: value for name, value in found.items() if value is not None}
