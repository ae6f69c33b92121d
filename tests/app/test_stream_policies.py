"""Readers that do not keep up: what each policy does for them, and that nobody else notices."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.hub.listener import CloseReason
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream

COUNT = 600
PADDING = "x" * 32_000
"""Together they are more than the kernel's buffers of one connection hold."""

MAX_MESSAGES = 20
RECEIVE_BUFFER_BYTES = 4096


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge with small buffers, so that a reader is slow soon."""
    with running_bridge(mosquitto.url, listener_max_messages=MAX_MESSAGES) as running:
        yield running


def publish(
    bridge: Bridge,
    topics: list[str],
    count: int = COUNT,
    *,
    padding: str = PADDING,
    reader: RawStream | None = None,
) -> None:
    """Publish messages that are numbered from 0, to one topic after the other; the broker took all.

    A reader that is meant to keep up is never left behind by as much as makes it slow.
    """
    with httpx.Client(base_url=bridge.url, trust_env=False, timeout=30) as client:
        for number, topic in zip(range(count), itertools.cycle(topics)):
            body = f'{{"number":{number},"padding":"{padding}"}}'
            assert client.post(f"/v1/topics/{topic}?qos=1", content=body).is_success
            if reader is not None:
                keep_up(reader, number)


def keep_up(reader: RawStream, number: int) -> None:
    """Wait until a stream is near a message."""
    wait_until(lambda: number - len(reader.messages) < MAX_MESSAGES // 2)


def numbers(stream: RawStream) -> list[int]:
    """The numbers of the messages so far."""
    return [each["number"] for each in stream.payloads]


def stuck(bridge: Bridge, *filters: str, policy: str) -> RawStream:
    """A stream whose reader reads nothing until the test does."""
    return RawStream(
        bridge.port, *filters, policy=policy, retained="false", receive_buffer_bytes=RECEIVE_BUFFER_BYTES
    )


@contextmanager
def witness(bridge: Bridge, *filters: str, count: int = COUNT) -> Iterator[RawStream]:
    """Another stream on the same topics, that reads at once; at the end it has seen all, in order."""
    with RawStream(bridge.port, *filters, retained="false") as stream:
        reader = threading.Thread(target=lambda: stream.read_until(lambda: len(stream.messages) >= count))
        reader.start()
        yield stream
        reader.join()
        assert numbers(stream) == list(range(count))
        assert [each.name for each in stream.events if each.name != "message"] == []


def test_latest_gives_the_newest_of_each_topic(bridge: Bridge) -> None:
    """In order, with a count of what was replaced; another stream on the same topics gets everything."""
    topics = [f"latest/{number}" for number in range(4)]
    with stuck(bridge, "latest/#", policy="latest") as stream:
        with witness(bridge, "latest/#") as reader:
            publish(bridge, topics, reader=reader)
        stream.read_until(lambda: {COUNT - 1 - n for n in range(4)} <= set(numbers(stream)))
        found = numbers(stream)
        assert found == sorted(set(found))
        assert found[-4:] == list(range(COUNT - 4, COUNT))
        assert all(set(each) == {"conflated"} for each in stream.named("lag"))
        assert sum(each["conflated"] for each in stream.named("lag")) == COUNT - len(found) > 0
        publish(bridge, topics, 1)
        stream.read_until(lambda: len(stream.messages) > len(found))
        assert numbers(stream) == [*found, 0]


def test_drop_tells_how_many_are_missing(bridge: Bridge) -> None:
    """Exactly, and where: each ``lag`` stands in the hole that it tells of."""
    with stuck(bridge, "drop", policy="drop") as stream:
        with witness(bridge, "drop") as reader:
            publish(bridge, ["drop"], reader=reader)
        stream.read_until(lambda: COUNT - 1 in numbers(stream))
        assert sum(each["dropped"] for each in stream.named("lag")) == COUNT - len(stream.messages) > 0
        last, missing = -1, 0
        for each in stream.events:
            if each.name == "lag":
                missing += each.json["dropped"]
            else:
                number = each.json["payload"]["number"]
                assert number - last - 1 == missing
                last, missing = number, 0


def test_resume_ends_the_stream_and_it_goes_on_where_it_ended(bridge: Bridge) -> None:
    """The reader is told that it was too slow, and gets every message once over its two streams."""
    with stuck(bridge, "resume", policy="resume") as stream:
        with witness(bridge, "resume") as reader:
            publish(bridge, ["resume"], reader=reader)
        stream.read_to_end()
        assert stream.has_ended
        assert stream.events[-1].name == "close"
        assert stream.named("close") == [{"reason": "too_slow", "may_reconnect": True}]
        first = numbers(stream)
        assert 0 < len(first) < COUNT
    with RawStream(bridge.port, "resume", last_event_id=stream.last_event_id) as back:
        back.read_messages_count(COUNT - len(first))
        assert back.named("gap") == []
        assert first + numbers(back) == list(range(COUNT))


@pytest.mark.parametrize("policy", ["resume", "latest", "drop"])
def test_what_waits_for_a_stuck_reader_is_bounded(mosquitto: Mosquitto, policy: str) -> None:
    """In messages and in bytes, at every moment; the reader is sooner or later given up."""
    max_bytes = 400_000
    with running_bridge(
        mosquitto.url,
        listener_max_messages=MAX_MESSAGES,
        listener_max_bytes=max_bytes,
        stream_send_timeout_seconds=0.5,
    ) as bridge:
        hub = bridge.app.state.hub
        topics = [f"bounded/{number}" for number in range(50)]
        with stuck(bridge, "bounded/#", policy=policy) as stream:
            (listener,) = hub._listeners
            held = []
            for _ in range(COUNT // len(topics)):
                publish(bridge, topics, len(topics))
                held.append((len(listener.buffer), listener.buffer.size))
            assert max(count for count, _ in held) <= MAX_MESSAGES
            assert 0 < max(size for _, size in held) <= max_bytes
            wait_until(lambda: hub.listeners == 0)
            assert hub.ended == {CloseReason.TOO_SLOW: 1}
            stream.read_to_end()
            assert stream.is_closed
            assert not stream.has_ended
        assert bridge.client.post("/v1/topics/next?qos=1", content=b"x").is_success


def test_an_interval_gives_a_topic_once_and_its_newest_message(mosquitto: Mosquitto) -> None:
    """After the first write nothing comes for as long as the interval, and then one message a topic."""
    with (
        running_bridge(mosquitto.url) as bridge,
        RawStream(bridge.port, "interval/#", interval=3600) as stream,
        RawStream(bridge.port, "interval/#") as other,
    ):
        publish(bridge, ["interval/a"], 1, padding="")
        stream.read_messages_count(1)
        publish(bridge, ["interval/a", "interval/b"], 10, padding="")
        other.read_messages_count(11)
        assert len(stream.messages) == 1
        bridge.stop()  # what waits for the end of the interval comes with the end of the stream
        stream.read_to_end()
    assert numbers(stream) == [0, 8, 9]
    assert [each.name for each in stream.events] == ["message", "message", "message", "close"]


def test_an_interval_lets_messages_through_when_it_is_over(bridge: Bridge) -> None:
    """Fewer than were published, in order, and the last of them in the end."""
    with RawStream(bridge.port, "paced", interval=0.2, retained="false") as stream:
        with witness(bridge, "paced", count=200) as reader:
            publish(bridge, ["paced"], 200, reader=reader)
        stream.read_until(lambda: 199 in numbers(stream))
        found = numbers(stream)
        assert found == sorted(set(found))
        assert len(found) < 200
        assert stream.named("lag") == []


def test_an_interval_holds_for_what_is_replayed(mosquitto: Mosquitto) -> None:
    """Who asked for a message a topic at most gets no more of them on coming back."""
    with running_bridge(mosquitto.url) as bridge:
        with RawStream(bridge.port, "replayed/#", interval=3600) as first:
            publish(bridge, ["replayed/a"], 1, padding="")
            first.read_messages_count(1)
        wait_until(lambda: bridge.app.state.hub.listeners == 0)
        publish(bridge, ["replayed/a", "replayed/b"], 10, padding="")
        with (
            RawStream(bridge.port, "replayed/#", interval=3600, last_event_id=first.last_event_id) as back,
            RawStream(bridge.port, "replayed/#", last_event_id=first.last_event_id) as other,
        ):
            other.read_messages_count(10)
            bridge.stop()
            back.read_to_end()
    assert numbers(back) == [8, 9]


def test_a_reader_that_asked_for_an_interval_is_not_too_slow(mosquitto: Mosquitto) -> None:
    """It may leave more messages waiting than a slow one, as long as they are of no more topics."""
    with (
        running_bridge(mosquitto.url, listener_max_messages=100) as bridge,
        RawStream(bridge.port, "wide/#", interval=3600) as stream,
        RawStream(bridge.port, "wide/#") as other,
    ):
        publish(bridge, [f"wide/{number}" for number in range(50)], 200, padding="")
        other.read_messages_count(200)
        bridge.stop()
        stream.read_to_end()
    assert numbers(stream) == [0, *range(150, 200)]
    assert stream.named("lag") == []


def test_a_reader_that_is_slow_and_steady_is_not_given_up(mosquitto: Mosquitto) -> None:
    """One message may take longer than the send time-out, as long as the reader takes some of it."""
    size = 3_000_000
    with (
        running_bridge(
            mosquitto.url, max_body_bytes=size, stream_send_timeout_seconds=0.5, heartbeat_seconds=60
        ) as bridge,
        RawStream(bridge.port, "steady", receive_buffer_bytes=RECEIVE_BUFFER_BYTES) as stream,
    ):
        (listener,) = bridge.app.state.hub._listeners
        assert bridge.client.post("/v1/topics/steady?qos=1", content=b"1" * size).is_success
        while not stream.messages:
            stream.read()
            assert not stream.is_closed
            time.sleep(0.002)  # which makes it slow
        assert listener.close_reason is None
