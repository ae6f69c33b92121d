"""``/metrics`` of a real bridge, after traffic that the test knows."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from app.hub.listener import CloseReason
from app.metrics.exposition import MAX_CREDENTIALS
from app.metrics.refusals import MAX_REASONS, AuthenticationRefusals
from app.problems import ProblemError, ProblemType
from app.security.authentication import Authentication
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.device import Device, silence
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.metrics import scrape, value
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tests.support.raw_stream import RawStream
from tests.support.sse import following
from tests.support.websocket import SocketClient
from tidegate.message import Message

TOPIC: Final = "metrics/secret-of-ours"


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose counts begin at zero."""
    with running_bridge(mosquitto.url) as running:
        yield running


def test_publishes_are_counted_by_qos_outcome_and_reason(bridge: Bridge) -> None:
    """One for each that was taken, by whichever call; with QoS 1 Mosquitto says that nobody listens."""
    for qos in (0, 1, 1, 2):
        bridge.client.post(f"/v1/topics/{TOPIC}?qos={qos}", content=b"1").raise_for_status()
    bridge.client.post("/v1/publish", json={"topic": TOPIC, "payload": 1}).raise_for_status()
    reasons = ("success", "no-matching-subscribers", "success")
    for qos, (count, reason) in enumerate(zip((1, 3, 1), reasons, strict=True)):
        labels = {"qos": qos, "outcome": "accepted", "reason": reason}
        assert count == value(bridge.url, "tidegate_publishes_total", **labels)
    assert [1, 3, 1] == [
        value(bridge.url, "tidegate_publish_duration_seconds_count", qos=qos) for qos in (0, 1, 2)
    ]
    assert value(bridge.url, "tidegate_publish_duration_seconds_sum", qos=1) > 0
    assert 3 == value(bridge.url, "tidegate_publish_duration_seconds_bucket", qos=1, le="+Inf")


def test_a_batch_counts_each_of_its_messages(bridge: Bridge) -> None:
    """Also those that cannot be read; how long they took is not told, since they wait for one another."""
    good = {"topic": TOPIC, "payload": 1, "qos": 2}
    answer = bridge.client.post("/v1/publish/batch", json=[good, {"topic": 1}, good])
    assert (2, 1) == (answer.json()["accepted"], answer.json()["failed"])
    labels = {"qos": 2, "outcome": "accepted", "reason": "success"}
    assert 2 == value(bridge.url, "tidegate_publishes_total", **labels)
    labels = {"qos": "none", "outcome": "refused", "reason": "invalid-body"}
    assert 1 == value(bridge.url, "tidegate_publishes_total", **labels)
    assert 0 == value(bridge.url, "tidegate_publish_duration_seconds_count", qos=2)


def test_messages_over_a_websocket_are_counted(bridge: Bridge) -> None:
    """They pass the same gate."""
    with SocketClient(bridge.port) as client:
        client.publish(TOPIC, 1)
        assert 1 == value(bridge.url, "tidegate_streams", form="websocket")
    labels = {"qos": 1, "outcome": "accepted", "reason": "no-matching-subscribers"}
    wait_until(lambda: value(bridge.url, "tidegate_publishes_total", **labels) == 1)


def test_a_check_that_refuses_is_counted(mosquitto: Mosquitto) -> None:
    """With the type of the problem that the caller was told."""

    def refuse(_: Message) -> None:
        raise ProblemError(ProblemType.INVALID_PAYLOAD, "no")

    with running_bridge(mosquitto.url) as bridge:
        bridge.app.state.gate._checks = (refuse,)
        assert 400 <= bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1").status_code < 500
        slug = ProblemType.INVALID_PAYLOAD.slug
        labels = {"qos": 1, "outcome": "refused", "reason": slug}
        assert 1 == value(bridge.url, "tidegate_publishes_total", **labels)
        assert 1 == value(bridge.url, "tidegate_http_problems_total", type=slug)


def test_what_was_not_sent_and_what_nobody_knows_are_told_apart(fresh_mosquitto: Mosquitto) -> None:
    """A broker that hangs, and then is gone: ``unknown`` and ``unavailable``; the connection's story too."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.5) as bridge:
        fresh_mosquitto.pause()
        assert 504 == bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1").status_code
        assert 1 == value(bridge.url, "tidegate_broker_in_flight_messages")
        fresh_mosquitto.resume()
        wait_until(lambda: value(bridge.url, "tidegate_broker_in_flight_messages") == 0)
        fresh_mosquitto.kill()
        wait_until(lambda: value(bridge.url, "tidegate_broker_state", state="disconnected") == 1)
        assert 503 == bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1").status_code
        found = scrape(bridge.url)
        assert {"outcome": "unknown", "reason": "outcome-unknown", "qos": "1"} in labels_of(found)
        assert {"outcome": "unavailable", "reason": "broker-unavailable", "qos": "1"} in labels_of(found)
        assert "tidegate_broker_round_trip_age_seconds" not in found
        wait_until(lambda: value(bridge.url, "tidegate_broker_connection_failures_total") > 0)
        assert 1 == value(bridge.url, "tidegate_broker_connections_total")
        fresh_mosquitto.start()
        wait_until(lambda: value(bridge.url, "tidegate_broker_state", state="connected") == 1)
        assert 2 == value(bridge.url, "tidegate_broker_connections_total")
        assert 20 == value(bridge.url, "tidegate_broker_in_flight_limit_messages")


def labels_of(found: dict[str, dict[frozenset[tuple[str, str]], float]]) -> list[dict[str, str]]:
    """By what publishes were counted."""
    return [dict(each) for each in found["tidegate_publishes_total"]]


def test_streams_are_counted_by_form_and_by_the_reason_of_their_end(bridge: Bridge) -> None:
    """Open ones while they are; a WebSocket once, and its subscriptions beside it."""
    with (
        RawStream(bridge.port, TOPIC),
        RawStream(bridge.port, TOPIC, accept="application/x-ndjson"),
        SocketClient(bridge.port) as client,
    ):
        client.subscribe(TOPIC)
        client.subscribe("metrics/other")
        for form in ("sse", "ndjson", "websocket"):
            assert 1 == value(bridge.url, "tidegate_streams", form=form)
        assert 2 == value(bridge.url, "tidegate_websocket_subscriptions")
        assert 5 == value(bridge.url, "tidegate_listeners")
        assert 2 == value(bridge.url, "tidegate_filters")
        bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1").raise_for_status()
        wait_until(lambda: value(bridge.url, "tidegate_deliveries_total") == 3)
        assert 1 == value(bridge.url, "tidegate_messages_received_total")
        assert 1 == value(bridge.url, "tidegate_journal_messages")
        assert value(bridge.url, "tidegate_journal_bytes") > len(TOPIC)
    wait_until(lambda: value(bridge.url, "tidegate_listeners") == 0)
    for form in ("sse", "ndjson", "websocket"):
        assert 0 == value(bridge.url, "tidegate_streams", form=form)
    assert 5 == value(bridge.url, "tidegate_streams_ended_total", reason="client_left")
    reasons = {dict(each)["reason"] for each in scrape(bridge.url)["tidegate_streams_ended_total"]}
    assert {each.reason for each in CloseReason} == reasons


def test_reading_what_is_retained_counts_as_no_stream(bridge: Bridge) -> None:
    """It joins the hub for a moment, and is gone."""
    bridge.client.put(f"/v1/topics/{TOPIC}/kept", content=b"1").raise_for_status()
    bridge.client.get(f"/v1/topics/{TOPIC}/kept").raise_for_status()
    bridge.client.delete(f"/v1/topics/{TOPIC}/kept").raise_for_status()
    assert {0.0} == set(scrape(bridge.url)["tidegate_streams"].values())
    assert {0.0} == set(scrape(bridge.url)["tidegate_streams_ended_total"].values())


def test_who_comes_back_is_counted_with_what_was_missed_and_what_may_be(bridge: Bridge) -> None:
    """A replay with its messages, and a gap for an id that nobody knows."""
    with following(bridge, TOPIC) as stream:
        bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1").raise_for_status()
        stream.wait_for_messages(1)
        seen = stream.events[0].id
    for _ in range(2):
        bridge.client.post(f"/v1/topics/{TOPIC}", content=b"2").raise_for_status()
    with RawStream(bridge.port, TOPIC, last_event_id=seen):
        assert 1 == value(bridge.url, "tidegate_stream_replays_total")
        assert 2 == value(bridge.url, "tidegate_stream_replayed_messages_total")
    with RawStream(bridge.port, TOPIC, last_event_id="nobody-1"):
        assert 1 == value(bridge.url, "tidegate_stream_gaps_total", reason="unknown_id")


def test_a_lost_connection_counts_a_gap_for_each_stream(fresh_mosquitto: Mosquitto) -> None:
    """Each of them is told; the bridge's own subscriptions are no streams."""
    with running_bridge(fresh_mosquitto.url) as bridge, following(bridge, TOPIC), following(bridge, "b/#"):
        fresh_mosquitto.kill()
        fresh_mosquitto.start()
        labels = {"reason": "broker_connection"}
        wait_until(lambda: value(bridge.url, "tidegate_stream_gaps_total", **labels) >= 2)


def test_what_slow_readers_lose_is_counted(mosquitto: Mosquitto) -> None:
    """By what the policy did with it; ``interval`` leaves out on request, and is no lag."""
    with running_bridge(mosquitto.url, listener_max_messages=1) as bridge:
        hub = bridge.app.state.hub
        with (
            RawStream(bridge.port, TOPIC, policy="drop", receive_buffer_bytes=4096) as slow,
            RawStream(bridge.port, TOPIC, policy="latest", receive_buffer_bytes=4096),
            RawStream(bridge.port, TOPIC, interval="3600"),
        ):
            for number in range(40):
                url = f"/v1/topics/{TOPIC}"
                bridge.client.post(url, content=b"%d" % number + b"x" * 500_000).raise_for_status()
            assert value(bridge.url, "tidegate_stream_pending_bytes") > 500_000
            slow.read_until(lambda: any(each.name == "lag" for each in slow.events))
            told = sum(each.json["dropped"] for each in slow.events if each.name == "lag")
            assert value(bridge.url, "tidegate_stream_messages_left_out_total", reason="dropped") >= told > 0
        wait_until(lambda: hub.listeners == 0)
        for reason in ("conflated", "thinned"):
            assert value(bridge.url, "tidegate_stream_messages_left_out_total", reason=reason) > 0
        assert value(bridge.url, "tidegate_stream_lags_total") >= 2
        assert 0 == value(bridge.url, "tidegate_stream_pending_bytes")


async def test_requests_are_counted_with_their_outcome(mosquitto: Mosquitto) -> None:
    """Answered and timed out; the message itself is a publish as any other."""
    with running_bridge(mosquitto.url) as bridge:
        async with (
            httpx.AsyncClient(base_url=bridge.url, trust_env=False, timeout=30) as client,
            Device(mosquitto.port, "metrics/ask"),
            Device(mosquitto.port, "metrics/deaf", silence),
        ):
            assert 200 == (await client.post("/v1/requests/metrics/ask", content=b"1")).status_code
            deaf = await client.post("/v1/requests/metrics/deaf?timeout=0.2", content=b"1")
            assert 504 == deaf.status_code
            text = (await client.get("/metrics")).text
    assert 'tidegate_requests_total{outcome="answered"} 1.0' in text
    assert 'tidegate_requests_total{outcome="timed_out"} 1.0' in text
    assert 'tidegate_publishes_total{outcome="accepted",qos="1",reason="success"} 2.0' in text


def test_schemas_are_told_of_where_there_are_some(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """And only there."""
    file = tmp_path / "schemas.yaml"
    file.write_text('schemas:\n  - topics: "metrics/#"\n    schema: {type: integer}\n')
    with running_bridge(mosquitto.url, schemas_file=file) as bridge:
        assert 400 <= bridge.client.post(f"/v1/topics/{TOPIC}", content=b"no").status_code < 500
        assert 1 == value(bridge.url, "tidegate_schema_faults_total", action="refused")
    with running_bridge(mosquitto.url) as bridge:
        assert "tidegate_schema_faults_total" not in scrape(bridge.url)


def test_problems_are_counted_by_type(bridge: Bridge) -> None:
    """Those of raw routes and of the framework's."""
    bridge.client.get("/nowhere")
    bridge.client.get("/v1/status?verbose=1")
    bridge.client.post(f"/v1/topics/{TOPIC}?qso=1")
    assert 1 == value(bridge.url, "tidegate_http_problems_total", type="not-found")
    assert 2 == value(bridge.url, "tidegate_http_problems_total", type="unknown-parameter")


def test_what_alerts_wait_for_is_counted_from_the_start(bridge: Bridge) -> None:
    """At zero: a count that began with the first event would show no rise."""
    found = scrape(bridge.url)
    assert {frozenset({("type", "internal-error")}): 0} == found["tidegate_http_problems_total"]
    reasons = ("not_kept", "unknown_id", "broker_connection")
    gaps = {frozenset({("reason", each)}): 0 for each in reasons}
    assert gaps == found["tidegate_stream_gaps_total"]


def test_no_topic_no_filter_and_no_name_of_a_caller_is_told(bridge: Bridge) -> None:
    """Whoever may read metrics need not be one who may read messages."""
    with following(bridge, f"{TOPIC}/#"):
        bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1").raise_for_status()
        bridge.client.get(f"/{TOPIC}")
        assert "secret-of-ours" not in bridge.client.get("/metrics").text


def test_openmetrics_is_given_to_who_asks_for_it(bridge: Bridge) -> None:
    """By ``Accept``; both forms are not to be cached, and hold the same."""
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    answer = bridge.client.get("/metrics", headers=asked)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {each.name for each in open_metrics(answer.text)}  # type: ignore[no-untyped-call]
    assert {"tidegate_publishes", "tidegate_build", "process_open_fds"} <= names
    plain = bridge.client.get("/metrics", headers={"Accept": "*/*"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "no-store" == plain.headers["cache-control"]


def test_the_names_keep_the_conventions(bridge: Bridge) -> None:
    """Those that ``promtool check metrics`` knows: suffixes, base units, a help text for each."""
    text = bridge.client.get("/metrics").text
    outcome = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (0, "") == (outcome.returncode, outcome.stdout + outcome.stderr)


def test_credentials_are_told_of_in_seconds_and_in_a_bounded_number(bridge: Bridge) -> None:
    """Those that end first; one that has ended is below zero."""
    days: dict[str, float] = {f"c{number}": float(number) for number in range(MAX_CREDENTIALS)}
    bridge.app.state.collector.days_left = lambda: {**days, "late": -1.0}
    name = "tidegate_credential_remaining_seconds"
    assert -86_400 == value(bridge.url, name, credential="late")
    assert 86_400 == value(bridge.url, name, credential="c1")
    assert MAX_CREDENTIALS == len(scrape(bridge.url)[name])
    assert frozenset({("credential", f"c{MAX_CREDENTIALS - 1}")}) not in scrape(bridge.url)[name]


def test_callers_who_are_refused_are_counted(mosquitto: Mosquitto) -> None:
    """For who they are, and for what they may; who may read metrics is a scope of its own."""
    tokens = FixedTokens(first=principal("first"), monitor=principal("monitor", scopes=("metrics:read",)))
    with running_bridge(mosquitto.url, authentication=Authentication([tokens])) as bridge:
        refused = [bridge.client.get("/metrics")]
        refused.append(bridge.client.get("/metrics", headers=bearer("nobody")))
        refused.append(bridge.client.get("/metrics", headers=bearer("first")))
        refused.append(bridge.client.post(f"/v1/topics/{TOPIC}", content=b"1", headers=bearer("first")))
        assert [401, 401, 403, 403] == [each.status_code for each in refused]
        text = bridge.client.get("/metrics", headers=bearer("monitor")).text
    assert 'tidegate_authentication_refusals_total{reason="unauthenticated"} 2.0' in text
    assert 'tidegate_authorization_refusals_total{action="metrics:read"} 1.0' in text
    assert 'tidegate_authorization_refusals_total{action="publish"} 1.0' in text
    assert 'tidegate_publishes_total{outcome="refused",qos="1",reason="not-granted"} 1.0' in text
    assert "authenticate" not in text.replace("tidegate_authentication", "").replace("unauthenticated", "")


def test_refusals_of_callers_are_counted_by_a_few_reasons() -> None:
    """Whatever words somebody may bring, there are not more series than that."""
    refusals = AuthenticationRefusals()
    for number in range(MAX_REASONS * 2):
        refusals.count(f"reason {number}")
    refusals.count("reason 0")
    assert MAX_REASONS + 1 == len(refusals.counted)
    assert (2, MAX_REASONS) == (refusals.counted["reason 0"], refusals.counted["other"])


def test_the_bridge_says_what_it_is_without_a_broker() -> None:
    """Version and state are there from the first moment on."""
    with (
        ReservedPort() as port,
        running_bridge(f"mqtt://127.0.0.1:{port.number}", wait_until_ready=False) as bridge,
    ):
        found: Any = scrape(bridge.url)
        ((labels, one),) = found["tidegate_build_info"].items()
        assert ({"version", "python"}, 1) == (set(dict(labels)), one)
        assert 0 == found["tidegate_broker_state"][frozenset({("state", "connected")})]
