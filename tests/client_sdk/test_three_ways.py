"""What MQTT promises, held to the three ways alike: a broker, a bridge, and the broker in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    NotAuthorizedError,
    Properties,
    Publisher,
    Subscriber,
    TopicError,
    UnsupportedError,
    subscribe,
)
from tidegate.connection import BrokerLimits, ConnectOptions
from tidegate.memory import Action, MemoryBroker

MAXIMUM_PACKET_BYTES = 2000


class Kept:
    """A handler that keeps the whole messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        """Take one message."""
        self.messages.append(message)

    def topics(self) -> list[str]:
        """Where they were published, in order."""
        return [message.topic for message in self.messages]


@pytest.fixture(params=["direct", "bridge", "memory"])
def guarded(request: pytest.FixtureRequest) -> Iterator[Way]:
    """A broker that denies ``denied/#`` and takes packets of at most 2,000 bytes."""
    if request.param == "memory":
        broker = MemoryBroker(authorize=_deny, limits=BrokerLimits(maximum_packet_size=MAXIMUM_PACKET_BYTES))
        yield Way("memory", {"connect": broker.connect})
        return
    with contextlib.ExitStack() as stack:
        real = Mosquitto(denied="denied/#", extra=[f"max_packet_size {MAXIMUM_PACKET_BYTES}"])
        url = stack.enter_context(real).url
        if request.param == "bridge":
            url = stack.enter_context(running_bridge(url)).url
        yield Way(request.param, {"url": url})


def _deny(action: Action, topic: str, options: ConnectOptions) -> int:
    return 0x87 if topic.startswith("denied/") else 0x00


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_the_lower_quality_of_service_counts(way: Way, wanted: int) -> None:
    """A message arrives with what it was published with, but no more than was asked for (MQTT 5 §3.8.4)."""
    kept = Kept()
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe(f"ways/qos/{wanted}", kept, qos=wanted)
        for qos in (0, 1, 2):
            publisher.publish(f"ways/qos/{wanted}", qos, qos=qos)
        wait_until(lambda: len(kept.messages) == 3)
    assert {message.json(): message.qos for message in kept.messages} == {
        qos: min(qos, wanted) for qos in (0, 1, 2)
    }


@pytest.mark.parametrize(
    "properties",
    [
        Properties(payload_format=1, content_type="text/plain; charset=utf-8"),
        Properties(response_topic="ways/answer", correlation_data=b"\x00\xff"),
        Properties(user_properties=(("b", "1"), ("a", "ü"), ("b", "2"))),
    ],
    ids=["text", "request", "user"],
)
def test_properties_arrive_as_they_were_sent(way: Way, properties: Properties) -> None:
    """User properties repeat and keep their order; binary data stays binary (MQTT 5 §3.3.2.3)."""
    kept = Kept()
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe("ways/properties", kept)
        publisher.publish("ways/properties", b"text", properties=properties)
        wait_until(lambda: bool(kept.messages))
    assert (kept.messages[0].payload, kept.messages[0].properties) == (b"text", properties)


def test_an_expiry_interval_counts_down(way: Way) -> None:
    """It arrives with what is left of it, which is no more than was given (MQTT 5 §3.3.2.3.3)."""
    kept = Kept()
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe("ways/expiry", kept)
        publisher.publish("ways/expiry", 1, properties=Properties(message_expiry=600))
        wait_until(lambda: bool(kept.messages))
    expiry = kept.messages[0].properties.message_expiry
    assert expiry is not None
    assert 500 < expiry <= 600


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00\xff\xfe",
        b'{"a": 1.50, "a": 2}',
        b'{ "a" :  1.0 }',
        b"\xef\xbb\xbf{}",
        b"not json",
        "ü\n\u2028".encode(),
    ],
    ids=repr,
)
def test_bytes_arrive_untouched(way: Way, payload: bytes) -> None:
    """JSON keeps its digits, repeated names and spaces; what is not JSON, or not text, is not made so."""
    kept = Kept()
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe("ways/bytes", kept)
        publisher.publish("ways/bytes", payload)
        wait_until(lambda: bool(kept.messages))
    assert kept.messages[0].payload == payload


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("ways/match/+", ["ways/match/a", "ways/match/"]),
        ("ways/match/#", ["ways/match", "ways/match/a", "ways/match/", "ways/match/a/b", "ways/match//b"]),
        ("ways/match/+/b", ["ways/match/a/b", "ways/match//b"]),
        ("ways/match//b", ["ways/match//b"]),
        ("+/match", ["ways/match"]),
    ],
)
def test_wildcards_match_levels(way: Way, topic_filter: str, expected: list[str]) -> None:
    """``+`` is one level, which may be empty; ``#`` is any number, none included (MQTT 5 §4.7.1)."""
    kept = Kept()
    topics = ["ways/match", "ways/match/a", "ways/match/", "ways/match/a/b", "ways/match//b"]
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe([topic_filter, "ways/end"], kept)
        for topic in [*topics, "ways/end"]:
            publisher.publish(topic, 1)
        wait_until(lambda: kept.topics()[-1:] == ["ways/end"])
    assert kept.topics()[:-1] == expected


@pytest.mark.parametrize(
    "text", ["ü/€/😀", "ways/a b", "ways/%2F", "ways/?q=1", "ways/a&b", "ways/.", "ways/.."]
)
def test_a_topic_may_hold_what_a_url_cannot(way: Way, text: str) -> None:
    """A topic is any text; to a bridge it travels within a URL."""
    kept = Kept()
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe(text, kept)
        assert publisher.publish(text, 1).topic == text
        wait_until(lambda: bool(kept.messages))
    assert kept.topics() == [text]


def test_retained_messages_come_to_each_new_subscriber(way: Way) -> None:
    """Those that the filter matches, the latest of each topic, until an empty one clears it (§3.3.1.3)."""
    first, second, third = Kept(), Kept(), Kept()
    with Publisher(**way.options) as publisher, Subscriber(**way.options) as subscriber:
        for topic, value in (("ways/kept/a", "old"), ("ways/kept/a", "new"), ("ways/kept/b", "b")):
            publisher.publish(topic, value, retain=True)
        subscriber.subscribe("ways/kept/+", first)
        wait_until(lambda: len(first.messages) == 2)
        assert {m.topic: (m.json(), m.retain) for m in first.messages} == {
            "ways/kept/a": ("new", True),
            "ways/kept/b": ("b", True),
        }
        with Subscriber(**way.options) as other:
            other.subscribe("ways/kept/+", second)
            wait_until(lambda: len(second.messages) == 2)
        publisher.publish("ways/kept/a", b"", retain=True)
        publisher.publish("ways/kept/b", b"", retain=True)
        wait_until(lambda: len(first.messages) == 4)
        assert [(m.payload, m.retain) for m in first.messages[2:]] == [(b"", False)] * 2
        with Subscriber(**way.options) as late:
            late.subscribe("ways/kept/+", third)
            publisher.publish("ways/kept/end", 1)
            wait_until(lambda: bool(third.messages))
    assert third.topics() == ["ways/kept/end"]


def test_a_shared_subscription_hands_each_message_to_one(way: Way) -> None:
    """Members of a group share the messages, and each message is had once (MQTT 5 §4.8.2)."""
    one, other = Kept(), Kept()
    with (
        Subscriber(**way.options) as first,
        Subscriber(**way.options) as second,
        Publisher(**way.options) as publisher,
    ):
        first.subscribe("$share/group/ways/shared", one)
        second.subscribe("$share/group/ways/shared", other)
        for number in range(20):
            publisher.publish("ways/shared", number)
        wait_until(lambda: len(one.messages) + len(other.messages) >= 20)
    numbers = sorted(message.json() for message in one.messages + other.messages)
    assert numbers == list(range(20))


def test_the_answer_says_whether_anybody_listened(way: Way) -> None:
    """0x10 is a success: the broker has the message, and nobody subscribed to it (MQTT 5 §3.4.2.1)."""
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        alone = publisher.publish("ways/answer/alone", 1)
        subscriber.subscribe("ways/answer/heard", lambda topic, payload: None)
        heard = publisher.publish("ways/answer/heard", 1)
    assert (alone.reason_code, alone.reason) == (0x10, "No matching subscribers")
    assert (heard.reason_code, heard.reason) == (0x00, "Success")


def test_what_the_broker_refuses_is_an_error(guarded: Way) -> None:
    """A publish and a subscription that its rules deny; the connection goes on."""
    kept = Kept()
    with Subscriber(**guarded.options) as subscriber, Publisher(**guarded.options) as publisher:
        with pytest.raises(NotAuthorizedError) as publishing:
            publisher.publish("denied/a", 1)
        with pytest.raises(NotAuthorizedError) as subscribing:
            subscriber.subscribe("denied/a", kept)
        for error in (publishing.value, subscribing.value):
            assert (error.topic, error.reason_code, error.fault, error.retryable) == (
                "denied/a",
                0x87,
                "broker",
                False,
            )
        subscriber.subscribe("allowed/a", kept)
        publisher.publish("allowed/a", 1)
        wait_until(lambda: kept.topics() == ["allowed/a"])


def test_one_refused_filter_of_several_refuses_all(guarded: Way) -> None:
    """None of them is held then, and the call may be made again without it."""
    kept = Kept()
    with Subscriber(**guarded.options) as subscriber, Publisher(**guarded.options) as publisher:
        with pytest.raises(NotAuthorizedError):
            subscriber.subscribe_multiple([("allowed/+", 1), ("denied/a", 1)], kept)
        publisher.publish("allowed/a", 1)
        subscriber.subscribe("allowed/+", kept)
        publisher.publish("allowed/b", 1)
        wait_until(lambda: kept.topics() == ["allowed/b"])


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_packet_that_is_too_large_is_refused_before_it_is_sent(guarded: Way, qos: int) -> None:
    """The broker would close the connection on it; a smaller one still goes through (MQTT 5 §3.2.2.3.6)."""
    kept = Kept()
    with Subscriber(**guarded.options) as subscriber, Publisher(**guarded.options) as publisher:
        subscriber.subscribe("allowed/size", kept)
        with pytest.raises(UnsupportedError, match=r"2,?000"):
            publisher.publish("allowed/size", b"x" * MAXIMUM_PACKET_BYTES, qos=qos)
        publisher.publish("allowed/size", b"x" * (MAXIMUM_PACKET_BYTES - 100), qos=qos)
        wait_until(lambda: bool(kept.messages))
    assert len(kept.messages[0].payload) == MAXIMUM_PACKET_BYTES - 100


@pytest.mark.parametrize("topic_filter", ["", "a#", "a/#/b", "a+", "a\x00", "$share/a", "$share/+/a"])
def test_a_filter_that_mqtt_forbids_never_leaves(way: Way, topic_filter: str) -> None:
    """It is the caller's error, whichever way it would have gone (MQTT 5 §4.7)."""
    with Subscriber(**way.options) as subscriber, pytest.raises(TopicError):
        subscriber.subscribe(topic_filter, lambda topic, payload: None)
    with pytest.raises(TopicError):
        subscribe(topic_filter, **way.options)


async def test_coroutines_publish_side_by_side(way: Way) -> None:
    """A hundred at once, each with its own answer, none lost and none twice."""
    got: list[Any] = []
    async with AsyncSubscriber(**way.options) as subscriber, AsyncPublisher(**way.options) as publisher:
        await subscriber.subscribe("ways/many/+", lambda topic, payload: got.append(payload))
        results = await asyncio.gather(
            *(publisher.publish(f"ways/many/{n}", n, qos=n % 3) for n in range(100))
        )
        async with asyncio.timeout(20):
            while len(got) < 100:
                await asyncio.sleep(0.01)
    assert [result.topic for result in results] == [f"ways/many/{n}" for n in range(100)]
    assert sorted(got) == list(range(100))
