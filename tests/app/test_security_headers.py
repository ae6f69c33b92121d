"""The headers that hold a browser back, on every answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

ALWAYS = {
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/docs", 200),
        ("GET", "/static-offline-docs/swagger-ui.css", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/console", 200),
        ("GET", "/console/main.js", 200),
        ("GET", "/v1/principal", 200),
        ("GET", "/v1/status", 200),
        ("GET", "/v1/subscribe?topic=headers/a", 200),
        ("GET", "/v1/topics/headers/none", 404),
        ("POST", "/v1/topics/headers/a", 200),
        ("POST", "/v1/publish", 415),
        ("PATCH", "/v1/topics/headers/a", 405),
    ],
)
def test_every_answer_has_them(bridge: Bridge, method: str, path: str, status: int) -> None:
    """Once each, whoever makes the answer."""
    with bridge.client.stream(method, path, content=b"1" if method == "POST" else None) as answer:
        assert status == answer.status_code
        for name, value in ALWAYS.items():
            assert [value] == answer.headers.get_list(name), name


def test_a_refused_websocket_has_them_too(bridge: Bridge) -> None:
    """A handshake that fails is an ordinary answer."""
    with SocketClient(bridge.port, origin="http://evil.example", is_open=False) as client:
        assert client.answer is not None
        for name, value in ALWAYS.items():
            assert [value] == client.answer.headers.get_all(name), name
        assert "no-store" == client.answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/principal", {}),
        ("/v1/status", {}),
        ("/v1/topics/headers/none", {}),
        ("/v1/subscribe?topic=headers/a", {}),
        ("/v1/subscribe?topic=", {}),
        ("/v1/topics/headers/%23", {}),
        ("/v1/subscribe?topic=headers/a", {"Origin": "http://evil.example"}),
    ],
)
def test_what_is_a_callers_own_is_kept_nowhere(bridge: Bridge, path: str, headers: dict[str, str]) -> None:
    """Errors too: a 404 may be kept unless it says otherwise (RFC 9111 §4.2.2)."""
    with bridge.client.stream("GET", path, headers=headers) as answer:
        assert "no-store" == answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("content_type", "is_attached"),
    [
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("image/svg+xml", True),
        ("application/xhtml+xml", True),
        ("text/xml", True),
        ("application/xslt+xml", True),
        ("application/json", False),
        ("text/plain", False),
        ("image/png", False),
    ],
)
def test_a_payload_is_no_page_of_the_bridge(bridge: Bridge, content_type: str, is_attached: bool) -> None:
    """Whoever may publish chooses what it says it is; a browser neither runs nor frames it."""
    topic = "/v1/topics/headers/page"
    body = b"<script>document.title='run'</script>"
    assert 200 == bridge.client.put(topic, content=body, headers={"Content-Type": content_type}).status_code
    answer = bridge.client.get(topic)
    assert (200, body) == (answer.status_code, answer.content)
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"sandbox", "default-src 'none'", "frame-ancestors 'none'"} == set(policy)
    assert ("attachment" if is_attached else None) == answer.headers.get("content-disposition")
    assert 200 == bridge.client.delete(topic).status_code


def test_the_docs_run_their_own_files_alone(bridge: Bridge) -> None:
    """No script runs that is not a file of the bridge or the page's own, by its hash."""
    policy = bridge.client.get("/docs").headers["content-security-policy"]
    scripts = next(each for each in policy.split("; ") if each.startswith("script-src"))
    assert ["script-src", "'self'"] == scripts.split(" ")[:2]
    assert 3 == len(scripts.split(" "))
    assert "'sha256-" in scripts
    assert "unsafe" not in scripts
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
