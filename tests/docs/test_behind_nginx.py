"""The configuration of docs/browsers.md for nginx, in a real nginx between a real Chromium and a bridge."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Final

import httpx
import pytest
from playwright.sync_api import Page

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.browser import running_browser
from tests.support.certificates import make_certificates
from tests.support.command import ROOT
from tests.support.mosquitto import Mosquitto
from tests.support.nginx import running_nginx
from tests.support.ports import ReservedPort

PAGE: Final = (ROOT / "docs" / "browsers.md").read_text(encoding="utf-8")
SECONDS: Final = 30.0
MILLISECONDS: Final = 20_000
STREAMS: Final = 8
"""More than a browser's six connections of HTTP/1.1."""


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that asks nobody who they are."""
    with running_bridge(mosquitto.url, max_body_bytes=2_000_000) as bridge:
        yield bridge


@pytest.fixture(scope="module")
def proxied(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the bridge behind nginx."""
    directory = tmp_path_factory.mktemp("nginx")
    certificates = make_certificates(directory / "certificates")
    found = re.search(r"^```nginx\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    servers = found[1]
    with ReservedPort() as port:
        for shown, actual in (
            ("listen 443 ", f"listen 127.0.0.1:{port.number} "),
            ("127.0.0.1:8080", f"127.0.0.1:{bridge.port}"),
            ("/etc/ssl/certs/bridge.pem", str(certificates.server_certificate)),
            ("/etc/ssl/private/bridge.key", str(certificates.server_key)),
        ):
            assert 1 == servers.count(shown)
            servers = servers.replace(shown, actual)
        context = ssl.create_default_context(cafile=certificates.ca)
        url = f"https://127.0.0.1:{port.number}"
        with (
            running_nginx(directory, port.number, servers),
            httpx.Client(base_url=url, verify=context, timeout=SECONDS, trust_env=False) as client,
        ):
            yield client


@pytest.fixture(scope="module")
def page(proxied: httpx.Client) -> Iterator[Page]:
    """The console behind nginx, in a browser."""
    with running_browser("--ignore-certificate-errors") as browser:
        page = browser.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.goto(f"{proxied.base_url}/console")
        yield page


def test_more_streams_than_a_browser_has_connections(page: Page) -> None:
    """All are open at once over HTTP/2, a publish goes through beside them, and each gets it."""
    seen = page.evaluate(
        """async (count) => {
            const url = "/v1/subscribe?topic=nginx/many";
            const sources = Array.from({ length: count }, () => new EventSource(url));
            const each = (event) =>
                sources.map((source) => new Promise((seen) => source.addEventListener(event, seen)));
            await Promise.all(each("open"));
            const messages = each("message");
            await fetch("/v1/topics/nginx/many", { method: "POST", body: "7" });
            const payloads = (await Promise.all(messages)).map(({ data }) => JSON.parse(data).payload);
            sources.forEach((source) => source.close());
            return payloads;
        }""",
        STREAMS,
    )
    assert [7] * STREAMS == seen


def test_a_websocket_of_the_same_origin(page: Page) -> None:
    """It is opened, since Host comes as the browser sent it, and carries frames both ways."""
    seen = page.evaluate(
        """() => new Promise((resolve) => {
            const socket = new WebSocket(`wss://${location.host}/v1/ws`, "tidegate.v1");
            socket.onclose = (event) => resolve(`closed ${event.code}`);
            socket.onopen = () => socket.send('{"id": 1, "op": "subscribe", "topics": ["nginx/socket"]}');
            socket.onmessage = ({ data }) => {
                const frame = JSON.parse(data);
                const published = { id: 2, op: "publish", topic: "nginx/socket", payload: 8 };
                if (frame.id === 1) socket.send(JSON.stringify(published));
                if (frame.op === "message") resolve(frame.payload);
            };
        })"""
    )
    assert 8 == seen


def test_lines_go_out_as_they_come(bridge: Bridge, proxied: httpx.Client) -> None:
    """The first line of a batch is published while the second has not been sent yet."""

    def lines() -> Iterator[bytes]:
        yield b'{"topic": "nginx/line", "payload": 1, "retain": true}\n'
        wait_until(lambda: bridge.client.get("/v1/topics/nginx/line").status_code == 200)
        yield b'{"topic": "nginx/line", "payload": 2}\n'

    answer = proxied.post(
        "/v1/publish/batch", content=lines(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert (200, 2) == (answer.status_code, answer.json()["accepted"])


def test_the_path_stays_as_it_came(proxied: httpx.Client) -> None:
    """An empty level, and a slash that is written %2F."""
    answer = proxied.post("/v1/topics/nginx//a%2Fb", content=b"1")
    assert (200, "nginx//a/b") == (answer.status_code, answer.json()["topic"])


def test_bodies_larger_than_nginx_takes_by_itself(proxied: httpx.Client) -> None:
    """How large they may be is the bridge's to say: here two megabytes."""
    answer = proxied.post("/v1/topics/nginx/large", content=b"x" * 1_500_000)
    assert (200, "nginx/large") == (answer.status_code, answer.json()["topic"])
