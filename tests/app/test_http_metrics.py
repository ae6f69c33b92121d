"""HTTP requests as ``/metrics`` tells of them: every answer once, by a method, a route and a status."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.security.authentication import Authentication
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import Command
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.metrics import scrape, value
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.raw_socket import RawSocket
from tests.support.raw_stream import RawStream
from tests.support.upload import Upload
from tests.support.websocket import SocketClient

TOPICS: Final = "/v1/topics/{topic}"
PAGE: Final = "https://panel.example"
UPGRADE: Final = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)

Answer = tuple[str, str, str]
"""Method, route and status."""


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose counts begin at zero, which pages of another origin may use."""
    with running_bridge(mosquitto.url, cors_origins=(PAGE,)) as running:
        yield running


def answered(bridge: Bridge, token: str = "") -> Counter[Answer]:
    """How many requests were answered how, but for probes and scrapes."""
    answer = bridge.client.get("/metrics", headers=bearer(token) if token else {})
    assert 200 == answer.status_code, answer.text
    found = Counter[Answer]()
    for family in text_string_to_metric_families(answer.text):
        for each in family.samples:
            if each.name == "tidegate_http_requests_total":
                labels = each.labels
                found[labels["method"], labels["route"], labels["status"]] = int(each.value)
    return Counter({key: count for key, count in found.items() if key[1] not in {"/readyz", "/metrics"}})


def ask(bridge: Bridge, sent: bytes) -> int:
    """The status of what is answered to these bytes, on a connection of their own."""
    with RawSocket(bridge.port, sent) as opened:
        opened.read_to_close()
        return opened.status


def head(target: bytes, fields: bytes = b"", *, method: bytes = b"GET") -> bytes:
    """A request without a body, on a connection that is closed afterwards."""
    return b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%b\r\n" % (method, target, fields)


def test_a_mixed_load_adds_up(bridge: Bridge) -> None:
    """What four clients were answered at once is what is counted, by method, route and status."""
    asked = [
        ("POST", "/v1/topics/load/a?qos=0", TOPICS, b"1"),
        ("POST", "/v1/topics/load/b/c", TOPICS, b"1"),
        ("PUT", "/v1/topics/load/kept", TOPICS, b"1"),
        ("GET", "/v1/topics/load/kept", TOPICS, b""),
        ("GET", "/v1/topics/load/%23", TOPICS, b""),
        ("GET", "/v1/topics/load/nothing", TOPICS, b""),
        ("POST", "/v1/topics/load/a?qso=1", TOPICS, b"1"),
        ("POST", "/v1/publish", "/v1/publish", b"no JSON"),
        ("POST", "/v1/publish/batch", "/v1/publish/batch", b'[{"topic":"load/a","payload":1}]'),
        ("POST", "/v1/requests/load/deaf?timeout=0.05", "/v1/requests/{topic}", b"1"),
        ("GET", "/v1/subscribe", "/v1/subscribe", b""),
        ("GET", "/v1/status", "/v1/status", b""),
        ("POST", "/v1/status", "/v1/status", b""),
        ("HEAD", "/v1/status", "/v1/status", b""),
        ("GET", "/v1/credentials/load", "/v1/credentials/{name}", b""),
        ("GET", "/v1/credentials/load/no/such", "none", b""),
        ("GET", "/v1/ws", "/v1/ws", b""),
        ("OPTIONS", "/v1/publish", "/v1/publish", b""),
        ("GET", "/docs", "/docs", b""),
        ("GET", "/openapi.json", "/openapi.json", b""),
        ("GET", "/static-offline-docs/no-such.js", "/static-offline-docs/{path}", b""),
        ("GET", "/nowhere", "none", b""),
        ("GET", "/livez", "/livez", b""),
    ]

    def send(_: int) -> list[Answer]:
        with httpx.Client(
            base_url=bridge.url,
            trust_env=False,
            timeout=30,
            headers={"Content-Type": "application/json"},
        ) as client:
            return [
                (method, route, str(client.request(method, path, content=body).status_code))
                for _ in range(5)
                for method, path, route, body in asked
            ]

    with ThreadPoolExecutor(4) as pool:
        sent = Counter(each for answers in pool.map(send, range(4)) for each in answers)
    assert sent == answered(bridge)
    assert len(asked) * 20 == answered(bridge).total()
    for status in ("200", "202", "400", "404", "405", "409", "426", "504"):
        assert status in {each[2] for each in sent}


def test_the_number_of_series_stays_put_whatever_is_asked_for(bridge: Bridge) -> None:
    """No path, no topic and no method of a stranger's becomes a label."""
    methods = (b"PROPFIND", b"MKCALENDAR", b"M-SEARCH", b"SUBSCRIBE", b"GET", b"PATCH")
    paths = (b"/hostile-%d", b"/v1/hostile/%d", b"/v1/topics/hostile/%d", b"/v1/credentials/hostile-%d")

    def strange(number: int) -> None:
        for method in methods:
            for path in paths:
                ask(bridge, head(path % number, method=method))

    strange(0)
    before = answered(bridge)
    series = len(scrape(bridge.url)["tidegate_http_request_duration_seconds_bucket"])
    for number in range(1, 20):
        strange(number)
    after = answered(bridge)
    assert before.keys() == after.keys()
    assert series == len(scrape(bridge.url)["tidegate_http_request_duration_seconds_bucket"])
    assert 20 * len(methods) * len(paths) == after.total()
    assert {"GET", "PATCH", "other"} == {method for method, _, _ in after}
    assert "hostile" not in bridge.client.get("/metrics").text


def test_what_the_guard_refuses_counts_for_the_call_that_was_refused(mosquitto: Mosquitto) -> None:
    """401, 403 and 429, though no route saw the request."""
    tokens = FixedTokens(
        first=principal("first", publish=("guard/#",)), monitor=principal("monitor", scopes=("metrics:read",))
    )
    with running_bridge(
        mosquitto.url, authentication=Authentication([tokens]), rate_limit_requests="3/day"
    ) as bridge:
        for path in ("/v1/topics/guard/a", "/v1/requests/guard/a", "/v1/credentials/a/test", "/nowhere"):
            assert 401 == bridge.client.post(path, content=b"1").status_code
        for status in (403, 403, 200, 429):
            path = "/v1/status" if status == 403 else "/v1/topics/guard/a"
            method = "GET" if status == 403 else "POST"
            assert status == bridge.client.request(method, path, headers=bearer("first")).status_code
        with SocketClient(bridge.port, is_open=False) as client:
            assert 401 == client.status
        found = answered(bridge, "monitor")
    assert {
        ("POST", TOPICS, "401"): 1,
        ("POST", "/v1/requests/{topic}", "401"): 1,
        ("POST", "/v1/credentials/{name}/test", "401"): 1,
        ("POST", "none", "401"): 1,
        ("GET", "/v1/status", "403"): 2,
        ("POST", TOPICS, "200"): 1,
        ("POST", TOPICS, "429"): 1,
        ("GET", "/v1/ws", "401"): 1,
    } == found


def test_each_call_is_refused_under_the_template_of_the_document(mosquitto: Mosquitto) -> None:
    """The one that it would have been answered under; with a topic in the query it is the same call."""
    tokens = FixedTokens(monitor=principal("monitor", scopes=("metrics:read",)))
    with running_bridge(mosquitto.url, authentication=Authentication([tokens])) as bridge:
        paths = set(bridge.client.get("/openapi.json").json()["paths"]) - {"/metrics"}
        asked = {path: bridge.client.put(re.sub(r"\{\w+\}", "x", path)).status_code for path in paths}
        found = answered(bridge, "monitor")
    refused = Counter[Answer]()
    for path in (path for path, status in asked.items() if status == 401):
        with_topic = f"{path}/{{topic}}"
        refused["PUT", with_topic if with_topic in paths else path, "401"] += 1
    assert (2, 1) == (refused["PUT", TOPICS, "401"], refused["PUT", "/v1/credentials/{name}/test", "401"])
    assert refused == Counter({key: count for key, count in found.items() if key[2] == "401"})


def test_a_preflight_counts_for_the_call_that_it_is_about(bridge: Bridge) -> None:
    """CORS answers it in front of everything."""
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    assert 200 == bridge.client.options("/v1/topics/a/b", headers=asked).status_code
    asked["Origin"] = "https://evil.example"
    assert 400 == bridge.client.options("/v1/publish", headers=asked).status_code
    assert {("OPTIONS", TOPICS, "200"): 1, ("OPTIONS", "/v1/publish", "400"): 1} == answered(bridge)


def test_heads_that_are_refused_are_counted(mosquitto: Mosquitto) -> None:
    """What never came to the application: without a route, and some without a method; not as a duration."""
    with running_bridge(
        mosquitto.url, header_timeout_seconds=60, max_header_bytes=2000, max_target_bytes=1000
    ) as bridge:
        long = b"x" * 3000
        assert 400 == ask(bridge, b"no HTTP\r\n\r\n")
        assert 431 == ask(bridge, head(b"/v1/status", b"X: %b\r\n" % long))
        assert 414 == ask(bridge, head(b"/v1/topics/" + long, method=b"POST"))
        with RawSocket(bridge.port, b"GET / HTTP/1.1\r\nX: ") as endless:
            endless.send_to_refusal(b"x" * 1000, 100)
            endless.read_to_close()
        assert 400 == ask(bridge, head(b"/v1/ws", b"Content-Length: 5\r\n" + UPGRADE))
        assert 400 == ask(bridge, head(b"/v1/ws", UPGRADE.replace(b"AAAA", b"")))
        found = answered(bridge)
        counted = scrape(bridge.url)["tidegate_http_request_duration_seconds_count"]
    assert {
        ("other", "none", "400"): 3,
        ("other", "none", "431"): 1,
        ("GET", "none", "431"): 1,
        ("POST", "none", "414"): 1,
    } == found
    assert 0 == counted[frozenset({("method", "other"), ("route", "none")})]


def test_a_head_that_does_not_become_complete_is_counted(mosquitto: Mosquitto) -> None:
    """It is answered; a connection that asks nothing is not, and counts for nothing."""
    with running_bridge(mosquitto.url, header_timeout_seconds=0.3) as bridge:
        assert 408 == ask(bridge, b"GET /livez HTTP/1.1\r\nHost: bri")
        assert 0 == ask(bridge, b"\r\n")
        assert {("other", "none", "408"): 1} == answered(bridge)


def test_a_connection_too_many_is_counted(mosquitto: Mosquitto) -> None:
    """Its request is answered with 503; a probe's as ever."""
    with running_bridge(mosquitto.url, max_connections=1) as bridge:
        bridge.client.get("/livez").raise_for_status()  # and the connection stays
        assert 503 == ask(bridge, head(b"/v1/status"))
        assert 200 == ask(bridge, head(b"/livez"))
        assert {("GET", "/livez", "200"): 2, ("GET", "none", "503"): 1} == answered(bridge)


def test_a_client_that_leaves_before_the_answer_counts_without_a_status(fresh_mosquitto: Mosquitto) -> None:
    """Where its body is awaited, and where the broker is; the bridge's later answer went to nobody."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.5) as bridge:
        half = b"POST /v1/topics/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1"
        whole = half.replace(b"9", b"1")
        with socket.create_connection((LOOPBACK, bridge.port)) as connection:
            connection.sendall(half)
        wait_until(lambda: answered(bridge) == {("POST", TOPICS, "none"): 1})
        fresh_mosquitto.pause()
        with socket.create_connection((LOOPBACK, bridge.port)) as connection:
            connection.sendall(whole)
            wait_until(lambda: value(bridge.url, "tidegate_http_requests_in_progress") == 2)
        wait_until(lambda: answered(bridge) == {("POST", TOPICS, "none"): 2})
        assert 504 == bridge.client.post("/v1/topics/a", content=b"1").status_code
        fresh_mosquitto.resume()
        assert {("POST", TOPICS, "none"): 2, ("POST", TOPICS, "504"): 1} == answered(bridge)
        assert 1 == value(bridge.url, "tidegate_http_requests_in_progress")


def test_faults_are_counted_whoever_answers_for_them(mosquitto: Mosquitto) -> None:
    """An exception, an application that says nothing, and one that fails behind the head of its answer."""

    def fault() -> None:
        raise RuntimeError("a fault")

    class Silent:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            return

    class HalfWay:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError("a fault")

    def prepare(app: FastAPI) -> None:
        app.add_api_route("/fault", fault)
        app.router.routes += [Route("/silent", Silent()), Route("/half-way", HalfWay())]

    with running_bridge(mosquitto.url, prepare=prepare) as bridge:
        assert 500 == bridge.client.get("/fault").status_code
        assert 500 == bridge.client.get("/silent").status_code
        assert 200 == ask(bridge, head(b"/half-way"))
        assert {
            ("GET", "/fault", "500"): 1,
            ("GET", "/silent", "500"): 1,
            ("GET", "/half-way", "200"): 1,
        } == answered(bridge)
        assert 1 == value(bridge.url, "tidegate_http_requests_in_progress")


def test_a_stream_counts_when_it_begins_and_is_not_in_progress(bridge: Bridge) -> None:
    """How long it lasts is its reader's affair, and no latency; its end is not counted again."""
    with RawStream(bridge.port, "http/a"), SocketClient(bridge.port):
        begun = {("GET", "/v1/subscribe", "200"): 1, ("GET", "/v1/ws", "101"): 1}
        assert begun == answered(bridge)
        assert 1 == value(bridge.url, "tidegate_http_requests_in_progress")
        labels = {"method": "GET", "route": "/v1/subscribe"}
        seconds = value(bridge.url, "tidegate_http_request_duration_seconds_sum", **labels)
        assert seconds > 0
    wait_until(lambda: value(bridge.url, "tidegate_listeners") == 0)
    assert begun == answered(bridge)
    assert seconds == value(bridge.url, "tidegate_http_request_duration_seconds_sum", **labels)


def test_a_stream_that_the_bridge_ends_is_not_counted_again(bridge: Bridge) -> None:
    """Its last message is no second answer."""
    with RawStream(bridge.port, "http/a", limit="1") as stream:
        bridge.client.post("/v1/topics/http/a", content=b"1").raise_for_status()
        stream.read_until(lambda: stream.has_ended)
    assert {("GET", "/v1/subscribe", "200"): 1, ("POST", TOPICS, "200"): 1} == answered(bridge)
    assert 1 == value(bridge.url, "tidegate_http_requests_in_progress")


def test_an_answer_in_pieces_counts_with_its_last(bridge: Bridge) -> None:
    """Results of a batch come while its body does; until the end it is in progress."""
    with Upload(bridge.port, accept="application/x-ndjson") as upload:
        upload.send({"topic": "http/a", "payload": 1})
        upload.read_until(lambda: len(upload.objects) == 1)
        assert {} == answered(bridge)
        assert 2 == value(bridge.url, "tidegate_http_requests_in_progress")
        upload.end()
        upload.read_to_end()
        assert {("POST", "/v1/publish/batch", "200"): 1} == answered(bridge)
        assert 1 == value(bridge.url, "tidegate_http_requests_in_progress")


def test_handshakes_that_are_refused_are_counted(bridge: Bridge) -> None:
    """By the guard, by the call, by the router and by the server itself."""
    refused: tuple[tuple[str, int, str], ...] = (
        ("/v1/ws", 403, "https://evil.example"),
        ("/v1/ws?x=1", 400, ""),
        ("/v1/nothing", 403, ""),
    )
    for path, status, origin in refused:
        with SocketClient(bridge.port, path=path, origin=origin, is_open=False) as client:
            assert status == client.status
    assert {
        ("GET", "/v1/ws", "403"): 1,
        ("GET", "/v1/ws", "400"): 1,
        ("GET", "none", "403"): 1,
    } == answered(bridge)


def test_requests_in_one_piece_are_counted_each(bridge: Bridge) -> None:
    """With a status and a route of their own, though they share a connection."""
    piece = head(b"/livez").replace(b"Connection: close\r\n", b"")
    assert 200 == ask(bridge, piece + piece.replace(b"livez", b"nowhere") + head(b"/v1/status"))
    assert {
        ("GET", "/livez", "200"): 1,
        ("GET", "none", "404"): 1,
        ("GET", "/v1/status", "200"): 1,
    } == answered(bridge)


def test_how_long_requests_took_is_told_by_method_and_route(bridge: Bridge) -> None:
    """One that waits for half a second falls beyond a quarter of it."""
    bridge.client.post("/v1/topics/http/a", content=b"1").raise_for_status()
    assert 504 == bridge.client.post("/v1/requests/http/deaf?timeout=0.5", content=b"1").status_code
    found = scrape(bridge.url)
    waiting = "/v1/requests/{topic}"
    for route, below in ((TOPICS, 1), (waiting, 0)):
        labels = {("method", "POST"), ("route", route)}
        buckets = found["tidegate_http_request_duration_seconds_bucket"]
        assert below == buckets[frozenset({*labels, ("le", "0.25")})]
        assert 1 == buckets[frozenset({*labels, ("le", "+Inf")})]
        assert 1 == found["tidegate_http_request_duration_seconds_count"][frozenset(labels)]
    waited = value(bridge.url, "tidegate_http_request_duration_seconds_sum", method="POST", route=waiting)
    assert waited >= 0.5


def test_the_management_port_is_not_counted(mosquitto: Mosquitto) -> None:
    """Probes and scrapes there are no load; at the first port a probe counts as any request."""
    with (
        ReservedPort() as main,
        ReservedPort() as management,
        Command(
            "serve",
            "--port",
            str(main.number),
            "--broker-url",
            mosquitto.url,
            settings={"TIDEGATE_MANAGEMENT_PORT": str(management.number)},
        ) as bridge,
    ):
        bridge.wait_for("serving at")
        monitor = f"http://{LOOPBACK}:{management.number}"
        for path in ("/livez", "/readyz", "/metrics", "/nowhere"):
            httpx.get(monitor + path, trust_env=False)
        assert {} == scrape(monitor).get("tidegate_http_requests_total", {})
        httpx.get(f"http://{LOOPBACK}:{main.number}/livez", trust_env=False).raise_for_status()
        httpx.get(f"http://{LOOPBACK}:{main.number}/metrics", trust_env=False)
        labels = {"method": "GET", "route": "/livez", "status": 200}
        assert 1 == value(monitor, "tidegate_http_requests_total", **labels)
        labels = {"method": "GET", "route": "none", "status": 404}
        assert 1 == value(monitor, "tidegate_http_requests_total", **labels)
        assert 0 == value(monitor, "tidegate_http_requests_in_progress")
