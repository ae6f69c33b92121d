"""The examples that specify the SDK, run as they stand with only the import changed.

They are read from ``../shared/seed`` beside the repository, and nothing of them is kept here; where that
folder is absent the tests are skipped and say so. They run over a broker and through a bridge, and what
counts is what the broker saw.
"""

from __future__ import annotations

import asyncio
import pickle
import re
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.bridge import wait_until
from tests.support.certificates import Certificates
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import AsyncSubscriber, Message, Publisher, Subscriber, UnsupportedQoSWarning, configure
from tidegate import subscriber as subscriber_module
from tidegate.memory import MemoryBroker

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
    topics = ["sensors/#", "data/#", "events/#", "critical/#", "logs/#", "commands/#"]
    topics += ["async/#", "alerts/#", "monitored/#", "summaries/#", "test/#"]

    def keep(message: Message) -> None:
        got.append((message.topic, message.json(), message.qos))

    url = mosquitto.url if request.param == "direct" else request.getfixturevalue("bridge_url")
    monkeypatch.setenv("TIDEGATE_URL", url)
    with Subscriber(mosquitto.url) as witness:
        witness.subscribe(topics, keep, qos=2)
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


def heard(mosquitto: Mosquitto, topic: str, value: Any, by: list[Any]) -> None:
    """Publish until a handler that began to listen in the background shows that it did."""
    with Publisher(mosquitto.url) as publisher:

        def is_heard() -> bool:
            publisher.publish(topic, value)
            return bool(by)

        wait_until(is_heard)


def test_decorator_based_subscribing(seen: list[tuple[str, Any, int]], mosquitto: Mosquitto) -> None:
    """Wildcards, and one handler for a list of topics."""
    printed: list[str] = []
    acted: list[str] = []
    source = example("Decorator-Based Subscribing")
    names = run(source)
    names["print"] = printed.append
    names["restart_system"] = lambda: acted.append("restart")
    names["shutdown_system"] = lambda: acted.append("shutdown")
    heard(mosquitto, "sensors/x/temperature", {"sensor_id": "x", "temperature": 21}, printed)
    assert printed[0].startswith("Sensor x: 21")
    printed.clear()
    heard(mosquitto, "alerts/deep/down", {"type": "t", "severity": "high"}, printed)
    assert printed[0] == "Alert [high]: t"
    heard(mosquitto, "commands/restart", {"command": "restart"}, acted)
    with Publisher(mosquitto.url) as publisher:
        publisher.publish("commands/shutdown", {"command": "shutdown"})
    wait_until(lambda: "shutdown" in acted)


def test_topic_patterns(seen: list[tuple[str, Any, int]]) -> None:
    """Every pattern is a filter that the broker takes, and the handlers stay functions."""
    names = run(example("Topic Patterns"))
    assert names["handle_system_status"]({"any": 1}) is None


def test_async_publishing(seen: list[tuple[str, Any, int]]) -> None:
    """The example runs a loop of its own."""
    run(example("Async Publishing"))
    wait_until(lambda: len(seen) == 2)
    assert [each[:2] for each in seen] == [
        ("async/data", {"value": 123}),
        ("async/status", {"status": "active"}),
    ]


def test_async_subscribing(
    seen: list[tuple[str, Any, int]],
    mosquitto: Mosquitto,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It listens for ever; here until its message was processed."""
    listen = AsyncSubscriber.start_listening
    printed = ""

    async def publish_then_leave(self: AsyncSubscriber) -> None:
        nonlocal printed
        waiting = asyncio.create_task(listen(self))
        await asyncio.to_thread(heard_once, mosquitto)
        async with asyncio.timeout(20):
            while "Processed: {'n': 1}" not in printed:
                printed += capsys.readouterr().out
                await asyncio.sleep(0.01)
        await self.disconnect()
        await waiting

    def heard_once(broker: Mosquitto) -> None:
        with Publisher(broker.url) as publisher:
            publisher.publish("async/commands", {"n": 1})

    monkeypatch.setattr(AsyncSubscriber, "start_listening", publish_then_leave)
    run(example("Async Subscribing"))
    assert "Async received on async/commands: {'n': 1}" in printed


def test_async_decorators(seen: list[tuple[str, Any, int]], mosquitto: Mosquitto) -> None:
    """Coroutine functions stay coroutine functions; the block forgets to import what it uses."""
    names = run("from tidegate import publish, subscribe\n" + example("Async Decorators"))
    assert asyncio.run(names["compute_result"]())["result"] == 42
    wait_until(lambda: any(topic == "async/results" for topic, _, _ in seen))
    tasks: list[Any] = []

    async def process_task(task_id: Any) -> None:
        tasks.append(task_id)

    names["process_task"] = process_task
    heard(mosquitto, "async/tasks", {"task_id": 7}, tasks)
    assert tasks[0] == 7


def test_connection_settings() -> None:
    """One configuration for a publisher and a subscriber, client identifier included."""
    got: list[Any] = []
    with Mosquitto(passwords={"mqtt_user": "mqtt_pass"}) as broker:
        source = example("Connection Settings").replace("mqtt.example.com", broker.host)
        names = run(source.replace("1883", str(broker.port)))
        names["subscriber"].subscribe("settings", lambda topic, payload: got.append((topic, payload)))
        for number in range(5):
            names["publisher"].publish("settings", number)
        wait_until(lambda: len(got) == 5)
        names["publisher"].disconnect()
        names["subscriber"].disconnect()
        assert broker.log.count("as pycarta_client") == 1


def test_tls_configuration(certificates: Certificates) -> None:
    """The seed's keys, against a broker that wants a certificate."""
    with Mosquitto(tls=certificates, require_certificate=True) as broker:
        source = example("TLS/SSL Configuration").replace("secure-mqtt.example.com", broker.host)
        source = source.replace("port=8883", f"port={broker.port}")
        names = run(with_files(source, certificates))
        assert names["publisher"].publish("tls", 1).reason_code in (0x00, 0x10)
        names["publisher"].disconnect()


def test_aws_iot_core_integration(certificates: Certificates) -> None:
    """It is made without connecting, and knows where it leads."""
    names = run(with_files(example("AWS IoT Core Integration"), certificates))
    assert isinstance(names["publisher"], Publisher)


def with_files(source: str, certificates: Certificates) -> str:
    """A block with its paths replaced by files that are there."""
    for pattern, path in (
        (r"/path/to/(ca|AmazonRootCA1)\.pem", certificates.ca),
        (r"/path/to/(client|device\.pem)\.crt", certificates.client_certificate),
        (r"/path/to/(client|private\.pem)\.key", certificates.client_key),
    ):
        source = re.sub(pattern, str(path), source)
    return source


def test_qos_validation(seen: list[tuple[str, Any, int]]) -> None:
    """Anywhere else than at AWS IoT there is nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnsupportedQoSWarning)
        names = run(example("QoS Validation"))
    for name in ("send_sensor_data", "send_important_data", "send_guaranteed_data"):
        names[name]()
    wait_until(lambda: len(seen) == 3)
    assert {qos for _, _, qos in seen} == {0, 1, 2}


def test_qos_validation_against_aws_iot() -> None:
    """The third function warns, and works with QoS 1."""
    broker = MemoryBroker()
    configure(host="a1b2-ats.iot.eu-central-1.amazonaws.com", connect=broker.connect)
    with pytest.warns(UnsupportedQoSWarning) as caught:
        names = run(example("QoS Validation"))
    assert len(caught) == 1
    assert names["send_guaranteed_data"]() == {"value": 42}
    assert [each.qos for each in broker.published] == [1]


def test_automatic_json_serialization(seen: list[tuple[str, Any, int]]) -> None:
    """A datetime goes out as text."""
    sent = run(example("Automatic JSON Serialization"))["send_complex_data"]()
    wait_until(lambda: bool(seen))
    assert seen[0][1] == {**sent, "timestamp": sent["timestamp"].isoformat()}


def test_custom_formatters(mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the formatter makes is what the broker sees."""
    monkeypatch.setenv("TIDEGATE_URL", mosquitto.url)
    got: list[Message] = []

    def keep(message: Message) -> None:
        got.append(message)

    names = run(example("Custom Formatters"))
    with Subscriber() as subscriber:
        subscriber.subscribe("formatter", keep)
        names["publisher"].publish("formatter", {"a": {1, 2}})
        wait_until(lambda: bool(got))
    names["publisher"].disconnect()
    assert pickle.loads(got[0].payload) == {"a": {1, 2}}


def test_connection_errors(seen: list[tuple[str, Any, int]]) -> None:
    """With a broker the message goes out."""
    run(example("Connection Errors"))["publisher"].disconnect()
    wait_until(lambda: bool(seen))
    assert seen[0][:2] == ("test/topic", {"message": "Hello"})


@pytest.mark.parametrize("scheme", ["mqtt", "http"])
def test_connection_errors_without_a_broker(
    scheme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is an MQTTError, and the block's own retry is what is left to do."""
    retried: list[Any] = []
    with ReservedPort() as reserved:
        monkeypatch.setenv("TIDEGATE_URL", f"{scheme}://127.0.0.1:{reserved.number}")
        names: dict[str, Any] = {"__name__": "example", "retry_connection": retried.append}
        exec(compile(example("Connection Errors"), "<example>", "exec"), names)
        names["publisher"].disconnect()
    assert retried == [names["publisher"]]
    assert "MQTT Error: " in capsys.readouterr().out


def test_retry_logic(seen: list[tuple[str, Any, int]]) -> None:
    """The decorator's retries, and the block's own loop round ``connect``."""
    names = run(example("Retry Logic"))
    assert names["send_with_retry"]() == {"data": "important_value"}
    wait_until(lambda: bool(seen))
    with Publisher() as publisher:
        assert names["retry_connection"](publisher) is True


def test_message_logging(
    seen: list[tuple[str, Any, int]], mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """The block's logger is the SDK's; it forgets to import the decorators."""
    caplog.set_level("INFO")
    names = run("from tidegate import publish, subscribe\n" + example("Message Logging"))
    names["monitored_function"]()
    wait_until(lambda: bool(seen))
    with Publisher(mosquitto.url) as publisher:

        def is_logged() -> bool:
            publisher.publish("monitored/responses", "answer")
            return "Received response: answer" in caplog.text

        wait_until(is_logged)
    assert "Publishing monitored data" in caplog.text


def test_connection_monitoring(seen: list[tuple[str, Any, int]], capsys: pytest.CaptureFixture[str]) -> None:
    """The overridden hooks print what happens."""
    printed = ""
    publisher = run(example("Connection Monitoring"))["publisher"]
    publisher.publish("test/monitored", 1)
    publisher.disconnect()

    def is_printed() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "Disconnected with result code 0" in printed

    wait_until(is_printed)
    assert printed.splitlines() == [
        "Connected with result code 0",
        "Message 1 published successfully",
        "Disconnected with result code 0",
    ]


def test_the_pipeline(seen: list[tuple[str, Any, int]], mosquitto: Mosquitto) -> None:
    """Sensors publish from a running loop, handlers raise alerts, and alerts come back to a handler.

    The example's own sensors publish to ``sensors/temperature``, which ``sensors/+/temperature`` of its
    handlers does not match; so one reading comes from elsewhere.
    """
    names = run(example("Example: IoT Data Pipeline"))
    notified: list[Any] = []
    names["send_notification"] = notified.append
    names["asyncio"] = _OneRound
    for simulate in ("sensor_simulator", "data_aggregator"):
        with pytest.raises(_EndOfRoundError):
            asyncio.run(names[simulate]())
    wait_until(lambda: {"sensors/humidity", "summaries/hourly"} <= {topic for topic, _, _ in seen})
    heard(mosquitto, "sensors/room/temperature", {"sensor_id": "t", "temperature": 29.5}, notified)
    assert notified[0]["alert_type"] == "temperature_high"
    wait_until(lambda: ("alerts/temperature", 2) in {(topic, qos) for topic, _, qos in seen})


class _EndOfRoundError(Exception):
    pass


class _OneRound:
    """Stands for asyncio in the example: its sleep between rounds ends the round."""

    @staticmethod
    async def sleep(seconds: float) -> None:
        raise _EndOfRoundError
