"""What all readers together may leave unread."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from app.hub.buffers import Policy
from app.hub.event import Event
from app.hub.hub import Hub
from app.hub.journal import Journal, Track
from app.hub.listener import CloseReason, Listener
from app.hub.position import Epoch
from app.hub.pressure import over_limit
from tests.support.bridge import running_bridge, wait_until
from tests.support.hub import QuickReader, RecordedUpstream, StuckReader, joined
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tidegate.message import Message


def memory_of(listeners: list[Listener]) -> int:
    """What the events that they hold take, each counted once."""
    return sum(each.size for each in {event for listener in listeners for event in listener.buffer})


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=6),
    st.lists(st.integers(0, 5000), min_size=10, max_size=10),
    st.integers(0, 20_000),
)
def test_what_is_left_is_within_the_bound(held: list[list[int]], sizes: list[int], max_bytes: int) -> None:
    """As few as it takes are closed, from those with most; an event that many wait for counts once."""
    events = [Event(Message("a", b"x" * size), Epoch(), number) for number, size in enumerate(sizes, 1)]
    listeners = []
    for numbers in held:
        listener = Listener(["a"])
        for number in sorted(set(numbers)):
            listener.offer(events[number])
        listeners.append(listener)
    closing = over_limit(listeners, max_bytes)
    left = [each for each in listeners if each not in closing]
    assert memory_of(left) <= max_bytes
    if closing:
        assert memory_of([*left, closing[-1]]) > max_bytes
        assert min(each.buffer.size for each in closing) >= max([each.buffer.size for each in left] or [0])


def replaying(journal: Journal, track: Track) -> Listener:
    """A listener that is given all that the journal has, and takes nothing."""
    listener = Listener(["a"])
    listener.replay(list(track.after(0)), journal.let_go)
    return listener


def test_a_replay_costs_what_the_journal_has_let_go() -> None:
    """Nothing as long as the journal has it; then those go that hold the oldest, until the rest fits."""
    journal, track = Journal(max_messages=10), Track(0)
    listeners = []
    for number in range(1, 51):
        journal.add(Event(Message("a", b"x" * 800, received_at=time.time()), Epoch(), number), [track])
        if number % 10 == 0:
            listeners.append(replaying(journal, track))
            if number == 10:
                assert over_limit(listeners, 0, journal.let_go) == []
    size = listeners[0].replay_bytes
    assert [each.replay_bytes for each in listeners] == [size] * 5
    assert journal.let_go == 4 * size
    assert over_limit(listeners, 4 * size, journal.let_go) == []
    assert over_limit(listeners, 4 * size - 1, journal.let_go) == listeners[:1]
    assert over_limit(listeners, size, journal.let_go) == listeners[:3]
    assert over_limit(listeners, 0, journal.let_go) == listeners[:4]
    listeners[0].take(size // 2)
    assert over_limit(listeners, 4 * size - size // 2, journal.let_go) == []
    listeners[0].discard()
    assert over_limit(listeners, 3 * size, journal.let_go) == []


def test_replays_that_hold_the_same_count_once() -> None:
    """A thousand that come back at once have one history."""
    journal, track = Journal(max_messages=10), Track(0)
    for number in range(1, 11):
        journal.add(Event(Message("a", b"x" * 800, received_at=time.time()), Epoch(), number), [track])
    listeners = [replaying(journal, track) for _ in range(1000)]
    journal.forget(track)
    assert over_limit(listeners, listeners[0].replay_bytes, journal.let_go) == []


async def test_a_stuck_reader_of_a_replay_is_closed() -> None:
    """The hub counts what it holds of what the journal let go, and says that the server met a bound."""
    upstream = RecordedUpstream()
    hub = Hub(upstream, journal=Journal(max_messages=10), grace_seconds=1000, max_pending_bytes=20_000)
    listener = await joined(hub, "a", retained=False)
    QuickReader(listener)
    place = str(hub.position_of(listener))
    stuck = []
    for number in range(60):
        upstream.send(hub, "a", "x" * 800)
        if number % 10 == 9:
            stuck.append(await joined(hub, "a", retained=False, policy=Policy.DROP, last_event_id=place))
            stuck[-1].attach(StuckReader())
    async with asyncio.timeout(10):
        while stuck[0].close_reason is None:
            await asyncio.sleep(0.01)
    assert stuck[0].close_reason is CloseReason.SERVER_LIMIT
    assert stuck[0].replay_bytes == 0
    assert stuck[-1].close_reason is None
    await hub.close()


def test_the_stream_that_holds_most_ends_and_can_come_back(mosquitto: Mosquitto) -> None:
    """A stuck reader is told that the server met a bound, and misses nothing in the end; others go on."""
    with running_bridge(
        mosquitto.url,
        streams_max_bytes=500_000,
        listener_max_messages=10_000,
        listener_max_bytes=2**30,
        journal_max_bytes=2**30,
    ) as bridge:
        hub = bridge.app.state.hub
        with RawStream(bridge.port, "pressure/#", receive_buffer_bytes=4096, retained="false") as stuck:
            (listener,) = hub._listeners
            other = RawStream(bridge.port, "pressure/#", retained="false")
            number = 0
            while listener.close_reason is None:
                payload = {"number": number, "padding": "x" * 50_000}
                answer = bridge.client.post("/v1/publish", json={"topic": "pressure/a", "payload": payload})
                assert answer.status_code == 200
                number += 1
                other.read_messages_count(number)
                assert number < 5000
            stuck.read_to_end()
            assert stuck.has_ended
            assert stuck.events[-1].json == {"reason": "server_limit", "may_reconnect": True}
            wait_until(lambda: hub.listeners == 1)
            assert hub.ended == {CloseReason.SERVER_LIMIT: 1}
            with other:
                assert [each["number"] for each in other.payloads] == list(range(number))
        with RawStream(bridge.port, "pressure/#", last_event_id=stuck.last_event_id) as back:
            back.read_messages_count(number - len(stuck.messages))
            found = [each["number"] for each in [*stuck.payloads, *back.payloads]]
            assert found == list(range(number))
            assert back.named("gap") == []
