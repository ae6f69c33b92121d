"""A listener between the hub and its reader: when what waits is written, and what one that left keeps."""

from __future__ import annotations

import gc
import weakref

import pytest

from app.hub.buffers import Policy
from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from app.hub.position import Epoch
from tests.support.hub import (
    LateReader,
    LeavingReader,
    QuickReader,
    RecordedUpstream,
    StuckReader,
    joined,
    story,
)
from tidegate.message import Message

LONG_SECONDS = 3600.0


def event(number: int, topic: str = "a") -> Event:
    """A message of this number."""
    return Event(Message(topic, str(number).encode()), Epoch(), number)


def payloads(reader: LateReader | QuickReader) -> list[str]:
    """The payloads of the messages that a reader took; it took nothing else."""
    return [payload for _, payload in story(reader.events)]


@pytest.mark.parametrize("policy", Policy)
async def test_a_full_buffer_is_written_out_first(policy: Policy) -> None:
    """A reader that takes whatever it is given misses nothing, however much comes in one turn of the loop."""
    listener = Listener(["a"], policy=policy, max_messages=3)
    reader = LateReader(listener)
    for number in range(20):
        listener.offer(event(number))
    reader.write()
    assert listener.close_reason is None
    assert story(reader.events) == [("a", str(number)) for number in range(20)]


@pytest.mark.parametrize("policy", Policy)
async def test_a_stuck_reader_is_what_the_policy_is_for(policy: Policy) -> None:
    """Where writing makes no room, it says what happens."""
    listener = Listener(["a"], policy=policy, max_messages=3)
    listener.attach(StuckReader())
    for number in range(20):
        listener.offer(event(number))
    assert listener.close_reason is (CloseReason.TOO_SLOW if policy is Policy.RESUME else None)
    left = {
        Policy.RESUME: [("a", "0"), ("a", "1"), ("a", "2")],
        Policy.LATEST: [("lag", None), ("a", "19")],
        Policy.DROP: [("lag", None), ("a", "17"), ("a", "18"), ("a", "19")],
    }
    assert story(listener.take(10_000)) == left[policy]


@pytest.mark.parametrize("policy", Policy)
async def test_a_full_buffer_ends_the_pause_of_an_interval(policy: Policy) -> None:
    """More topics than the buffer holds come a little early, rather than not at all."""
    listener = Listener(["#"], policy=policy, interval_seconds=LONG_SECONDS, max_messages=4)
    reader = QuickReader(listener)
    for number in range(10):
        listener.offer(event(number, f"topic/{number}"))
    assert listener.close_reason is None
    assert payloads(reader) == [str(number) for number in range(9)]
    listener.close(CloseReason.SHUTDOWN)
    assert payloads(reader) == [str(number) for number in range(10)]


async def test_nothing_is_added_behind_the_last_word_of_a_stream() -> None:
    """Where writing out a full buffer ends the stream, the event that found it full comes too late."""

    class ClosingReader(LateReader):
        """One whose form has no words for something."""

        def write(self) -> None:
            super().write()
            listener.close(CloseReason.GAP)

    listener = Listener(["a"], max_messages=2)
    reader = ClosingReader(listener)
    for number in range(5):
        listener.offer(event(number))
    reader.write()
    assert payloads(reader) == ["0", "1"]
    assert not listener.buffer


async def test_a_paused_listener_that_left_is_forgotten() -> None:
    """Neither the timer of its interval nor the hub keeps it, and with it what waited."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "#", interval_seconds=LONG_SECONDS, retained=False)
    reader = StuckReader()
    listener.attach(reader)
    upstream.send(hub, "a", "1", "#")
    assert story(listener.take(10_000)) == [("a", "1")]
    upstream.send(hub, "a", "2", "#")
    hub.leave(listener)
    left = weakref.ref(reader)
    del listener, reader
    gc.collect()
    assert left() is None


async def test_one_that_left_holds_nothing() -> None:
    """Whoever still has it, its buffer is empty."""
    upstream = RecordedUpstream()
    hub = Hub(upstream, grace_seconds=LONG_SECONDS)
    listener = await joined(hub, "a", retained=False)
    last_event_id = str(hub.position_of(listener))
    upstream.send(hub, "a", "1")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    upstream.send(hub, "a", "2")
    assert back.replay_bytes > 0
    for each in (listener, back):
        hub.leave(each)
        assert (len(each.buffer), each.buffer.size, each.replay_bytes, each.take(10_000)) == (0, 0, 0, [])


async def test_a_limit_is_kept_when_a_full_buffer_is_written_out() -> None:
    """Exactly so many messages, and then the end."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False, limit=5, max_messages=2)
    reader = LeavingReader(hub, listener)
    for number in range(10):
        upstream.send(hub, "a", str(number))
    reader.write()
    assert payloads(reader) == ["0", "1", "2", "3", "4"]
    assert listener.close_reason is CloseReason.LIMIT


async def test_control_events_find_room_like_messages() -> None:
    """A full buffer is written out for them too."""
    listener = Listener(["a"], max_messages=2)
    reader = LateReader(listener)
    for number in range(5):
        listener.offer(event(number))
        listener.offer(ControlEvent("broker", {"state": str(number)}))
    reader.write()
    expected = [each for number in range(5) for each in (("a", str(number)), ("broker", str(number)))]
    assert story(reader.events) == expected
