"""The examples that specify the SDK, run over a broker and through a bridge: what publishes.

What counts is what the broker saw. ``tests/support/seed.py`` says how the blocks are read and run; where the
specification is absent the tests are skipped and say so.
"""

from __future__ import annotations

import pickle
import sys
import types
from datetime import datetime
from typing import Any

import pytest

from tests.client_sdk import test_seed_connections, test_seed_handlers
from tests.support import seed
from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.seed import covers, run, shown
from tidegate import Message, PayloadError, Publisher, Subscriber, UnsupportedQoSWarning


def test_every_block_has_a_test() -> None:
    """A block that is added to the specification without a test that runs it is an error."""
    modules = (sys.modules[__name__], test_seed_connections, test_seed_handlers)
    assert set(seed.blocks()) == seed.covered(*modules)


@covers("Basic Publishing")
def test_basic_publishing(seen: list[Message], capsys: pytest.CaptureFixture[str]) -> None:
    """A decorated function publishes its result and returns it."""
    result = run("Basic Publishing")["result"]
    wait_until(lambda: bool(seen))
    assert shown(seen) == [("sensors/temperature", result, 1)]
    assert result["temperature"] == 23.5
    assert f"Published: {result}" in capsys.readouterr().out


@covers("Decorator-Based Publishing")
def test_decorator_based_publishing(seen: list[Message]) -> None:
    """Several functions, with and without arguments, each publish to their topic."""
    run("Decorator-Based Publishing")
    wait_until(lambda: len(seen) == 2)
    assert [message.topic for message in seen] == ["data/metrics", "events/user_action"]
    assert seen[0].json()["cpu_usage"] == 45.2
    assert (seen[1].json()["user_id"], seen[1].json()["action"]) == ("user123", "login")


@covers("Manual Publishing")
def test_manual_publishing(seen: list[Message]) -> None:
    """The class publishes single messages and a list of them, in order."""
    run("Manual Publishing")
    wait_until(lambda: len(seen) == 4)
    assert shown(seen) == [
        ("sensors/humidity", {"humidity": 65.3, "location": "room1"}, 1),
        ("sensors/temp1", {"temperature": 22.1}, 1),
        ("sensors/temp2", {"temperature": 23.8}, 1),
        ("sensors/temp3", {"temperature": 21.9}, 1),
    ]


@covers("Publishing with QoS")
def test_publishing_with_qos(seen: list[Message]) -> None:
    """The decorator's and the class's QoS reach the broker."""
    run("Publishing with QoS")["send_critical_alert"]()
    wait_until(lambda: len(seen) == 4)
    assert {message.topic: message.qos for message in seen} == {
        "logs/info": 0,
        "data/important": 1,
        "commands/execute": 2,
        "critical/alerts": 2,
    }


@covers("Async Publishing")
def test_async_publishing(seen: list[Message]) -> None:
    """The asynchronous class connects, publishes and disconnects."""
    run("Async Publishing")
    wait_until(lambda: len(seen) == 2)
    assert shown(seen) == [("async/data", {"value": 123}, 1), ("async/status", {"status": "active"}, 1)]


@covers("QoS Validation")
def test_qos_validation(seen: list[Message]) -> None:
    """At a broker that is not AWS IoT each QoS is used as it was asked for, without a warning."""
    names = run("QoS Validation")
    for name in ("send_sensor_data", "send_important_data", "send_guaranteed_data"):
        names[name]()
    wait_until(lambda: len(seen) == 3)
    assert {message.qos: message.json() for message in seen} == {
        0: {"temperature": 25.0},
        1: {"critical_value": 100},
        2: {"value": 42},
    }


@covers("QoS Validation")
def test_qos_validation_at_aws_iot(
    fresh_mosquitto: Mosquitto, seen: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an endpoint of AWS IoT the third function warns when it is decorated, and QoS 1 is used."""
    host = "abc.iot.eu-central-1.amazonaws.com"
    seed.lead(monkeypatch, {(host, 1883): fresh_mosquitto.port})
    monkeypatch.setenv("TIDEGATE_URL", f"mqtt://{host}")
    with pytest.warns(UnsupportedQoSWarning) as warned:
        names = run("QoS Validation")
    assert [each.filename for each in warned] == ["<example>"]
    names["send_guaranteed_data"]()
    wait_until(lambda: shown(seen) == [("data/sensor", {"value": 42}, 1)])


@covers("Automatic JSON Serialization")
def test_automatic_json_serialization(seen: list[Message]) -> None:
    """A datetime within a value is written as ISO 8601."""
    result = run("Automatic JSON Serialization")["send_complex_data"]()
    wait_until(lambda: bool(seen))
    ((topic, payload, _),) = shown(seen)
    assert topic == "data/complex"
    assert datetime.fromisoformat(payload.pop("timestamp")) == result.pop("timestamp")
    assert payload == result


@covers("Custom Formatters")
def test_custom_formatters(seen: list[Message]) -> None:
    """What the formatter writes is what the broker has; it reads it back for a handler, bytes and all."""
    names = run("Custom Formatters")
    value = {"tuple": (1, 2), "set": {3}, "bytes": b"\xff"}
    got: list[Any] = []
    with Subscriber(formatter=names["CustomFormatter"]()) as subscriber:
        subscriber.subscribe("formatted", lambda _, payload: got.append(payload))
        names["publisher"].publish("formatted", value)
        wait_until(lambda: bool(got) and bool(seen))
        with pytest.raises(PayloadError, match="CustomFormatter cannot write"):
            names["publisher"].publish("formatted", lambda: None)
    assert got == [value] == [pickle.loads(seen[0].payload)]


@covers("Retry Logic")
def test_retry_logic(seen: list[Message], capsys: pytest.CaptureFixture[str]) -> None:
    """The decorator retries by itself, and a loop of one's own works over a client that cannot connect."""
    names = run("Retry Logic")
    assert names["send_with_retry"]() == {"data": "important_value"}
    wait_until(lambda: shown(seen) == [("data/retryable", {"data": "important_value"}, 1)])
    with Publisher() as publisher:
        assert names["retry_connection"](publisher) is True
    waited: list[int] = []
    names["time"] = types.SimpleNamespace(sleep=waited.append)
    assert names["retry_connection"](Publisher("mqtt://127.0.0.1:1"), max_retries=3) is False
    assert waited == [1, 2]
    assert "Connection attempt 3 failed: " in capsys.readouterr().out
