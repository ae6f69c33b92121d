"""Through a Tidegate bridge: publishing by HTTP, following by Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Hashable, Sequence

from tidegate.beginnings import Deference, pending
from tidegate.message import Message
from tidegate.transports.asking import ask
from tidegate.transports.calls import Calls, Token
from tidegate.transports.problems import error_of
from tidegate.transports.publications import PUBLISH_TIMEOUT_SECONDS, Publications
from tidegate.transports.stream import Stream
from tidegate.transports.transport import Receive


class BridgeTransport:
    """HTTP calls to one bridge over kept-alive connections, and a stream for each ``subscribe``.

    Args:
        url: the bridge's base URL, without a trailing slash.
        token: a bearer token, or a function or coroutine function that gives one for each request.
        tls: the context for ``https``; the system's authorities where it is left out.
        publish_timeout_seconds: how long a message may wait for the bridge, repetitions included.

    Attributes:
        url: the bridge's base URL.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        tls: ssl.SSLContext | None = None,
        publish_timeout_seconds: float = PUBLISH_TIMEOUT_SECONDS,
    ) -> None:
        self.url = url
        self._calls = Calls(url, token=token, tls=tls)
        self._publications = Publications(self._calls, publish_timeout_seconds=publish_timeout_seconds)
        self._deference = Deference(self.broker, self._publications.hold, self._publications.release)
        self._streams: dict[asyncio.Task[None], Receive] = {}
        self._is_closed = False

    @property
    def broker(self) -> Hashable:
        """The bridge's address."""
        return self.url

    async def connect(self) -> None:
        """Ask the bridge whether it reaches its broker."""
        answer = await self._calls.send("GET", "/readyz")
        if not answer.is_success:
            raise error_of(answer)

    async def publish(self, message: Message) -> int:
        """Hand the message to the bridge; beside others that wait, where there are any."""
        if pending:
            self._deference.defer(is_connected=True)
        return await self._publications.submit(message)

    async def request(
        self, message: Message, *, timeout_seconds: float, response_topic: str | None = None
    ) -> Message:
        """Publish, and wait for the reply, which the bridge does; raises what ``ask`` raises."""
        if pending:
            self._deference.defer(is_connected=True)
            loop = asyncio.get_running_loop()
            began_at = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._deference.passed()
            timeout_seconds = max(timeout_seconds - (loop.time() - began_at), 0.0)
        return await ask(self._calls, message, timeout_seconds=timeout_seconds, response_topic=response_topic)

    async def subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        """Open a stream for these filters, and keep it open; returns when the broker granted them."""
        self._calls.require_open()
        stream = Stream(self._calls, filters, receive)
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
        await self._deference.passed()
        await self._publications.close()
        await self._calls.finish()
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        await self._calls.close()
