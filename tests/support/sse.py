"""Reading a stream of Server-Sent Events in a test: in a thread, into a list that can be waited on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource

from tests.support.bridge import Bridge, wait_until


@dataclass(frozen=True, slots=True)
class Received:
    """One event: its name, id, and data read as JSON."""

    name: str
    id: str
    data: dict[str, Any]


class Stream:
    """An open stream. Attributes: ``events`` so far, ``text`` so far, ``headers``, and whether it
    ``ended``.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self.events: list[Received] = []
        self.text = ""
        self.ended = False
        self._response = response
        self._thread = threading.Thread(target=self._read, name="stream", daemon=True)
        self._thread.start()

    @property
    def messages(self) -> list[tuple[str, Any, bool]]:
        """Topic, payload and retain flag of each message so far."""
        return [
            (each.data["topic"], each.data["payload"], each.data["retain"])
            for each in list(self.events)
            if each.name == "message"
        ]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The data of each control event of this name so far."""
        return [each.data for each in list(self.events) if each.name == name]

    def wait_for_messages(self, count: int) -> list[tuple[str, Any, bool]]:
        """Wait until this many messages have come, and give them."""
        wait_until(lambda: len(self.messages) >= count)
        return self.messages

    def wait_for(self, name: str) -> dict[str, Any]:
        """Wait for a control event, and give the first one's data."""
        wait_until(lambda: bool(self.named(name)))
        return self.named(name)[0]

    def wait_for_text(self, text: str) -> None:
        """Wait until this stands in the stream, comments included."""
        wait_until(lambda: text in self.text)

    def wait_for_end(self) -> None:
        """Wait until the server ended the stream."""
        wait_until(lambda: self.ended)

    def _read(self) -> None:
        try:
            for each in EventSource(_Tee(self._response, self)).iter_sse():  # type: ignore[arg-type]
                if each.data:  # httpx-sse makes an event of a lone retry field; a browser does not
                    self.events.append(Received(each.event, each.id, json.loads(each.data)))
        except (httpx.StreamError, httpx.TransportError):
            pass
        finally:
            self.ended = True


class _Tee:
    """A response whose lines are kept as text, comments included, on their way to the parser."""

    def __init__(self, response: httpx.Response, stream: Stream) -> None:
        self.headers = response.headers
        self._response = response
        self._stream = stream

    def iter_text(self) -> Iterator[str]:
        """The text as it comes."""
        for text in self._response.iter_text():
            self._stream.text += text
            yield text

    def iter_lines(self) -> Iterator[str]:
        """The lines as they come."""
        for line in self._response.iter_lines():
            self._stream.text += line + "\n"
            yield line


@contextmanager
def following(
    bridge: Bridge, *filters: str, headers: dict[str, str] | None = None, **parameters: str
) -> Iterator[Stream]:
    """Open a stream; it is subscribed once this returns."""
    query: dict[str, str | list[str]] = {"topic": list(filters), **parameters}
    with (
        httpx.Client(base_url=bridge.url, timeout=30, trust_env=False) as client,
        client.stream("GET", "/v1/subscribe", params=query, headers=headers) as response,
    ):
        if response.status_code != 200:
            response.read()
            response.raise_for_status()
        stream = Stream(response)
        try:
            yield stream
        finally:
            # a socket that a thread reads from is not closed by close(), but by shutdown()
            with contextlib.suppress(OSError):
                response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
