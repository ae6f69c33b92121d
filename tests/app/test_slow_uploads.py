"""Bodies that trickle in: a byte now and then is no sign of life."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.raw_socket import RawSocket

PAUSE_SECONDS = 0.05
TIMES = 200
"""Pieces, with a pause before each: many times as long as a body may take."""

LINE = b'{"topic":"slow/line","payload":1}\n'


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that waits a second for a body."""
    with running_bridge(mosquitto.url, body_timeout_seconds=1) as running:
        yield running


def head(path: str, content_type: str, framing: str) -> bytes:
    """The head of a request with a body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bridge\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n"
    ).encode()


CHUNKED = "Transfer-Encoding: chunked"
JSON = "application/json"
LINES = "application/x-ndjson"


@pytest.mark.parametrize(
    ("path", "content_type", "framing", "piece"),
    [
        ("/v1/topics/slow", "text/plain", CHUNKED, b"1\r\nx\r\n"),
        ("/v1/topics/slow", "text/plain", "Content-Length: 1000", b"x"),
        ("/v1/publish", JSON, CHUNKED, b"1\r\n \r\n"),
        ("/v1/publish", JSON, CHUNKED, b"0"),
        ("/v1/publish/batch", JSON, CHUNKED, b"1\r\n[\r\n"),
        ("/v1/publish/batch", LINES, CHUNKED, b"1\r\n \r\n"),
        ("/v1/publish/batch", LINES, "Content-Length: 1000", b" "),
        ("/v1/requests/slow", "text/plain", CHUNKED, b"1\r\nx\r\n"),
        ("/v1/subscribe", JSON, CHUNKED, b"1\r\n \r\n"),
    ],
)
def test_a_body_that_trickles_is_given_up(
    bridge: Bridge, path: str, content_type: str, framing: str, piece: bytes
) -> None:
    """However it is framed, and whatever reads it: 408 names the setting."""
    with RawSocket(bridge.port, head(path, content_type, framing)) as slow:
        assert slow.trickle(piece, pause_seconds=PAUSE_SECONDS, times=TIMES) < TIMES
        slow.read_to_close()
        assert 408 == slow.status
        assert "urn:tidegate:problem:body-timeout" == slow.json["type"]
        assert "TIDEGATE_BODY_TIMEOUT_SECONDS" in slow.json["detail"]


def test_lines_that_come_slowly_are_published(bridge: Bridge) -> None:
    """Each has its own time: a body of them takes as long as it takes."""
    with RawSocket(bridge.port, head("/v1/publish/batch", LINES, CHUNKED)) as slow:
        pieces = 3 * int(1 / PAUSE_SECONDS)
        chunk = b"%x\r\n%b\r\n" % (len(LINE), LINE)
        assert pieces == slow.trickle(chunk, pause_seconds=PAUSE_SECONDS, times=pieces)
        slow.send(b"0\r\n\r\n")
        slow.read_answer()
        assert 200 == slow.status
        assert pieces == slow.json["accepted"]


def test_a_line_that_trickles_after_whole_ones(bridge: Bridge) -> None:
    """What came before is published and told."""
    with RawSocket(bridge.port, head("/v1/publish/batch", LINES, CHUNKED)) as slow:
        slow.send(b"%x\r\n%b\r\n" % (len(LINE), LINE))
        assert slow.trickle(b"1\r\n{\r\n", pause_seconds=PAUSE_SECONDS, times=TIMES) < TIMES
        slow.read_to_close()
        assert (408, 1) == (slow.status, slow.json["accepted"])
