"""The examples that specify the SDK, run as they stand with only the import changed.

They are read from ``../shared/seed`` beside the repository, and nothing of them is kept here; where that
folder is absent the tests are skipped and say so. They run over a broker and through a bridge, and what
counts is what the broker saw.
"""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import Message, Publisher, Subscriber
from tidegate import subscriber as subscriber_module

SPECIFICATION: Final = Path(__file__).parents[3] / "shared" / "seed" / "pycarta-mqtt.rst"


def example(heading: str) -> str:
    """The first code block under a heading, with the import changed."""
    if not SPECIFICATION.exists():
        pytest.skip("the SDK's specification is not beside this checkout (../shared/seed)")
    _, found, rest = SPECIFICATION.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r}"
    block = re.search(r"\.\. code:: python\n\n((?:    .*\n|\n)+)", rest)
    assert block is not None
    return textwrap.dedent(block[1]).replace("pycarta.mqtt", "tidegate")


def run(source: str) -> dict[str, Any]:
    """Run a block as a module of its own, and give its names."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "<example>", "exec"), names)
    return names


@pytest.fixture(params=["direct", "bridge"])
def seen(
    request: pytest.FixtureRequest, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[tuple[str, Any, int]]]:
    """Point the SDK at a broker or a bridge, and give what the broker sees: topic, payload, QoS."""
    got: list[tuple[str, Any, int]] = []

    def keep(message: Message) -> None:
        got.append((message.topic, message.json(), message.qos))

    url = mosquitto.url if request.param == "direct" else request.getfixturevalue("bridge_url")
    monkeypatch.setenv("TIDEGATE_URL", url)
    with Subscriber(mosquitto.url) as witness:
        witness.subscribe(
            ["sensors/#", "data/#", "events/#", "critical/#", "logs/#", "commands/#"], keep, qos=2
        )
        yield got


def test_basic_publishing(seen: list[tuple[str, Any, int]], capsys: pytest.CaptureFixture[str]) -> None:
    """A decorated function publishes its result and returns it."""
    names = run(example("Basic Publishing"))
    wait_until(lambda: bool(seen))
    topic, payload, _ = seen[0]
    assert topic == "sensors/temperature"
    assert payload == names["result"]
    assert payload["temperature"] == 23.5
    assert "23.5" in capsys.readouterr().out


def test_basic_subscribing(seen: list[tuple[str, Any, int]], mosquitto: Mosquitto) -> None:
    """A decorated handler gets the payload as a dictionary and acts on it."""
    names = run(example("Basic Subscribing"))
    acted: list[Any] = []
    names["send_notification"] = acted.append
    names["log_warning"] = acted.append

    with Publisher(mosquitto.url) as publisher:

        def is_heard() -> bool:
            publisher.publish("alerts/system", {"level": "critical"})
            return bool(acted)

        wait_until(is_heard)
        publisher.publish("alerts/system", {"level": "warning"})
        wait_until(lambda: {"level": "warning"} in acted)
    assert {"level": "critical"} in acted


def test_decorator_based_publishing(seen: list[tuple[str, Any, int]]) -> None:
    """Several functions, with and without arguments, each publish to their topic."""
    run(example("Decorator-Based Publishing"))
    wait_until(lambda: len(seen) == 2)
    assert [topic for topic, _, _ in seen] == ["data/metrics", "events/user_action"]
    assert seen[0][1]["cpu_usage"] == 45.2
    assert (seen[1][1]["user_id"], seen[1][1]["action"]) == ("user123", "login")


def test_manual_publishing(seen: list[tuple[str, Any, int]]) -> None:
    """The class publishes single messages and a list of them."""
    run(example("Manual Publishing"))
    wait_until(lambda: len(seen) == 4)
    assert seen[0][:2] == ("sensors/humidity", {"humidity": 65.3, "location": "room1"})
    assert [topic for topic, _, _ in seen[1:]] == ["sensors/temp1", "sensors/temp2", "sensors/temp3"]


def test_publishing_with_qos(seen: list[tuple[str, Any, int]]) -> None:
    """The decorator's and the class's QoS reach the broker."""
    names = run(example("Publishing with QoS"))
    names["send_critical_alert"]()
    wait_until(lambda: len(seen) == 4)
    assert {topic: qos for topic, _, qos in seen} == {
        "logs/info": 0,
        "data/important": 1,
        "commands/execute": 2,
        "critical/alerts": 2,
    }


def test_manual_subscribing(
    seen: list[tuple[str, Any, int]],
    mosquitto: Mosquitto,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One handler follows one topic and a list of them; the blocking wait ends when it is told to."""
    printed = ""

    def publish_then_leave(self: Subscriber) -> None:
        nonlocal printed
        with Publisher(mosquitto.url) as publisher:
            for topic in ("data/stream", "sensors/temperature", "sensors/humidity", "alerts/system"):
                publisher.publish(topic, {"from": topic})
        deadline = time.monotonic() + 20
        while printed.count("Received on") < 4 and time.monotonic() < deadline:
            printed += capsys.readouterr().out
            time.sleep(0.01)
        self.disconnect()
        original(self)

    original = subscriber_module.Subscriber.loop_forever
    monkeypatch.setattr(subscriber_module.Subscriber, "loop_forever", publish_then_leave)
    run(example("Manual Subscribing"))
    for topic in ("data/stream", "sensors/temperature", "sensors/humidity", "alerts/system"):
        assert f"Received on {topic}: {{'from': '{topic}'}}" in printed
