"""The log: forms, redaction, request ids, and the access log."""

from __future__ import annotations

import io
import json
import logging
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest

from app.logs.configuration import configure_logging
from app.logs.context import request_id, request_id_of
from app.logs.redaction import redact
from app.problems import ProblemType
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import Command
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tests.support.raw_socket import RawSocket
from tests.support.raw_stream import RawStream
from tests.support.websocket import SocketClient

NEW_ID: Final = re.compile(r"[0-9a-f]{32}").fullmatch


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Configures logging; it is as it was afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield configure_logging
    root.handlers[:], root.level = before
    for name in ("uvicorn", "asyncio", "httpx", "watchfiles"):
        logging.getLogger(name).setLevel(logging.NOTSET)


Configure = Callable[..., None]
Captured = pytest.CaptureFixture[str]


def fail() -> None:
    """Log an exception with a secret in it."""

    def refuse() -> None:
        raise ValueError("mqtt://bridge:hunter2@broker refused us\nfor good")

    try:
        refuse()
    except ValueError:
        logging.getLogger("tidegate.test").exception("it failed:\nbadly")


def test_json_is_one_object_a_line(configure: Configure, capsys: Captured) -> None:
    """Time, level, logger and message first; a trace is one text, and extras are members of their own."""
    configure("info", "json")
    logging.getLogger("tidegate.test").info("a %s", "b", extra={"status": 200})
    fail()
    lines = capsys.readouterr().err.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert ["time", "level", "logger", "message", "status"] == list(first)
    assert ("info", "tidegate.test", "a b", 200) == tuple(first[each] for each in list(first)[1:])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert ("error", "it failed:\nbadly") == (second["level"], second["message"])
    assert "mqtt://bridge:***@broker refused us\nfor good" in second["exception"]
    assert 'refuse\n    raise ValueError("' in second["exception"]


def test_the_console_has_one_line_a_record_too(configure: Configure, capsys: Captured) -> None:
    """A trace's lines are joined, and no line break of a text is one of the log."""
    configure("info", "console")
    logging.getLogger("tidegate.test").warning("a\r\nb", extra={"status": 200})
    fail()
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[warning *\] a\\r\\nb *\[tidegate\.test\] status=200", first
    )
    assert "it failed:\\nbadly | Traceback (most recent call last): | " in second
    assert "| ValueError: mqtt://bridge:***@broker refused us | for good" in second


@pytest.mark.parametrize("is_terminal", [True, False])
def test_auto_is_the_console_on_a_terminal_and_json_elsewhere(
    is_terminal: bool, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person reads the one, a program gathers the other."""
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("info")
    logging.getLogger("tidegate.test").info("hello")
    assert is_terminal != stream.getvalue().startswith('{"time":')
    assert is_terminal == ("\x1b[" in stream.getvalue())


def test_text_that_utf_8_cannot_carry_is_escaped(configure: Configure, capsys: Captured) -> None:
    """A lone surrogate loses no record."""
    configure("info", "json")
    logging.getLogger("tidegate.test").info("\udc80 here")
    assert "\\udc80 here" == json.loads(capsys.readouterr().err)["message"]


def test_debug_is_left_out_unless_asked_for(configure: Configure, capsys: Captured) -> None:
    """And uvicorn's own news always is, which may quote a request."""
    configure("info", "json")
    logging.getLogger("tidegate.test").debug("no")
    logging.getLogger("uvicorn.error").info("no")
    assert "" == capsys.readouterr().err
    configure("debug", "json")
    logging.getLogger("tidegate.test").debug("yes")
    assert "yes" in capsys.readouterr().err


PEM: Final = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("authorization: hunter2", "authorization: ***"),
        ("{'Authorization': 'Basic aHVudGVyMg=='}", "{'Authorization': 'Basic ***'}"),
        ("(b'authorization', b'Bearer hunter2')", "(b'authorization', b'Bearer ***')"),
        ("sent bearer hunter.2-_~+/==, refused", "sent bearer ***, refused"),
        ("/v1/ws?ticket=hunter2&topic=a", "/v1/ws?ticket=***&topic=a"),
        ("?topic=a&access_token=hunter2#x", "?topic=a&access_token=***#x"),
        ('"token=hunter2"', '"token=***"'),
        ("TIDEGATE_BROKER_PASSWORD=hunter2", "TIDEGATE_BROKER_PASSWORD=***"),
        ("mqtts://bridge:hunter2@broker:8883", "mqtts://bridge:***@broker:8883"),
        ("redis://:hun@ter2@redis/0", "redis://:***@redis/0"),
        (f"key {PEM} end", "key [private key] end"),
        (repr(PEM), "'[private key]'"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2 and no end", "[private key]"),
        ("a stream of 2 filters ended: client_left", "a stream of 2 filters ended: client_left"),
        ("mqtt://broker:1883 and https://a.example/b@c", "mqtt://broker:1883 and https://a.example/b@c"),
        ("-----BEGIN CERTIFICATE-----\nMIIB", "-----BEGIN CERTIFICATE-----\nMIIB"),
    ],
)
def test_secrets_are_taken_out_and_the_rest_stays(text: str, expected: str) -> None:
    """Wherever the text came from."""
    assert expected == redact(text)


def test_extras_are_redacted_too(configure: Configure, capsys: Captured) -> None:
    """No member of a record goes around it."""
    configure("info", "json")
    logging.getLogger("tidegate.test").info(
        "x", extra={"url": "http://a/?token=hunter2", "list": [PEM], "map": {"a": (PEM, None)}}
    )
    record = json.loads(capsys.readouterr().err)
    assert "http://a/?token=***" == record["url"]
    assert ["[private key]"] == record["list"]
    assert {"a": ["[private key]", None]} == record["map"]


# Request ids.


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url, cors_origins="https://panel.example") as running:
        yield running


def answers(bridge: Bridge, **headers: str) -> Iterator[httpx.Response]:
    """Of every kind: published, refused, unknown, the framework's, a mistake in the method, a preflight."""
    yield bridge.client.post("/v1/topics/logs/a", content=b"1", headers=headers)
    yield bridge.client.post("/v1/topics/logs/a?qso=1", headers=headers)
    yield bridge.client.get("/nowhere", headers=headers)
    yield bridge.client.get("/livez", headers=headers)
    yield bridge.client.put("/v1/publish", headers=headers)
    preflight = {"Origin": "https://panel.example", "Access-Control-Request-Method": "POST"}
    yield bridge.client.options("/v1/publish", headers={**preflight, **headers})


def test_every_answer_has_an_id_of_its_own(bridge: Bridge) -> None:
    """Whoever makes the answer."""
    found = [each.headers.get_list("x-request-id") for each in answers(bridge)]
    assert [] == [each for each in found if len(each) != 1 or not NEW_ID(each[0])]
    assert len(found) == len({each[0] for each in found})


def test_an_id_that_the_caller_sends_comes_back(bridge: Bridge) -> None:
    """So that its own log and ours can be read together."""
    sent = "x" * 100 + "!~/=:7"
    found = [each.headers.get_list("x-request-id") for each in answers(bridge, **{"X-Request-Id": sent})]
    assert [[sent]] * len(found) == found


@pytest.mark.parametrize("sent", [b"", b"x" * 129, b"a b", b"a\tb", "ä".encode(), b"\x7f"])
def test_an_id_that_could_spoil_a_log_is_replaced(sent: bytes) -> None:
    """Beyond 128 characters, or one that is not visible ASCII."""
    found = request_id_of([(b"x-request-id", sent)])
    assert NEW_ID(found.decode())


def test_streams_and_sockets_have_it(bridge: Bridge) -> None:
    """With the head of the stream, and with the handshake, also where that is refused."""
    with RawStream(bridge.port, "logs/a") as stream:
        assert NEW_ID(stream.headers["x-request-id"])
    with SocketClient(bridge.port, headers={"X-Request-Id": "mine"}) as client:
        assert client.answer is not None
        assert ["mine"] == client.answer.headers.get_all("x-request-id")
    with SocketClient(bridge.port, path="/v1/ws?x=1", is_open=False) as client:
        assert client.answer is not None
        assert 400 == client.status
        assert NEW_ID(client.answer.headers["x-request-id"])


def test_a_fault_of_ours_has_it_too(mosquitto: Mosquitto) -> None:
    """It is what the reader of the log looks for."""

    def fault() -> None:
        raise RuntimeError("a fault")

    with running_bridge(mosquitto.url, prepare=lambda app: app.add_api_route("/fault", fault)) as bridge:
        found = bridge.client.get("/fault", headers={"X-Request-Id": "mine"})
        assert (500, ["mine"]) == (found.status_code, found.headers.get_list("x-request-id"))
        assert ProblemType.INTERNAL_ERROR.uri == found.json()["type"]


def test_requests_in_one_piece_have_each_their_own(bridge: Bridge) -> None:
    """Pipelined over one connection, where the second waits for the first."""
    one = b"GET /livez HTTP/1.1\r\nHost: b\r\nX-Request-Id: %b\r\n%b\r\n"
    with socket.create_connection(("127.0.0.1", bridge.port), timeout=30) as connection:
        connection.sendall(one % (b"first", b"") + one % (b"second", b"Connection: close\r\n"))
        received = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert [b"first", b"second"] == re.findall(rb"x-request-id: (\w+)", received)


def test_records_of_the_log_have_the_id(configure: Configure, capsys: Captured, mosquitto: Mosquitto) -> None:
    """Those that are written for a request; none outside of one."""

    def fault() -> None:
        logging.getLogger("tidegate.test").warning("in the request")

    with running_bridge(mosquitto.url, prepare=lambda app: app.add_api_route("/fault", fault)) as bridge:
        configure("info", "json")
        bridge.client.get("/fault", headers={"X-Request-Id": "mine"}).raise_for_status()
        logging.getLogger("tidegate.test").warning("outside")
    records = {each["message"]: each for each in map(json.loads, capsys.readouterr().err.splitlines())}
    assert "mine" == records["in the request"]["request_id"]
    assert "request_id" not in records["outside"]
    assert "" == request_id.get()


@pytest.mark.parametrize("earlier", ["request", "pipelined", "socket"])
def test_a_record_about_a_connection_has_no_id_of_another_request(
    earlier: str, configure: Configure, capsys: Captured, mosquitto: Mosquitto
) -> None:
    """What is no HTTP belongs to no request, whatever was served before it, and where."""
    one = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: mine\r\n\r\n"
    with running_bridge(mosquitto.url) as bridge:
        configure("info", "json")
        if earlier == "socket":
            with SocketClient(bridge.port, headers={"X-Request-Id": "mine"}) as client:
                assert 101 == client.status
        else:
            bridge.client.get("/livez", headers={"X-Request-Id": "mine"}).raise_for_status()
        for _ in range(3):
            with RawSocket(bridge.port, one * 2 if earlier == "pipelined" else b"") as raw:
                raw.read_until(b"HTTP/1.1 200", 2 if earlier == "pipelined" else 0)
                raw.send(b"garbage\r\n\r\n")
                raw.read_to_close()
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    found = [each for each in logged if each["message"] == "Invalid HTTP request received."]
    assert [None] * 3 == [each.get("request_id") for each in found]


# The access log.


def test_the_access_log_says_the_route_and_never_the_topic(mosquitto: Mosquitto) -> None:
    """Method, route, status, milliseconds, bytes and id, of each request that is through."""
    with (
        ReservedPort() as port,
        Command(
            "serve",
            "--port",
            str(port.number),
            "--broker-url",
            mosquitto.url,
            settings={"TIDEGATE_ACCESS_LOG": "1"},
        ) as command,
    ):
        command.wait_for("serving at")
        url = f"http://127.0.0.1:{port.number}"
        with httpx.Client(base_url=url, trust_env=False, headers={"X-Request-Id": "mine"}) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            published = client.post("/v1/topics/hidden/topic?qos=1", content=b"1")
            client.get("/v1/hidden?ticket=hidden")
            client.get("/v1/status")
        with RawStream(port.number, "hidden/#"):
            pass
        with SocketClient(port.number) as client_socket:
            client_socket.close()
        command.wait_for('"route":"/v1/ws"')
        command.wait_for('"route":"/v1/subscribe"')
        assert 0 == command.interrupt(signal.SIGTERM)
    assert "hidden" not in command.output
    found = [json.loads(line) for line in command.output.splitlines()]
    logged: list[dict[str, Any]] = [each for each in found if each["logger"] == "tidegate.access"]
    by_route = {(each["method"], each["route"]): each for each in logged}
    publish = by_route["POST", "/v1/topics/{topic}"]
    assert (200, len(published.content), "mine") == (
        publish["status"],
        publish["bytes"],
        publish["request_id"],
    )
    assert publish["milliseconds"] > 0
    assert 404 == by_route["GET", "none"]["status"]
    assert 200 == by_route["GET", "/v1/status"]["status"]
    assert 200 == by_route["GET", "/v1/subscribe"]["status"]
    assert 101 == by_route["GET", "/v1/ws"]["status"]


def test_the_access_log_tells_a_fault_of_ours_and_a_client_that_left(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """500, which is answered in front of it; and 0 where there was nobody to answer."""

    def fault() -> None:
        raise RuntimeError("a fault")

    caplog.set_level(logging.INFO, "tidegate.access")
    with running_bridge(
        mosquitto.url, access_log=True, prepare=lambda app: app.add_api_route("/fault", fault)
    ) as bridge:
        bridge.client.get("/fault")
        with socket.create_connection(("127.0.0.1", bridge.port)) as connection:
            connection.sendall(b"POST /v1/topics/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1")
        wait_until(lambda: len(logged(caplog)) == 2)
    assert [("/fault", 500), ("/v1/topics/{topic}", 0)] == logged(caplog)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, Any]]:
    """Route and status of the requests in the access log, but for probes."""
    found = [each.__dict__ for each in caplog.records if each.name == "tidegate.access"]
    return [(each["route"], each["status"]) for each in found if each["route"] != "/readyz"]
