"""A device that answers requests, past the bridge, and a client that makes many of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from tests.support.bridge import RawAnswer
from tests.support.ports import LOOPBACK
from tidegate.connection import ConnectOptions, ProtocolVersion, Subscription
from tidegate.message import Message, Properties
from tidegate.session import Session

SECONDS: Final = 30.0
"""How long anything is waited for before the test fails."""

Answers = Callable[[Message], Iterable[Message]]


def echo(request: Message) -> Iterable[Message]:
    """What a device does that knows MQTT 5: the payload back to the response topic, with the correlation."""
    yield reply_to(request, request.payload)


def silence(request: Message) -> Iterable[Message]:
    """Hear and say nothing."""
    return ()


def reply_to(request: Message, payload: bytes, **properties: object) -> Message:
    """A reply as MQTT 5 wants it (§4.10)."""
    topic = request.properties.response_topic
    assert topic is not None
    carried = {"correlation_data": request.properties.correlation_data, **properties}
    return Message(topic, payload, 1, properties=Properties(**carried))  # type: ignore[arg-type]


class Device:
    """An MQTT client of its own; an async context manager.

    Args:
        port: the broker's.
        topic_filter: what it listens to.
        answers: what it publishes for each request, at once.
        protocol_version: 4 for MQTT 3.1.1, which has no properties.

    Attributes:
        requests: what it heard.
    """

    def __init__(
        self,
        port: int,
        topic_filter: str,
        answers: Answers = echo,
        *,
        protocol_version: ProtocolVersion = 5,
    ) -> None:
        self.requests: list[Message] = []
        self._filter = topic_filter
        self._answers = answers
        options = ConnectOptions(LOOPBACK, port, protocol_version=protocol_version)
        self._session = Session(options, on_message=self._on_message)
        self._heard = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._session.start()
        await self._session.connected(SECONDS)
        await self._session.subscribe([Subscription(self._filter, qos=1)])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def heard(self, count: int) -> list[Message]:
        """Wait until it has heard so many messages, and give them."""
        async with asyncio.timeout(SECONDS):
            while len(self.requests) < count:
                self._heard.clear()
                await self._heard.wait()
        return self.requests

    async def publish(self, *messages: Message) -> None:
        """Publish, and wait for the broker to acknowledge it."""
        await asyncio.gather(*(self._session.publish(each) for each in messages))

    def _on_message(self, message: Message) -> None:
        self.requests.append(message)
        self._heard.set()
        for reply in self._answers(message):
            self._session.submit(reply)


async def post(
    port: int, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> RawAnswer:
    """POST over a connection of its own, which is closed when this is cancelled."""
    given = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    lines = [
        f"POST {target} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {value}" for name, value in given.items()),
    ]
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            received = await reader.read()
        finally:
            writer.close()
    head, _, rest = received.partition(b"\r\n\r\n")
    status_line, *header_lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ")[::2] for line in header_lines)
    return RawAnswer(int(status_line.split(" ")[1]), {name.lower(): value for name, value in pairs}, rest)
