"""The examples that specify the SDK, run over a broker and through a bridge: what listens."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tests.support.command import Command
from tests.support.seed import covers, run, shown, source
from tidegate import Message, Publisher


def wait_until_heard(device: Publisher, topic: str) -> None:
    """Wait until somebody has subscribed to a topic: the broker tells a publisher where nobody has (0x10)."""
    wait_until(lambda: device.publish(topic, {}).reason_code == 0)


def program(heading: str, url: str) -> Command:
    """A block that waits for ever, as a process of its own."""
    return Command(settings={"TIDEGATE_URL": url}, program=("-c", source(heading)))


@covers("Basic Subscribing")
def test_basic_subscribing(told_url: str, device: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    """A decorated handler gets the payload as a dictionary and acts on it, and stays a function."""
    names = run("Basic Subscribing")
    acted: list[Any] = []
    names["send_notification"] = names["log_warning"] = acted.append
    wait_until_heard(device, "alerts/system")
    device.publish("alerts/system", {"level": "critical"})
    device.publish("alerts/system", {"level": "warning"})
    wait_until(lambda: acted == [{"level": "critical"}, {"level": "warning"}])
    assert "System Alert: {'level': 'critical'}" in capsys.readouterr().out
    names["handle_system_alert"]({"level": "critical", "by": "a unit test"})
    assert acted[-1] == {"level": "critical", "by": "a unit test"}


@covers("Decorator-Based Subscribing")
def test_decorator_based_subscribing(
    told_url: str, device: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both wildcards match, and one function follows two topics; what it calls is a stand-in here."""
    called: list[str] = []
    run(
        "Decorator-Based Subscribing",
        restart_system=lambda: called.append("restart"),
        shutdown_system=lambda: called.append("shutdown"),
    )
    for topic in ("sensors/a/temperature", "alerts/a/b", "commands/restart", "commands/shutdown"):
        wait_until_heard(device, topic)
    device.publish("sensors/a/temperature", {"sensor_id": "s1", "temperature": 20.5})
    device.publish("alerts/a/b", {"type": "fire", "severity": "high"})
    device.publish("alerts", {"type": "flood"})
    device.publish("commands/restart", {"command": "restart"})
    device.publish("commands/shutdown", {"command": "shutdown"})
    wait_until(lambda: called == ["restart", "shutdown"])
    expected = ("Sensor s1: 20.5", "Alert [high]: fire", "Alert [info]: flood")
    printed = ""

    def has_printed() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return all(line in printed for line in expected)

    wait_until(has_printed)


@covers("Manual Subscribing")
def test_manual_subscribing(told_url: str, device: Publisher) -> None:
    """One handler follows one topic and a list of them; Ctrl-C ends the blocking wait."""
    with program("Manual Subscribing", told_url) as running:
        for topic in ("data/stream", "sensors/temperature", "sensors/humidity", "alerts/system"):
            wait_until_heard(device, topic)
            device.publish(topic, {"from": topic})
            running.wait_for(f"Received on {topic}: {{'from': '{topic}'}}")
        assert running.interrupt(signal.SIGINT) == 0


@covers("Topic Patterns")
def test_topic_patterns(told_url: str, device: Publisher) -> None:
    """The broker has somebody for each topic that a comment of the block says matches, and for no other."""
    run("Topic Patterns")
    matching = (
        "sensors/temp/data",
        "sensors/humidity/data",
        "building1/floor2/room1/temp",
        "building1/floor2/room2/humidity/sensor1",
        "system/status",
        "sensors/a/temperature",
        "sensors/a/humidity",
    )
    for topic in matching:
        wait_until_heard(device, topic)
    for topic in ("sensors/data", "sensors/a/b/data", "building1/floor3/a", "system/status/a", "sensors/a/b"):
        assert (topic, device.publish(topic, {}).reason_code) == (topic, 0x10)


@covers("Async Subscribing")
def test_async_subscribing(told_url: str, device: Publisher) -> None:
    """A coroutine handler runs while the program waits."""
    with program("Async Subscribing", told_url) as running:
        wait_until_heard(device, "async/commands")
        device.publish("async/commands", {"do": "it"})
        running.wait_for("Async received on async/commands: {'do': 'it'}")
        running.wait_for("Processed: {'do': 'it'}")
        running.interrupt(signal.SIGINT)


@covers("Async Decorators")
def test_async_decorators(seen: list[Message], device: Publisher) -> None:
    """A coroutine function publishes what it gives, and one that handles messages is awaited."""
    names = run("Async Decorators")
    done: list[Any] = []
    process_task = names["process_task"]

    async def process_and_note(task_id: Any) -> None:
        done.append(await process_task(task_id))

    names["process_task"] = process_and_note
    result = asyncio.run(names["compute_result"]())
    wait_until(lambda: bool(seen))
    assert (result["result"], shown(seen)) == (42, [("async/results", result, 1)])

    def is_done() -> bool:  # the witness is subscribed as well, so the broker cannot tell
        device.publish("async/tasks", {"task_id": 7})
        return bool(done)

    wait_until(is_done)
    assert done[0] == "Task 7 completed"


@covers("Message Logging")
def test_message_logging(seen: list[Message], device: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    """The block's logger is the SDK's; its functions publish and listen."""
    caplog.set_level("INFO", "tidegate")
    run("Message Logging")["monitored_function"]()
    wait_until(lambda: shown(seen) == [("monitored/topic", {"status": "active", "value": 42}, 1)])
    assert ("tidegate", 20, "Publishing monitored data") in caplog.record_tuples

    def is_logged() -> bool:
        device.publish("monitored/responses", {"n": 1})
        return ("tidegate", 20, "Received response: {'n': 1}") in caplog.record_tuples

    wait_until(is_logged)


@covers("Example: IoT Data Pipeline")
def test_the_pipeline(told_url: str, seen: list[Message], device: Publisher) -> None:
    """The program runs until Ctrl-C: it publishes readings and summaries, handles ours, and raises alerts.

    Its sensors publish to topics of two levels, and its handlers follow topics of three; so the readings that
    they handle here are the test's.
    """
    with program("Example: IoT Data Pipeline", told_url) as running:
        expected = {"sensors/temperature", "sensors/humidity", "summaries/hourly"}
        wait_until(lambda: expected <= {message.topic for message in seen})
        first = {message.topic: message for message in reversed(seen)}
        assert first["sensors/temperature"].qos == first["sensors/humidity"].qos == 1
        assert first["sensors/temperature"].json()["location"] == "building_1"
        assert first["summaries/hourly"].json()["building"] == "building_1"
        reading = {"sensor_id": "ours", "temperature": 28.5, "humidity": 71}

        def is_alert(kind: str) -> bool:
            device.publish(f"sensors/ours/{kind}", reading)
            return any(message.topic == f"alerts/{kind}" for message in seen)

        for kind in ("temperature", "humidity"):
            wait_until(lambda: is_alert(kind))  # noqa: B023 - called before the next one
        alerts = [message for message in seen if message.topic.startswith("alerts/")]
        assert {(message.json()["sensor_id"], message.qos) for message in alerts} == {("ours", 2)}
        for text in (
            "Processing temperature from ours: 28.5",
            "Processing humidity from ours: 71%",
            "Stored temperature data: ours = 28.5",
            "ALERT [warning]: temperature_high from ours",
            "Notification sent for alert: humidity_high",
            "Published hourly summary: ",
        ):
            running.wait_for(text)
        running.interrupt(signal.SIGINT)
        running.wait_for("Shutting down IoT data pipeline...")
