"""Traces: from one HTTP request to the streams, through a real broker, read from the exporter in memory."""

from __future__ import annotations

import asyncio
import gzip
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from app.tracing.choice import is_wanted
from app.tracing.provider import provider_of
from app.tracing.spans import Tracing
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import Command, environment
from tests.support.device import Device
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish, subscribed
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.sse import following
from tests.support.websocket import SocketClient
from tidegate.errors import ConfigurationError

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED: Final = f"00-{TRACE}-b7ad6b7169203331-00"
OTHER: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Traced:
    """A bridge that traces, and the spans that it ended so far."""

    def __init__(self, bridge: Bridge, exporter: InMemorySpanExporter) -> None:
        self.bridge = bridge
        self._exporter = exporter

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        """Those of a kind, in the order of their ends."""
        return [each for each in self._exporter.get_finished_spans() if each.kind is kind]

    def wait_for(self, kind: SpanKind, count: int = 1) -> list[ReadableSpan]:
        """Wait until there are so many, and give them."""
        wait_until(lambda: len(self.spans(kind)) >= count)
        return self.spans(kind)


@pytest.fixture
def traced(mosquitto: Mosquitto) -> Iterator[Traced]:
    """A bridge with an exporter that keeps all spans in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with running_bridge(mosquitto.url, tracing=Tracing(provider)) as bridge:
        yield Traced(bridge, exporter)


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """The trace, the span and its parent, in hexadecimal."""
    own = span.get_span_context()
    assert own is not None
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{own.trace_id:032x}", f"{own.span_id:016x}", parent


@pytest.mark.parametrize("target", ["/v1/topics/tracing/a", "/v1/publish"])
def test_one_trace_goes_from_the_request_to_the_stream(traced: Traced, target: str) -> None:
    """The caller's span, the request, the message on its way out, and where it is handed to streams."""
    message = {"topic": "tracing/a", "payload": 1}
    with following(traced.bridge, "tracing/a") as stream, following(traced.bridge, "tracing/a") as second:
        traced.bridge.client.post(target, json=message, headers={"traceparent": PARENT}).raise_for_status()
        for each in (stream, second):
            each.wait_for_messages(1)
        (consumer,) = traced.wait_for(SpanKind.CONSUMER)
        (producer,) = traced.spans(SpanKind.PRODUCER)
        (server,) = traced.wait_for(SpanKind.SERVER)
        carried = stream.events[0].data["properties"]["user_properties"]
    assert {TRACE} == {ids(each)[0] for each in (server, producer, consumer)}
    assert ["b7ad6b7169203331", ids(server)[1], ids(producer)[1]] == [
        ids(each)[2] for each in (server, producer, consumer)
    ]
    assert [["traceparent", f"00-{TRACE}-{ids(producer)[1]}-01"]] == carried
    route = target.replace("tracing/a", "{topic}")
    assert [f"POST {route}", "publish", "deliver"] == [each.name for each in (server, producer, consumer)]


def test_spans_tell_what_the_conventions_say(traced: Traced) -> None:
    """Method, route and status; system, operation, topic and size; the payload never."""
    with following(traced.bridge, "tracing/b"):
        url = "/v1/topics/tracing/b?qos=2"
        traced.bridge.client.post(url, content=b"secret-of-ours", headers={"traceparent": PARENT})
        (consumer,) = traced.wait_for(SpanKind.CONSUMER)
    (producer,) = traced.spans(SpanKind.PRODUCER)
    (server,) = traced.wait_for(SpanKind.SERVER)
    assert {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/v1/topics/{topic}",
        "http.response.status_code": 200,
    } == dict(server.attributes or {})
    about = {
        "messaging.system": "mqtt",
        "messaging.destination.name": "tracing/b",
        "messaging.message.body.size": 14,
        "tidegate.qos": 2,
        "tidegate.retain": False,
    }
    sent = {"messaging.operation.type": "send", "messaging.operation.name": "publish"}
    handed = {"messaging.operation.type": "process", "messaging.operation.name": "deliver"}
    assert {**about, **sent} == dict(producer.attributes or {})
    assert {**about, **handed, "tidegate.qos": 1} == dict(consumer.attributes or {})
    assert "secret-of-ours" not in "".join(each.to_json() for each in (server, producer, consumer))


def test_a_request_without_a_trace_begins_one(traced: Traced, mosquitto: Mosquitto) -> None:
    """And the message carries it."""
    with subscribed(mosquitto, "tracing/c") as subscriber:
        traced.bridge.client.post("/v1/topics/tracing/c", content=b"1").raise_for_status()
        seen = subscriber.next()
    (producer,) = traced.spans(SpanKind.PRODUCER)
    (server,) = traced.wait_for(SpanKind.SERVER)
    trace, span, parent = ids(producer)
    assert (trace, parent) == ids(server)[:2]
    ((name, carried),) = seen.user_properties
    assert ("traceparent", f"00-{trace}-{span}") == (name, carried.rpartition("-")[0])


def test_what_a_caller_says_about_the_message_stays(traced: Traced, mosquitto: Mosquitto) -> None:
    """A user property wins over the header, and over the bridge's own span."""
    headers = {"traceparent": PARENT, "Mqtt-User-Property": f"traceparent={OTHER}"}
    with subscribed(mosquitto, "tracing/d") as subscriber:
        traced.bridge.client.post("/v1/topics/tracing/d", content=b"1", headers=headers).raise_for_status()
        assert [("traceparent", OTHER)] == subscriber.next().user_properties


def test_other_user_properties_stay_where_they_are(traced: Traced, mosquitto: Mosquitto) -> None:
    """In their order; the state of the trace goes along."""
    headers = [("Mqtt-User-Property", "a=1"), ("Mqtt-User-Property", "a=2")]
    headers += [("traceparent", PARENT), ("tracestate", "vendor=1")]
    with subscribed(mosquitto, "tracing/e") as subscriber:
        traced.bridge.client.post("/v1/topics/tracing/e", content=b"1", headers=headers).raise_for_status()
        seen = subscriber.next().user_properties
    span = ids(traced.spans(SpanKind.PRODUCER)[0])[1]
    expected = [("a", "1"), ("a", "2"), ("traceparent", f"00-{TRACE}-{span}-01"), ("tracestate", "vendor=1")]
    assert expected == seen


def test_a_trace_that_is_not_recorded_is_passed_on_as_such(traced: Traced, mosquitto: Mosquitto) -> None:
    """The caller decided; nothing is exported, and the flag stays."""
    with subscribed(mosquitto, "tracing/f") as subscriber:
        headers = {"traceparent": UNSAMPLED}
        traced.bridge.client.post("/v1/topics/tracing/f", content=b"1", headers=headers).raise_for_status()
        ((_, carried),) = subscriber.next().user_properties
    assert carried.startswith(f"00-{TRACE}-")
    assert carried.endswith("-00")
    assert carried != UNSAMPLED
    assert [] == traced.spans(SpanKind.PRODUCER)


def test_each_message_of_a_batch_has_a_span(traced: Traced) -> None:
    """All under the request that brought them."""
    messages = [{"topic": "tracing/g", "payload": number} for number in range(3)]
    with following(traced.bridge, "tracing/g"):
        traced.bridge.client.post("/v1/publish/batch", json=messages).raise_for_status()
        consumers = traced.wait_for(SpanKind.CONSUMER, 3)
    producers = traced.wait_for(SpanKind.PRODUCER, 3)
    (server,) = traced.wait_for(SpanKind.SERVER)
    assert {ids(server)[1]} == {ids(each)[2] for each in producers}
    assert {ids(each)[1] for each in producers} == {ids(each)[2] for each in consumers}


def test_a_message_over_a_websocket_begins_a_trace(traced: Traced) -> None:
    """The socket itself, which lasts, is no span."""
    with SocketClient(traced.bridge.port) as client:
        client.publish("tracing/h", 1)
        (producer,) = traced.wait_for(SpanKind.PRODUCER)
    assert "" == ids(producer)[2]
    assert [] == traced.spans(SpanKind.SERVER)


async def test_a_request_and_its_reply_are_of_one_trace(traced: Traced, mosquitto: Mosquitto) -> None:
    """The device got the context with the request."""
    async with Device(mosquitto.port, "tracing/ask") as device:
        headers = {"traceparent": PARENT}
        target = b"/v1/requests/tracing/ask"
        answer = await asyncio.to_thread(traced.bridge.raw, "POST", target, headers=headers, body=b"1")
        assert 200 == answer.status
        (request,) = device.requests
    (producer,) = traced.wait_for(SpanKind.PRODUCER)
    assert (("traceparent", f"00-{TRACE}-{ids(producer)[1]}-01"),) == request.properties.user_properties


def test_what_devices_send_without_a_trace_has_no_span(traced: Traced, mosquitto: Mosquitto) -> None:
    """With one it has, if somebody follows the topic."""
    properties = [("user-property", "traceparent", PARENT)]
    with following(traced.bridge, "tracing/i") as stream:
        publish(mosquitto, "tracing/i", b"1")
        publish(mosquitto, "tracing/nobody", b"1", properties=properties)
        publish(mosquitto, "tracing/i", b"2", properties=properties)
        stream.wait_for_messages(2)
        (consumer,) = traced.wait_for(SpanKind.CONSUMER)
    assert (TRACE, "b7ad6b7169203331") == (ids(consumer)[0], ids(consumer)[2])


def test_failures_are_told_with_their_type(fresh_mosquitto: Mosquitto) -> None:
    """The type of the problem; a caller's own mistake is none of the request's span."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    with running_bridge(fresh_mosquitto.url, tracing=tracing, publish_timeout_seconds=0.2) as bridge:
        fresh_mosquitto.kill()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        assert 503 == bridge.client.post("/v1/topics/tracing/j", content=b"1").status_code
        assert 400 == bridge.client.post("/v1/topics/tracing/j?x=1").status_code
    found = {(each.name, each.kind): each for each in exporter.get_finished_spans()}
    producer = found["publish", SpanKind.PRODUCER]
    assert StatusCode.ERROR is producer.status.status_code
    assert "broker-unavailable" == (producer.attributes or {})["error.type"]
    servers = [each for each in exporter.get_finished_spans() if each.kind is SpanKind.SERVER]
    assert [StatusCode.ERROR, StatusCode.UNSET] == [each.status.status_code for each in servers]


def test_an_old_connection_carries_no_context(mosquitto: Mosquitto) -> None:
    """MQTT 3.1.1 has no properties; the publish goes through all the same."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    url = f"{mosquitto.url}?protocol=3.1.1"
    with running_bridge(url, tracing=Tracing(provider)) as bridge, subscribed(mosquitto, "tracing/k") as seen:
        bridge.client.post("/v1/topics/tracing/k", content=b"1", headers={"traceparent": PARENT})
        assert [] == seen.next().user_properties
    assert "publish" in {each.name for each in exporter.get_finished_spans()}


# Whether there are traces at all.


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_SERVICE_NAME": "bridge"}, False),
    ],
)
def test_traces_are_made_where_the_environment_asks_for_them(
    variables: dict[str, str], expected: bool
) -> None:
    """An exporter or an endpoint does; a name alone does not."""
    assert expected is is_wanted(variables)


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
)
def test_what_cannot_be_exported_to_is_refused_in_words(variables: dict[str, str]) -> None:
    """Rather than to export nothing in silence."""
    with pytest.raises(ConfigurationError, match=next(iter(variables.values()))):
        provider_of(variables)


@pytest.mark.parametrize("variables", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}])
def test_nothing_of_opentelemetry_is_loaded_without_traces(variables: dict[str, str]) -> None:
    """An extra that is installed and not used costs nothing; the framework loads its interface by itself."""
    program = (
        "import sys\nfrom app.main import create_app\nfrom app.settings import Settings\n"
        "create_app(Settings())\n"
        "unwanted = ('opentelemetry.sdk', 'opentelemetry.exporter', 'app.tracing.spans')\n"
        "print([each for each in sys.modules if each.startswith(unwanted)])"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[]\n" == outcome.stdout


def test_an_extra_that_is_not_installed_is_asked_for(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bridge runs without traces, and its log says how to have them."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("app.tracing.choice.is_installed", lambda: False)
    with running_bridge(mosquitto.url):
        pass
    assert ["tidegate-bridge[otel]" in each.getMessage() for each in caplog.records].count(True) == 1


class Collector(BaseHTTPRequestHandler):
    """What takes OTLP over HTTP, and keeps it."""

    taken: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        """Take one export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_process_exports_to_a_collector_before_it_ends(mosquitto: Mosquitto) -> None:
    """By the variables that OpenTelemetry defines; with no path and no query, as the framework would."""
    Collector.taken = []
    with HTTPServer((LOOPBACK, 0), Collector) as collector, ReservedPort() as port:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{collector.server_address[1]}",
            "OTEL_SERVICE_NAME": "our-bridge",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            "NO_PROXY": "*",
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        }
        command = ("serve", "--port", str(port.number), "--broker-url", mosquitto.url)
        with Command(*command, settings=settings) as bridge:
            bridge.wait_for("serving at")
            url = f"http://{LOOPBACK}:{port.number}"
            httpx.get(f"{url}/v1/hidden?ticket=hidden", trust_env=False)
            with SocketClient(port.number, path="/v1/ws") as client:
                client.publish("tracing/l", 1)
                client.close()
            assert 0 == bridge.interrupt(signal.SIGTERM), bridge.output
        collector.shutdown()
        thread.join()
    assert '"level":"error"' not in bridge.output
    (resource,) = [each for taken in Collector.taken for each in taken.resource_spans]
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert "our-bridge" == named["service.name"]
    names = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert ["GET none", "publish"] == names
    assert "hidden" not in str(resource)


def test_a_collector_that_hangs_does_not_hold_the_end(mosquitto: Mosquitto) -> None:
    """It takes the connection and answers never; what is left for it is lost, and the status is 0."""
    with socket.create_server((LOOPBACK, 0)) as silent, ReservedPort() as port:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{silent.getsockname()[1]}",
            # far longer than the test waits for the end of the process
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
            "NO_PROXY": "*",
        }
        command = ("serve", "--port", str(port.number), "--broker-url", mosquitto.url)
        with Command(*command, settings=settings) as bridge:
            bridge.wait_for("serving at")
            url = f"http://{LOOPBACK}:{port.number}/v1/topics/tracing/m"
            httpx.post(url, content=b"1", trust_env=False)
            assert 0 == bridge.interrupt(signal.SIGTERM), bridge.output
