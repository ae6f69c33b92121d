"""One stream of Server-Sent Events from a bridge, opened again whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
from collections.abc import Sequence
from typing import Any, Final

import httpx
from httpx_sse import EventSource, SSEError

from tidegate.errors import ConfigurationError, NotConnectedError
from tidegate.transports.calls import TIMEOUT_SECONDS, UNAUTHORIZED, Calls
from tidegate.transports.envelope import read_envelope
from tidegate.transports.problems import error_of, transport_error
from tidegate.transports.transport import Receive

logger = logging.getLogger("tidegate")

SILENCE_SECONDS: Final = 60.0
"""A stream has a heartbeat; one that is silent for this long is broken."""
RECONNECT_MIN_SECONDS: Final = 0.2
RECONNECT_MAX_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 5.0
"""A stream that lasted this long resets the backoff."""
CONTENT_TYPE: Final = "text/event-stream"


class Stream:
    """Follows topic filters.

    Args:
        calls: the way to the bridge.
        filters: topic filters; the stream has the highest QoS of them all.
        receive: called for each message.
    """

    def __init__(
        self,
        calls: Calls,
        filters: Sequence[tuple[str, int]],
        receive: Receive,
    ) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls = calls
        self._url = calls.url
        self._receive = receive
        self._filter = filters[0][0]
        topics = [topic_filter for topic_filter, _ in filters]
        self._query = {"topic": topics, "qos": str(max(qos for _, qos in filters))}
        self._last_event_id = ""
        self._failures = 0
        self._opened_at = math.inf
        self._is_over = False

    async def run(self) -> None:
        """Follow for ever, or until the bridge says that coming back is no use.

        ``opened`` is done when the broker granted the filters, or has the reason why the first attempt
        failed, after which no other is made.
        """
        reason: Exception = NotConnectedError("the client was disconnected")
        try:
            while True:
                try:
                    await self._follow()
                    reason = NotConnectedError("the bridge closed it")
                except Exception as error:  # noqa: BLE001 - whatever it was, the stream is opened again
                    reason = error
                if self._is_over or not self.opened.done():
                    return
                await self._back_off(reason)
        finally:
            if not self.opened.done():
                self.opened.set_exception(reason)

    async def _back_off(self, reason: Exception) -> None:
        if asyncio.get_running_loop().time() - self._opened_at >= STEADY_SECONDS:
            self._failures = 0
        if self._failures == 0:
            logger.warning("the stream from %s ended: %s; opening it again", self._url, reason)
        ceiling = min(RECONNECT_MAX_SECONDS, RECONNECT_MIN_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._opened_at = math.inf
        await asyncio.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter

    async def _follow(self) -> None:
        """Open the stream once and read it to its end; with another token where the first is refused."""
        may_renew = self._calls.renews_token
        try:
            while not await self._read(may_renew=may_renew):
                may_renew = False
        except httpx.TransportError as error:
            raise transport_error(self._url, error, topic=self._filter) from error
        except (httpx.HTTPError, httpx.StreamError, SSEError) as error:
            raise NotConnectedError(f"the answer of {self._url} cannot be read: {error}") from error

    async def _read(self, *, may_renew: bool) -> bool:
        """Read the stream to its end; False where only the token was refused and another may be had."""
        headers = [("Accept", CONTENT_TYPE), *await self._calls.authorization()]
        if self._last_event_id:
            headers.append(("Last-Event-ID", self._last_event_id))
        timeout = httpx.Timeout(TIMEOUT_SECONDS, read=SILENCE_SECONDS)
        async with self._calls.stream_client.stream(
            "GET", "/v1/subscribe", params=self._query, headers=headers, timeout=timeout
        ) as response:
            if response.status_code == UNAUTHORIZED and may_renew:
                return False
            if not response.is_success:
                await response.aread()
                raise error_of(response, topic=self._filter)
            if not response.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
                raise ConfigurationError(f"what answers at {self._url} is no bridge")
            self._opened_at = asyncio.get_running_loop().time()
            if not self.opened.done():
                self.opened.set_result(None)
            async with contextlib.aclosing(EventSource(response).aiter_sse()) as events:
                async for event in events:
                    if event.data:
                        self._take(event.event, event.data)
                    self._last_event_id = event.id or self._last_event_id
        return True

    def _take(self, name: str, data: str) -> None:
        try:
            if name == "message":
                self._receive(read_envelope(data))
            else:
                self._heed(name, json.loads(data))
        except Exception:
            logger.exception("an event of the stream from %s cannot be used", self._url)

    def _heed(self, name: str, facts: dict[str, Any]) -> None:
        reason = facts.get("reason")
        if name == "gap":
            logger.warning("messages may have been missed: %s", reason)
        elif name == "lag":
            logger.warning("messages were dropped, since this end is too slow: %s", facts)
        elif name == "broker" and facts.get("state") == "down":
            logger.warning("the bridge lost its broker: %s", reason)
        elif name == "close" and not facts.get("may_reconnect", True):
            self._is_over = True
            logger.error("the bridge ended the stream for good: %s", reason)
