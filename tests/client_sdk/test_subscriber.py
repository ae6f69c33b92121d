from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import (
    AsyncSubscriber,
    ConfigurationError,
    MQTTError,
    NotAuthorizedError,
    NotConnectedError,
    Publisher,
    Subscriber,
    TopicError,
    subscribe,
)
from tidegate.decorators import disconnect_all

WAITING = """
import signal, sys, threading, time
from tidegate import Subscriber

# a program started in the background of a shell is born with Ctrl-C ignored
signal.signal(signal.SIGINT, signal.default_int_handler)

def has_begun_to_wait():
    # Ctrl-C before that would end the program, as it should.
    frame, names = sys._current_frames()[threading.main_thread().ident], []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return {{"wait", "loop_forever"}} <= set(names)

def handle(topic, payload):
    while not has_begun_to_wait():
        time.sleep(0.001)
    print(topic, payload, flush=True)

subscriber = Subscriber(client_id={client_id})
subscriber.subscribe("waiting", handle)
print("ready", flush=True)
subscriber.loop_forever()
print("ended", flush=True)
subscriber.disconnect()
"""


@pytest.mark.parametrize("through", ["direct", "bridge"])
def test_control_c_ends_the_blocking_wait(through: str, fresh_mosquitto: Mosquitto) -> None:
    """The program goes on after ``loop_forever``, and has said goodbye to the broker."""
    with running_bridge(fresh_mosquitto.url) as bridge, Publisher(fresh_mosquitto.url) as publisher:
        url = fresh_mosquitto.url if through == "direct" else bridge.url
        client_id = "waiting-1" if through == "direct" else None
        with subprocess.Popen(
            [sys.executable, "-c", WAITING.format(client_id=repr(client_id))],
            env={**os.environ, "TIDEGATE_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            publisher.publish("waiting", {"n": 1})
            assert program.stdout.readline() == "waiting {'n': 1}\n"
            program.send_signal(signal.SIGINT)
            output, errors = program.communicate(timeout=60)
    assert (program.returncode, output, errors) == (0, "ended\n", "")
    if through == "direct":
        assert "Client waiting-1 disconnected." in fresh_mosquitto.log


def test_what_cannot_be_followed_is_refused_before_anything_is_sent(way: Way) -> None:
    """Filters and QoS are looked at first, all of them, and the next call works."""
    with Subscriber(**way.options) as subscriber:
        for filters in (["a/#/b"], ["ok", "a+"], ["", "ok"], ["a\x00"]):
            with pytest.raises(TopicError):
                subscriber.subscribe(filters, print)
        for qos in (3, True, "1"):
            with pytest.raises(ConfigurationError, match="0, 1 or 2"):
                subscriber.subscribe_multiple([("ok", 0), ("a", qos)], print)  # type: ignore[list-item]
        with pytest.raises(ConfigurationError, match="no topic filter"):
            subscriber.subscribe_multiple([], print)
        subscriber.subscribe("ok", print)


@pytest.mark.parametrize("through", ["direct", "bridge"])
def test_a_refused_filter_is_an_error_of_the_call(through: str) -> None:
    """Whoever waits for a subscription is told that the broker's rules forbid it."""
    with Mosquitto(denied="denied/#") as broker, running_bridge(broker.url) as bridge:
        url = broker.url if through == "direct" else bridge.url
        with Subscriber(url) as subscriber:
            with pytest.raises(NotAuthorizedError) as caught:
                subscriber.subscribe("denied/a", print)
            assert caught.value.reason_code == 0x87
            got: list[Any] = []
            subscriber.subscribe("allowed", lambda _, payload: got.append(payload))
            with Publisher(url) as publisher:
                publisher.publish("allowed", 1)
            wait_until(lambda: got == [1])


@pytest.mark.parametrize("scheme", ["mqtt", "http"])
async def test_a_with_block_that_cannot_connect_leaves_nothing_behind(scheme: str) -> None:
    """The error comes out of ``with``, and the client no longer tries in the background."""
    with ReservedPort() as reserved:
        url = f"{scheme}://127.0.0.1:{reserved.number}"
        blocking = Subscriber(url)
        with pytest.raises(MQTTError), blocking:
            pytest.fail("it connected")
        asynchronous = AsyncSubscriber(url)
        with pytest.raises(MQTTError):
            async with asynchronous:
                pytest.fail("it connected")
        with pytest.raises(NotConnectedError, match="make a new one"):
            blocking.subscribe("a", print)
        with pytest.raises(NotConnectedError, match="make a new one"):
            await asynchronous.subscribe("a", print)


def test_listening_goes_on_over_a_failing_token(
    bridge_url: str, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails while it begins to listen is logged once, and tried until it works."""
    got: list[Any] = []
    attempts = 0

    def token() -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise LookupError("no token yet")
        return "token"

    subscribe("subscriber/token", url=bridge_url, token=token)(got.append)
    with Publisher(mosquitto.url) as publisher:

        def is_heard() -> bool:
            publisher.publish("subscriber/token", 1)
            return bool(got)

        wait_until(is_heard)
    disconnect_all()
    assert caplog.text.count("no token yet") == 1


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
def test_a_handler_that_means_to_exit_ends_nothing(
    mosquitto: Mosquitto, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged like any that raises; it gets the next message, and so do later ones."""
    got: list[Any] = []

    def take(topic: str, payload: Any) -> None:
        got.append(payload)
        if payload == "exit":
            sys.exit(3)

    async def take_later(topic: str, payload: Any) -> None:
        take(topic, payload)

    handler = take if kind == "function" else take_later
    with Subscriber(mosquitto.url) as subscriber, Publisher(mosquitto.url) as publisher:
        subscriber.subscribe("exits/a", handler)
        publisher.publish("exits/a", "exit")
        publisher.publish("exits/a", "next")
        wait_until(lambda: got == ["exit", "next"])
        subscriber.subscribe("exits/b", handler)
        publisher.publish("exits/b", "other")
        wait_until(lambda: got == ["exit", "next", "other"])
    assert 1 == sum("failed on a message" in each.getMessage() for each in caplog.records)
