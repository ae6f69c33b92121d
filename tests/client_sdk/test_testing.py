"""The broker that users test their programs with."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    ConfigurationError,
    MQTTConnectionError,
    NotAuthorizedError,
    PayloadError,
    Properties,
    Publisher,
    RefusedError,
    Subscriber,
    TopicError,
    configure,
    publish,
    subscribe,
)
from tidegate.testing import FakeBroker

SECONDS = 20.0


def filters_of(broker: FakeBroker) -> set[str]:
    """The filters of the test's own; a client that another test has left comes along with its handlers."""
    return {each for each in broker.filters if "fake/" in each}


PLACES: list[dict[str, Any]] = [
    {},
    {"url": "mqtt://nobody.invalid"},
    {"url": "mqtts://nobody.invalid", "tls": {"ca_certs": "/nowhere/ca.pem"}},
    {"host": "nobody.invalid", "username": "me", "password": "secret", "client_id": "one"},
    {"url": "http://nobody.invalid", "token": "secret"},
]


def names(place: dict[str, Any]) -> str:
    """What tells one place from another in the name of a test."""
    return "+".join(place) or "nothing"


@pytest.mark.parametrize("place", PLACES, ids=names)
def test_everything_goes_to_the_fake_broker_wherever_it_was_told_to_go(place: dict[str, Any]) -> None:
    """Decorators and classes of both kinds, told nothing, a broker or a bridge."""
    got: list[Any] = []

    with FakeBroker() as broker:

        @publish("fake/decorated", **place)
        def read() -> dict[str, int]:
            return {"n": 1}

        @subscribe("fake/commands/{name}", **place)
        def handle(message: Any, name: str) -> None:
            got.append((name, message))

        async def publish_asynchronously() -> None:
            async with AsyncPublisher(**place) as publisher:
                await publisher.publish("fake/asynchronous", 3)

        assert read() == {"n": 1}
        with Publisher(**place) as publisher:
            publisher.publish("fake/class", 2, qos=2)
        asyncio.run(publish_asynchronously())
        broker.publish("fake/commands/start", {"now": True})
        broker.wait_for(lambda: got)
        seen = [(message.topic, message.json(), message.qos) for message in broker.messages("fake/#")]
    assert seen == [("fake/decorated", {"n": 1}, 1), ("fake/class", 2, 2), ("fake/asynchronous", 3, 1)]
    assert got == [("start", {"now": True})]


def test_what_is_said_by_configure_or_in_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither before nor within."""
    monkeypatch.setenv("TIDEGATE_URL", "http://nobody.invalid")

    @publish("fake/configured")
    def read() -> int:
        return 1

    with FakeBroker() as broker:
        read()
        configure("mqtt://nobody.invalid", client_id="one")
        read()
        assert [message.topic for message in broker.published] == ["fake/configured"] * 2


def test_clients_and_handlers_made_before_come_along_and_go_back(mosquitto: Mosquitto) -> None:
    """They were connected to a real broker, hear nothing of it meanwhile, and hear it again afterwards."""
    decorated: list[Any] = []
    called: list[Any] = []
    publisher = Publisher(mosquitto.url)
    subscriber = Subscriber(mosquitto.url)
    subscriber.subscribe("fake/back/#", lambda _, payload: called.append(payload))

    @subscribe("fake/back/#", url=mosquitto.url)
    def handle(message: Any) -> None:
        decorated.append(message)

    def is_heard() -> bool:
        publisher.publish("fake/back/a", "real")
        return "real" in decorated and "real" in called

    wait_until(is_heard)
    with FakeBroker() as broker, Publisher(mosquitto.url, connect=None) as other:
        decorated.clear()
        called.clear()
        other.publish("fake/back/a", "fake")
        publisher.publish("fake/back/a", "fake too")
        wait_until(lambda: len(decorated) == len(called) == 2)
        assert [message.json() for message in broker.published] == ["fake", "fake too"]
    assert decorated == called == ["fake", "fake too"]
    wait_until(is_heard)
    publisher.disconnect()
    subscriber.disconnect()


def test_clients_of_one_identifier_move_together() -> None:
    """They share one connection at the fake broker as anywhere."""
    publisher = Publisher(client_id="shared")
    subscriber = Subscriber(client_id="shared")
    got: list[Any] = []
    for number in range(2):
        with FakeBroker() as broker:
            publisher.publish("fake/shared", number)
            subscriber.subscribe("fake/shared", lambda _, payload: got.append(payload))
            publisher.publish("fake/shared", number)
            broker.wait_for(lambda: len(got) == number + 1)  # noqa: B023 - called before the next one
            assert broker.client_ids.count("shared") == 1
    assert got == [0, 1]


def make_module_function(got: list[Any]) -> Callable[[Any], None]:
    """A function as a module has it, which no other function made."""

    def handle(message: Any) -> None:
        got.append(message)

    handle.__qualname__ = "handle"
    return handle


def test_a_modules_handler_that_was_first_imported_within_a_test_hears_the_next_one() -> None:
    """A module is imported once; what a test itself decorates ends with the test."""
    modules: list[Any] = []
    own: list[Any] = []
    with FakeBroker() as broker:
        subscribe("fake/lasting")(make_module_function(modules))
        subscribe("fake/own")(own.append)
        for topic in ("fake/lasting", "fake/own"):
            broker.publish(topic, 1)
        broker.wait_for(lambda: modules and own)
    with FakeBroker() as broker:
        assert filters_of(broker) == {"fake/lasting"}
        broker.publish("fake/lasting", 2)
        broker.wait_for(lambda: len(modules) == 2)
    assert (modules, own) == ([1, 2], [1])


def test_one_fake_broker_stands_within_another() -> None:
    """The inner one has everything until it ends."""
    with FakeBroker() as outer, Publisher() as publisher:
        publisher.publish("fake/outer", 1)
        with FakeBroker() as inner:
            publisher.publish("fake/inner", 1)
        publisher.publish("fake/outer", 2)
    assert [message.json() for message in outer.published] == [1, 2]
    assert [message.topic for message in inner.published] == ["fake/inner"]


def test_a_client_with_its_own_way_to_connect_stays_there() -> None:
    """Two brokers in memory may stand side by side."""
    own = FakeBroker()
    with FakeBroker() as broker, Publisher(connect=own.connect) as publisher:
        publisher.publish("fake/aside", 1)
    assert (len(own.published), len(broker.published)) == (1, 0)


def test_hooks_are_told_of_the_detour() -> None:
    """Leaving one broker and reaching the other are events like any."""
    told: list[str] = []

    class Told(Publisher):
        def on_connect(self, client: Any, userdata: Any, flags: dict[str, int], rc: int) -> None:
            told.append("connected")

        def on_disconnect(self, client: Any, userdata: Any, rc: int) -> None:
            told.append("disconnected")

    publisher = Told()
    for _ in range(2):
        with FakeBroker():
            publisher.publish("fake/hooks", 1)
    wait_until(lambda: told == ["connected", "disconnected"] * 2)
    publisher.disconnect()


async def test_it_works_within_a_running_loop() -> None:
    """Coroutines publish and iterate, and wait without stopping their loop."""
    got: list[Any] = []
    with FakeBroker() as broker:

        @subscribe("fake/loop/in")
        async def handle(message: Any) -> None:
            await asyncio.sleep(0)
            got.append((message, threading.current_thread() is threading.main_thread()))

        async with AsyncSubscriber() as subscriber:
            await subscriber.subscribe("fake/loop/iterated")
            broker.publish("fake/loop/in", 1)
            broker.publish("fake/loop/iterated", 2)
            async for message in subscriber:
                assert message.json() == 2
                break
        assert await broker.async_wait_for(lambda: got) == [(1, True)]
        with pytest.raises(AssertionError, match=r"nothing; subscribed to: .*fake/loop/in"):
            await broker.async_wait_for(lambda: False, 0.01)


async def test_a_client_that_the_calling_loop_has_opened_stays(mosquitto: Mosquitto) -> None:
    """It cannot be waited for on its own loop; one that is made meanwhile goes to the fake broker."""
    async with AsyncPublisher(mosquitto.url) as before:
        with FakeBroker() as broker:
            await before.publish("fake/stays", 1)
            async with AsyncPublisher(mosquitto.url) as within:
                await within.publish("fake/goes", 1)
            assert [message.topic for message in broker.published] == ["fake/goes"]
        await before.publish("fake/stays", 2)


def test_it_ends_after_an_error_and_leaves_nothing_behind(mosquitto: Mosquitto) -> None:
    """A client made within goes to its own place afterwards."""
    publisher = Publisher(mosquitto.url)
    broker = FakeBroker()

    def fail() -> None:
        with broker:
            publisher.publish("fake/error", 1)
            broker.freeze()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    publisher.publish("fake/error", 2)
    publisher.disconnect()
    assert [message.json() for message in broker.published] == [1]


def test_what_was_published_is_looked_up_by_filter() -> None:
    """In order, with properties and the retain flag that the publisher set; ``clear`` forgets."""
    properties = Properties(content_type="text/plain", user_properties=(("a", "1"),))
    with FakeBroker() as broker, Publisher() as publisher:
        publisher.publish("fake/a/1", b"\xff", properties=properties)
        publisher.publish("fake/b/1", "kept", retain=True)
        assert [message.topic for message in broker.messages("fake/+/1")] == ["fake/a/1", "fake/b/1"]
        assert [message.topic for message in broker.messages()] == ["fake/a/1", "fake/b/1"]
        (first,) = broker.messages("fake/a/#")
        assert (first.payload, first.properties, first.retain) == (b"\xff", properties, False)
        (second,) = broker.messages("fake/b/1")
        assert (second.json(), second.retain) == ("kept", True)
        assert list(broker.retained) == ["fake/b/1"]
        broker.clear()
        assert broker.messages() == []
        assert list(broker.retained) == ["fake/b/1"]
        with pytest.raises(TopicError):
            broker.messages("a#")


def test_the_test_publishes_as_a_device_would() -> None:
    """Retained values wait for who subscribes later, what is no message is refused, nothing is captured."""
    got: list[Any] = []
    with FakeBroker() as broker, Subscriber() as subscriber:
        broker.publish("fake/device", {"n": 1}, retain=True)
        subscriber.subscribe("fake/device", lambda _, payload: got.append(payload))
        broker.publish("fake/device", b"\x00\xff", qos=0)
        broker.wait_for(lambda: len(got) == 2)
        assert broker.published == []
        with pytest.raises(TopicError):
            broker.publish("a/#", 1)
        with pytest.raises(PayloadError):
            broker.publish("a", object())
        with pytest.raises(ConfigurationError):
            broker.publish("a", 1, qos=3)
    assert got == [{"n": 1}, b"\x00\xff"]


@pytest.mark.parametrize(
    ("refused", "topic", "expected"),
    [
        ("fake/a", "fake/a", True),
        ("fake/a", "fake/b", False),
        ("fake/+", "fake/a", True),
        ("fake/#", "fake/a/b", True),
    ],
)
def test_publishing_can_be_refused(refused: str, topic: str, expected: bool) -> None:
    """By topic filter, with a reason code, until it is allowed again."""
    with FakeBroker() as broker, Publisher() as publisher:
        broker.refuse(refused)
        if expected:
            with pytest.raises(NotAuthorizedError, match=topic):
                publisher.publish(topic, 1)
            broker.refuse(refused, 0x97)
            with pytest.raises(RefusedError, match="Quota exceeded"):
                publisher.publish(topic, 1)
            broker.allow(refused)
        publisher.publish(topic, 1)
        assert len(broker.published) == 1
        with pytest.raises(ValueError, match="0x80"):
            broker.refuse(refused, 0x10)


@pytest.mark.parametrize(
    ("refused", "topic_filter", "expected"),
    [
        ("fake/a", "fake/a", True),
        ("fake/a", "fake/+", False),
        ("fake/+", "fake/+", True),
        ("fake/+", "fake/#", False),
        ("fake/#", "fake/#", True),
        ("fake/#", "fake/a/#", True),
        ("fake/#", "$share/group/fake/+/b", True),
        ("fake/+/#", "fake/#", False),
    ],
)
def test_a_subscription_can_be_refused(refused: str, topic_filter: str, expected: bool) -> None:
    """A filter that the refused one covers; one that is wider is not."""
    with FakeBroker() as broker, Subscriber() as subscriber:
        broker.refuse(refused)
        if expected:
            with pytest.raises(NotAuthorizedError):
                subscriber.subscribe(topic_filter, lambda topic, payload: None)
        else:
            subscriber.subscribe(topic_filter, lambda topic, payload: None)
        assert filters_of(broker) == (set() if expected else {topic_filter})


def test_the_broker_goes_away_and_comes_back() -> None:
    """A call that waits for an answer says that there is none; a handler hears again when it is back."""
    got: list[Any] = []
    with FakeBroker() as broker, Publisher() as publisher:
        subscribe("fake/away")(got.append)
        broker.publish("fake/away", 1)
        broker.wait_for(lambda: got)
        broker.stop()
        with pytest.raises(MQTTConnectionError, match="stopped"), Publisher() as late:
            late.publish("fake/away", 2)
        broker.start()
        publisher.publish("fake/away", 3)

        def is_heard() -> bool:
            broker.publish("fake/away", 4)
            return 4 in got

        broker.wait_for(is_heard)


def test_a_condition_that_does_not_come_about_says_what_did() -> None:
    """The error names the topics that were published to, and the filters that are subscribed to."""
    with FakeBroker() as broker, Publisher() as publisher, Subscriber() as subscriber:
        subscriber.subscribe("fake/heard/#", lambda topic, payload: None)
        publisher.publish("fake/said", 1)
        with pytest.raises(
            AssertionError,
            match=r"within 0\.01 s; published so far: fake/said; subscribed to: .*fake/heard/#",
        ):
            broker.wait_for_messages("fake/other", timeout_seconds=0.01)
        threading.Thread(target=publisher.publish, args=("fake/other", 2)).start()
        assert [message.json() for message in broker.wait_for_messages("fake/other")] == [2]


def test_the_two_ways_to_wait_take_the_same() -> None:
    """``async_wait_for`` is ``wait_for`` with await."""
    assert inspect.signature(FakeBroker.wait_for) == inspect.signature(FakeBroker.async_wait_for)


def test_the_fixture_comes_with_the_installed_sdk(tmp_path: Path) -> None:
    """It is found without configuration; each test has its own broker, and a module's handler hears both."""
    (tmp_path / "thermometer.py").write_text(
        "from tidegate import publish, subscribe\n"
        "heard = []\n"
        "@publish('sensors/kitchen')\n"
        "def read(): return {'celsius': 21.5}\n"
        "@subscribe('commands/#')\n"
        "def on_command(message): heard.append(message)\n"
    )
    (tmp_path / "test_thermometer.py").write_text(
        "import pytest, thermometer\n"
        "@pytest.mark.parametrize('number', [1, 2])\n"
        "def test_one(tidegate_broker, number):\n"
        "    thermometer.read()\n"
        "    tidegate_broker.publish('commands/a', number)\n"
        "    tidegate_broker.wait_for(lambda: thermometer.heard[-1:] == [number])\n"
        "    assert [m.json() for m in tidegate_broker.messages('sensors/#')] == [{'celsius': 21.5}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cloudcoil", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
