from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.event import envelope
from app.problem_types import ProblemType
from tests.support.bridge import wait_until
from tests.support.certificates import Certificates, make_certificates
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncSubscriber,
    ConfigurationError,
    Message,
    MQTTError,
    MQTTTimeoutError,
    NotAuthorizedError,
    NotConnectedError,
    OutcomeUnknownError,
    PayloadError,
    Properties,
    Publisher,
    QueueFullError,
    RefusedError,
    Subscriber,
    TLSError,
    TopicError,
    UnsupportedError,
)
from tidegate.transports.bridge import BridgeTransport
from tidegate.transports.envelope import read_envelope, write_envelope
from tidegate.transports.problems import error_of

SECONDS = 20.0
PROPERTIES = Properties(
    payload_format=1,
    message_expiry=3600,
    content_type="text/plain; charset=utf-8; name=grün",
    response_topic="replies/ü",
    correlation_data=b"\x00\xff=",
    user_properties=(("a", "1"), ("a", "2"), ("ü =%", "grün, & so=weiter"), ("", "")),
)

# What a program does about a problem: each type of the bridge's has one place in the error tree.
KINDS: dict[ProblemType, type[MQTTError]] = {
    ProblemType.INVALID_TOPIC: TopicError,
    ProblemType.RESERVED_TOPIC: TopicError,
    ProblemType.UNSUPPORTED: UnsupportedError,
    ProblemType.PACKET_TOO_LARGE: UnsupportedError,
    ProblemType.BODY_TOO_LARGE: PayloadError,
    ProblemType.INVALID_PAYLOAD: PayloadError,
    ProblemType.INVALID_CLOUD_EVENT: PayloadError,
    ProblemType.SCHEMA_MISMATCH: PayloadError,
    ProblemType.EMPTY_RETAINED: PayloadError,
    ProblemType.UNAUTHENTICATED: NotAuthorizedError,
    ProblemType.NOT_AUTHORIZED: NotAuthorizedError,
    ProblemType.NOT_GRANTED: NotAuthorizedError,
    ProblemType.FORBIDDEN: NotAuthorizedError,
    ProblemType.BODY_TIMEOUT: NotConnectedError,
    ProblemType.HEADER_TIMEOUT: NotConnectedError,
    ProblemType.BROKER_UNAVAILABLE: NotConnectedError,
    ProblemType.IDEMPOTENCY_UNAVAILABLE: NotConnectedError,
    ProblemType.NOT_READY: NotConnectedError,
    ProblemType.SHUTTING_DOWN: NotConnectedError,
    ProblemType.AUTHENTICATION_UNAVAILABLE: NotConnectedError,
    ProblemType.TOO_MANY_CONNECTIONS: NotConnectedError,
    ProblemType.TOO_MANY_STREAMS: NotConnectedError,
    ProblemType.QUEUE_FULL: QueueFullError,
    ProblemType.TOO_MANY_REQUESTS: QueueFullError,
    ProblemType.TOO_MANY_WAITING: QueueFullError,
    ProblemType.REPLY_TOPIC_BUSY: QueueFullError,
    ProblemType.QUOTA_EXCEEDED: RefusedError,
    ProblemType.REFUSED_BY_BROKER: RefusedError,
    ProblemType.CONFLICT: OutcomeUnknownError,
    ProblemType.INTERNAL_ERROR: OutcomeUnknownError,
    ProblemType.OUTCOME_UNKNOWN: OutcomeUnknownError,
    ProblemType.BROKER_TIMEOUT: MQTTTimeoutError,
    ProblemType.NO_REPLY: MQTTTimeoutError,
    ProblemType.TICKETS_UNAVAILABLE: NotConnectedError,
    # of calls that the SDK does not make
    ProblemType.FORBIDDEN_TARGET: NotAuthorizedError,
    ProblemType.CREDENTIAL_UNREADABLE: OutcomeUnknownError,
    ProblemType.ACTIVATION_FAILED: OutcomeUnknownError,
    ProblemType.CREDENTIAL_STORE_UNAVAILABLE: NotConnectedError,
}
REASON_CODES = {
    ProblemType.NOT_AUTHORIZED: 0x87,
    ProblemType.QUOTA_EXCEEDED: 0x97,
    ProblemType.REFUSED_BY_BROKER: 0x83,
}


@pytest.mark.parametrize("kind", ProblemType, ids=lambda kind: kind.slug)
def test_every_problem_of_the_bridge_has_its_error(kind: ProblemType) -> None:
    """The type decides, the detail and the hint are the text; what no program can act on is a wrong use."""
    problem = {"type": kind.uri, "status": kind.status, "detail": "what it is", "hint": "what to do"}
    if kind in REASON_CODES:
        problem["reason_code"] = REASON_CODES[kind]
    request = httpx.Request("POST", "http://bridge/v1/topics/a")
    error = error_of(httpx.Response(kind.status, json=problem, request=request), topic="a")
    assert type(error) is KINDS.get(kind, ConfigurationError)
    assert str(error) == "what it is; what to do"
    assert error.topic == "a"
    if kind in REASON_CODES:
        assert error.reason_code == REASON_CODES[kind]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ConfigurationError),
        (401, NotAuthorizedError),
        (403, NotAuthorizedError),
        (404, ConfigurationError),
        (413, PayloadError),
        (429, QueueFullError),
        (500, OutcomeUnknownError),
        (502, OutcomeUnknownError),
        (503, NotConnectedError),
        (504, OutcomeUnknownError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'"text"', b'{"type": 7}'], ids=repr)
def test_an_answer_that_is_no_bridges_has_an_error_too(
    status: int, kind: type[MQTTError], body: bytes
) -> None:
    """A proxy's page tells by its status alone; the error says where the message may have gone through."""
    request = httpx.Request("POST", "http://proxy/v1/topics/a")
    error = error_of(httpx.Response(status, content=body, request=request))
    assert type(error) is kind
    assert str(status) in str(error)


MESSAGES = st.builds(
    Message,
    topic=st.text(min_size=1),
    payload=st.binary()
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value, indent=1).encode()),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    properties=st.builds(
        Properties,
        payload_format=st.none() | st.integers(0, 1),
        message_expiry=st.none() | st.integers(0, 2**32 - 1),
        content_type=st.none() | st.text(),
        response_topic=st.none() | st.text(min_size=1),
        correlation_data=st.none() | st.binary(),
        user_properties=st.lists(st.tuples(st.text(), st.text())).map(tuple),
    ),
    duplicate=st.booleans(),
    received_at=st.integers(0, 4_000_000_000).map(float),
)


@given(MESSAGES)
def test_an_envelope_is_read_back_as_it_was_written(message: Message) -> None:
    """Everything survives; of a JSON payload all but its line breaks and the space around it."""
    read = read_envelope(envelope(message).decode())
    if read.payload != message.payload:
        one_line = message.payload.translate(bytes.maketrans(b"\r\n", b"  ")).strip()
        assert read.payload == one_line
        json.loads(message.payload)
    assert (read.topic, read.qos, read.retain) == (message.topic, message.qos, message.retain)
    assert read.properties == message.properties
    assert (read.received_at, read.duplicate) == (message.received_at, message.duplicate)
    assert read_envelope(write_envelope(message)) == read


@pytest.mark.parametrize(
    "payload", [b"1.0", b"1e5", b"0.1000", b'{"a":1,"a":2}', b"9" * 400, b'"\\u00fc"', b"-0"]
)
def test_json_keeps_every_digit(payload: bytes) -> None:
    """A number is not passed through a float, and nothing is written anew."""
    assert read_envelope(envelope(Message("a", payload)).decode()).payload == payload


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"topic":"a"', '{"topic" "a"}', '{"topic":"a"}', '{"a":1 "b":2}']
)
def test_what_is_no_envelope_is_an_error(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises((ValueError, KeyError)):
        read_envelope(text)


@pytest.mark.parametrize(
    "topic",
    [
        ".",
        "..",
        "a/../b",
        "./a",
        "/",
        "//",
        "/lead/",
        "a//b",
        "ü/€/😀",
        "a b",
        "a%2Fb",
        "a?b=c&d",
        "a;b=c",
        "\\",
        "t/" + "x" * 3000,
        "l/" * 150 + "ü",
    ],
    ids=lambda topic: topic[:12],
)
def test_every_topic_arrives_as_it_is(topic: str, bridge_url: str, mosquitto: Mosquitto) -> None:
    """What a URL would change in a topic goes another way; publishing, keeping and clearing alike."""
    got: list[tuple[str, bytes, bool]] = []

    def keep(message: Message) -> None:
        got.append((message.topic, message.payload, message.retain))

    with Publisher(bridge_url) as publisher, Subscriber(mosquitto.url) as witness:
        witness.subscribe(topic, keep)
        assert publisher.publish(topic, b"live").topic == topic
        publisher.publish(topic, b"kept", retain=True)
        publisher.publish(topic, b"", retain=True)
        wait_until(lambda: len(got) == 3)
        assert got == [(topic, b"live", False), (topic, b"kept", False), (topic, b"", False)]
        witness.subscribe(topic, lambda *_: got.append((topic, b"still there", True)))
        publisher.publish(topic, b"end")
        wait_until(lambda: len(got) >= 5)
    assert (topic, b"still there", True) in got
    assert len(got) == 5


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b'{"a":1}'])
def test_every_property_goes_both_ways(payload: bytes, bridge_url: str, mosquitto: Mosquitto) -> None:
    """What a message carries to a broker it carries through a bridge, and back out of one."""
    properties = PROPERTIES if payload != b"\x00\xff" else Properties(payload_format=0, content_type="a/b")
    got: list[Message] = []

    def keep(message: Message) -> None:
        got.append(message)

    with (
        Publisher(bridge_url) as publisher,
        Subscriber(mosquitto.url) as direct,
        Subscriber(bridge_url) as bridged,
    ):
        for witness in (direct, bridged):
            witness.subscribe("bridge/properties", keep, qos=2)
        publisher.publish("bridge/properties", payload, 2, properties=properties)
        wait_until(lambda: len(got) == 2)
    for message in got:
        assert (message.payload, message.qos) == (payload, 2)
        assert message.properties == properties


def test_clearing_with_properties_is_refused(bridge_url: str) -> None:
    """What the bridge could not carry is said and not dropped."""
    with Publisher(bridge_url) as publisher, pytest.raises(UnsupportedError):
        publisher.publish("a", b"", retain=True, properties=Properties(content_type="a/b"))


async def test_a_stream_is_opened_again(
    bridge_url: str, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that breaks and heals is noticed, logged once, and messages come again."""
    got: list[Any] = []
    arrived = asyncio.Event()

    async def keep(topic: str, payload: Any) -> None:
        got.append(payload)
        arrived.set()

    async with (
        FaultProxy(int(bridge_url.rpartition(":")[2])) as proxy,
        AsyncSubscriber(f"http://{proxy.host}:{proxy.port}") as subscriber,
    ):
        await subscriber.subscribe("bridge/again", keep)
        await proxy.set(Fault.REFUSE)
        accepted = proxy.accepted
        await proxy.set(Fault.PASS)
        async with asyncio.timeout(SECONDS):
            while proxy.accepted == accepted:
                await asyncio.sleep(0.01)
            with Publisher(mosquitto.url) as publisher:
                while not arrived.is_set():
                    publisher.publish("bridge/again", "hello")
                    await asyncio.sleep(0.05)
    assert set(got) == {"hello"}
    assert caplog.text.count("opening it again") == 1


@dataclass
class Canned:
    """A server that answers the same to everything, and keeps what it was asked."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/event-stream"
    url: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def named(self, path: str) -> list[str | None]:
        """The Authorization of each request for a path."""
        return [authorization for _, asked, authorization in self.asked if asked.startswith(path)]


@contextmanager
def canned(answer: Canned, certificates: Certificates | None = None) -> Iterator[Canned]:
    """Run such a server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            """Answer anything."""
            answer.asked.append((self.command, self.path, self.headers["Authorization"]))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_DELETE = do  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    answer.url = f"http://127.0.0.1:{server.server_port}"
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server_certificate, certificates.server_key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        answer.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield answer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_token_goes_with_every_request() -> None:
    """A function gives a new one each time, for calls and for each opening of a stream."""
    tokens = iter(f"token-{number}" for number in range(1000))
    with canned(Canned(body=b'{"reason_code": 0}')) as bridge:
        publisher = Publisher(bridge.url, token=lambda: next(tokens))
        publisher.publish("a", 1)
        publisher.publish("a", 1)
        publisher.disconnect()
        subscriber = Subscriber(bridge.url, token=lambda: next(tokens))
        subscriber.subscribe("a", print)
        wait_until(lambda: len(bridge.named("/v1/subscribe")) >= 2)
        subscriber.disconnect()
    assert bridge.named("/v1/topics") == ["Bearer token-0", "Bearer token-1"]
    assert bridge.named("/v1/subscribe")[:2] == ["Bearer token-2", "Bearer token-3"]


@pytest.mark.parametrize("token", ["a b", "a\nb", "ü", "a\x00"], ids=repr)
def test_a_token_that_no_header_carries_is_told_without_showing_it(token: str) -> None:
    """It could smuggle a second header in; nothing is sent."""
    with canned(Canned()) as bridge:
        publisher = Publisher(bridge.url, token=token)
        subscriber = Subscriber(bridge.url, token=token)
        for call in (lambda: publisher.publish("a", 1), lambda: subscriber.subscribe("a", print)):
            with pytest.raises(ConfigurationError, match="token") as caught:
                call()
            assert token not in str(caught.value)
        publisher.disconnect()
        subscriber.disconnect()
        assert bridge.asked == []


def test_a_token_function_that_fails_is_heard() -> None:
    """Its error reaches whoever subscribes or publishes, and nobody waits for ever."""

    def fails() -> str:
        raise LookupError("no token here")

    with canned(Canned()) as bridge:
        publisher = Publisher(bridge.url, token=fails)
        subscriber = Subscriber(bridge.url, token=fails)
        for call in (lambda: publisher.publish("a", 1), lambda: subscriber.subscribe("a", print)):
            with pytest.raises(LookupError, match="no token here"):
                call()
        publisher.disconnect()
        subscriber.disconnect()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"reason_code": null}'], ids=repr)
def test_a_server_that_is_no_bridge_is_told(body: bytes) -> None:
    """A wrong address ends in words, for publishing and for following, and not in a success."""
    with canned(Canned(body=body, content_type="text/html")) as server:
        publisher = Publisher(server.url)
        subscriber = Subscriber(server.url)
        for call in (lambda: publisher.publish("a", 1), lambda: subscriber.subscribe("a", print)):
            with pytest.raises(ConfigurationError, match="no bridge"):
                call()
        publisher.disconnect()
        subscriber.disconnect()


def followed(body: bytes, holds: Callable[[list[Any]], bool]) -> list[Any]:
    """What a handler gets from a stream of these bytes."""
    got: list[Any] = []
    with canned(Canned(body=body)) as bridge:
        subscriber = Subscriber(bridge.url)
        subscriber.subscribe("a", lambda _, payload: got.append(payload))
        wait_until(lambda: holds(got))
        subscriber.disconnect()
    return got


def test_an_event_that_cannot_be_read_costs_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next one arrives."""
    good = b"id: 1\ndata: " + envelope(Message("a", b"7")) + b"\n\n"
    stream = b"data: {\n\ndata: {}\n\nevent: gap\ndata: \xff\n\nevent: strange\ndata: {}\n\n" + good
    assert followed(stream, bool)[0] == 7
    assert caplog.text.count("cannot be used") >= 3


def test_control_events_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A gap, a lost broker and a farewell for good are told; after the last nothing is opened again."""
    with canned(
        Canned(
            body=b'event: gap\ndata: {"reason":"not_kept"}\n\n'
            b'event: broker\ndata: {"state":"down","reason":"gone"}\n\n'
            b'event: close\ndata: {"reason":"refused","may_reconnect":false}\n\n'
        )
    ) as bridge:
        subscriber = Subscriber(bridge.url)
        subscriber.subscribe("a", print)
        wait_until(lambda: "for good: refused" in caplog.text)
        subscriber.disconnect()
        assert len(bridge.asked) == 1
    assert "missed: not_kept" in caplog.text
    assert "lost its broker: gone" in caplog.text


def test_a_bridge_of_an_unknown_authority_is_a_tls_error(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The certificate is checked, and the authority that is named is trusted."""
    strangers = make_certificates(tmp_path_factory.mktemp("other"))
    with canned(Canned(body=b'{"reason_code": 16}'), certificates) as bridge:
        publisher = Publisher(bridge.url, tls={"ca_certs": certificates.ca})
        assert publisher.publish("a", 1).reason_code == 0x10
        publisher.disconnect()
        for tls in ({"ca_certs": strangers.ca}, None):
            publisher = Publisher(bridge.url, tls=tls)
            with pytest.raises(TLSError):
                publisher.publish("a", 1)
            publisher.disconnect()
    assert len(bridge.asked) == 1


async def test_a_bridge_that_hangs_up_leaves_the_outcome_open() -> None:
    """Bytes were sent and no answer came: that is not the same as nothing sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = BridgeTransport(url, publish_timeout_seconds=0.05)
        with pytest.raises(OutcomeUnknownError) as caught:
            await transport.publish(Message("a", b"1", 1))
        thread.join()
        await transport.close()
    assert caught.value.topic == "a"


@pytest.mark.parametrize("depth", [10, 950, 990, 1000, 5000])
def test_an_event_is_read_however_deep_its_payload_is(depth: int) -> None:
    """Deeper than Python's stack too: the payload is passed on as it is written, with what follows it."""
    payload = "[" * depth + '"]}\\"["' + "]" * depth
    text = (
        f'{{"topic":"deep","payload":{payload},"encoding":"json","qos":2,"retain":false,'
        '"time":"2026-01-31T12:00:00.000Z","properties":{"content_type":"a/b"}}'
    )
    message = read_envelope(text)
    assert (payload.encode(), 2, "a/b") == (message.payload, message.qos, message.properties.content_type)
