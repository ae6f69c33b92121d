from __future__ import annotations

import queue
import socket
import struct
from collections.abc import Iterator
from typing import Final

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.mosquitto import Mosquitto
from tidegate.errors import TopicError
from tidegate.topics import matches, validate_filter, validate_topic

SECONDS: Final = 20.0
LEVELS: Final = ["", "a", "b", "A", "$SYS", "$a", "é", " "]
END: Final = "end of the batch"
LAST_IDENTIFIER: Final = 268_435_455

# Mosquitto keeps what begins with $SYS or $share to itself: nothing can be published there.
topics = (
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda topic: bool(topic) and not topic.startswith("$SYS"))
)
plain_filters = (
    st.tuples(st.lists(st.sampled_from([*LEVELS, "+", "+"]), max_size=4), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)
# Mosquitto 2.0.11 takes a shared subscription to a $-topic and never delivers to it; it may (§4.7.2).
shared_filters = st.builds(
    "$share/{}/{}".format,
    st.sampled_from(["g", "h"]),
    plain_filters.filter(lambda topic_filter: not topic_filter.startswith("$")),
)
filters = plain_filters | shared_filters


class Client:
    """A plain MQTT 5 connection whose subscriptions carry their place in the list as identifier."""

    def __init__(self, broker: Mosquitto) -> None:
        self.copies: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.answers: queue.Queue[list[int]] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = lambda _client, _userdata, message: self.copies.put(message)
        self.client.on_subscribe = lambda _client, _userdata, _mid, codes, _found: self.answers.put(
            [code.value for code in codes]
        )
        self.client.on_unsubscribe = self.client.on_subscribe
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()

    def subscribe(self, topic_filter: str, identifier: int) -> list[int]:
        """Subscribe, and return the broker's reason codes."""
        carried = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
        carried.SubscriptionIdentifier = identifier
        self.client.subscribe(topic_filter, options=SubscribeOptions(qos=0), properties=carried)
        return self.answers.get(timeout=SECONDS)

    def unsubscribe(self, topic_filter: str) -> list[int]:
        """Unsubscribe, and return the broker's reason codes."""
        self.client.unsubscribe(topic_filter)
        return self.answers.get(timeout=SECONDS)

    def copies_of(self, published: list[str]) -> list[tuple[int, int]]:
        """Publish to each topic, and return who got what: topic's and subscription's place in their lists."""
        for index, topic in enumerate(published):
            self.client.publish(topic, str(index))
        self.client.publish(END)
        copies: list[tuple[int, int]] = []
        while True:
            message = self.copies.get(timeout=SECONDS)
            identifiers: list[int] = message.properties.SubscriptionIdentifier  # type: ignore[union-attr]
            if identifiers == [LAST_IDENTIFIER]:  # wildcards of the batch match the end's topic too
                return copies
            if message.payload:
                copies.extend((int(message.payload), identifier) for identifier in identifiers)


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    """A Mosquitto that says nothing of its own under $SYS and drops nothing."""
    with Mosquitto(extra=["sys_interval 0", "max_queued_messages 0", "max_inflight_messages 0"]) as running:
        yield running


@pytest.fixture(scope="module")
def client(broker: Mosquitto) -> Iterator[Client]:
    """One connection for all batches."""
    made = Client(broker)
    yield made
    made.client.disconnect()
    made.client.loop_stop()


@settings(max_examples=40, deadline=None)
@given(st.lists(filters, min_size=1, max_size=30, unique=True), st.lists(topics, min_size=1, max_size=30))
def test_mosquitto_delivers_what_matches_says(
    client: Client, wanted: list[str], published: list[str]
) -> None:
    """For any filters and topics Mosquitto sends a copy exactly where ``matches`` says yes."""
    for index, topic_filter in enumerate(wanted):
        validate_filter(topic_filter)
        assert [0] == client.subscribe(topic_filter, index + 1), topic_filter
    client.subscribe(END, LAST_IDENTIFIER)
    expected = sorted(
        (place, index + 1)
        for place, topic in enumerate(published)
        for index, topic_filter in enumerate(wanted)
        if matches(topic_filter, topic)
    )
    try:
        assert expected == sorted(client.copies_of(published))
    finally:
        for topic_filter in [*wanted, END]:
            assert [0] == client.unsubscribe(topic_filter)


def answer_to(broker: Mosquitto, packet: bytes) -> int:
    """Connect with MQTT 5, send one packet, and return the type of the packet that comes back."""
    with socket.create_connection((broker.host, broker.port), SECONDS) as raw:
        connect = b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"
        raw.sendall(bytes([0x10, len(connect)]) + connect)
        head = raw.recv(2, socket.MSG_WAITALL)
        raw.recv(head[1], socket.MSG_WAITALL)
        raw.sendall(packet)
        return raw.recv(1)[0] >> 4


def publish_packet(topic: str) -> bytes:
    """PUBLISH with QoS 1 and no payload; no client library would let such topics through."""
    raw = topic.encode(errors="surrogatepass")
    body = struct.pack(">H", len(raw)) + raw + b"\x00\x01\x00"
    return bytes([0x32, len(body)]) + body


def subscribe_packet(topic_filter: str) -> bytes:
    """SUBSCRIBE to one filter with QoS 0."""
    raw = topic_filter.encode()
    body = b"\x00\x01\x00" + struct.pack(">H", len(raw)) + raw + b"\x00"
    return bytes([0x82, len(body)]) + body


PUBACK: Final = 4
SUBACK: Final = 9
DISCONNECT: Final = 14

FORBIDDEN: Final = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    "\ud800",
    "\udbff",
    "\udc00",
    "\udfff",
    "\ufffe",
    "\uffff",
    "+",
    "#",
]
ALLOWED: Final = [" ", "~", "\xa0", "\xad", "\u2028", "\ud7ff", "\ue000", "\ufeff", "\ufffd", "\U0001f600"]


@pytest.mark.parametrize("character", FORBIDDEN, ids=ascii)
def test_mosquitto_hangs_up_on_what_a_topic_name_may_not_hold(broker: Mosquitto, character: str) -> None:
    """Each character that ``validate_topic`` refuses would have cost the connection."""
    with pytest.raises(TopicError):
        validate_topic(f"a{character}b")
    assert DISCONNECT == answer_to(broker, publish_packet(f"a{character}b"))


@pytest.mark.parametrize("character", ALLOWED, ids=ascii)
def test_mosquitto_takes_what_a_topic_name_may_hold(broker: Mosquitto, character: str) -> None:
    """The neighbours of the forbidden characters pass, here and there."""
    validate_topic(f"a{character}b")
    assert PUBACK == answer_to(broker, publish_packet(f"a{character}b"))


@pytest.mark.parametrize(
    "topic_filter",
    ["", "a\n", "a#", "#/a", "a/#/b", "a+", "a/++", "$share", "$share/g+/a", "$share/#/a"],
)
def test_mosquitto_hangs_up_on_a_filter_that_is_refused(broker: Mosquitto, topic_filter: str) -> None:
    """A filter that ``validate_filter`` refuses would have cost the connection."""
    with pytest.raises(TopicError):
        validate_filter(topic_filter)
    assert DISCONNECT == answer_to(broker, subscribe_packet(topic_filter))


@pytest.mark.parametrize("topic_filter", ["#", "/", "a/+/#", "$share/g/#", "$share/g//", "$share/g/$SYS/#"])
def test_mosquitto_takes_a_filter_that_is_allowed(broker: Mosquitto, topic_filter: str) -> None:
    """A filter that ``validate_filter`` lets through gets its subscription."""
    validate_filter(topic_filter)
    assert SUBACK == answer_to(broker, subscribe_packet(topic_filter))
