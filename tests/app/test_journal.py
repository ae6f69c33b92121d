"""What is kept for clients that come back, and what is no longer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub import journal as module
from app.hub.event import Event
from app.hub.journal import Journal, Track
from app.hub.position import Epoch
from tidegate.message import Message

NOW = 1_700_000_000.0
MANY = 2**40


class Clock:
    """A clock that a test sets. Attributes: ``now``, Unix time in seconds."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The journal's clock."""
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def event(sequence: int, *, size: int = 0, received_at: float | None = None) -> Event:
    """A message of this number, by default received now."""
    moment = time.time() if received_at is None else received_at
    return Event(Message("a", b"x" * size, received_at=moment), Epoch(), sequence)


def numbers(events: list[Event]) -> list[int]:
    """Their numbers."""
    return [each.sequence for each in events]


def test_a_track_gives_what_came_after() -> None:
    """In order, from just after the number that the client saw."""
    journal, track = Journal(), Track(0)
    for number in range(1, 6):
        journal.add(event(number), [track])
    assert numbers(track.after(0)) == [1, 2, 3, 4, 5]
    assert numbers(track.after(3)) == [4, 5]
    assert track.after(5) == []
    assert track.begins_after == 0


def test_the_bound_in_messages_lets_the_oldest_of_all_tracks_go() -> None:
    """Whoever's it is; its track says how far back it still reaches."""
    journal = Journal(max_messages=3)
    busy, quiet = Track(0), Track(0)
    journal.add(event(1), [quiet])
    for number in range(2, 5):
        journal.add(event(number), [busy])
    assert len(journal) == 3
    assert (quiet.after(0), quiet.begins_after) == ([], 1)
    assert (numbers(busy.after(0)), busy.begins_after) == ([2, 3, 4], 0)


def test_the_bound_in_bytes_counts_more_than_the_payload() -> None:
    """What is kept takes memory beside its payload, and all of it counts."""
    journal, track = Journal(max_bytes=10_000), Track(0)
    for number in range(1, 11):
        journal.add(event(number, size=1000), [track])
        assert journal.size <= 10_000
    assert 1 <= len(journal) < 10
    assert numbers(track.after(0)) == list(range(11 - len(journal), 11))
    assert track.begins_after == 10 - len(journal)


def test_an_event_that_never_fits_is_a_hole_that_is_told() -> None:
    """It is delivered live and not kept."""
    journal, track = Journal(max_bytes=1000), Track(0)
    journal.add(event(1), [track])
    journal.add(event(2, size=5000), [track])
    assert (len(journal), journal.size, track.after(0), track.begins_after) == (0, 0, [], 2)


def test_a_journal_of_no_messages_keeps_none() -> None:
    """And every track says so."""
    journal, track = Journal(max_messages=0), Track(0)
    journal.add(event(1), [track])
    assert (len(journal), track.after(0), track.begins_after) == (0, [], 1)


def test_the_bound_in_age(clock: Clock) -> None:
    """What is older than allowed goes as soon as the journal is touched."""
    journal, track = Journal(max_age_seconds=60), Track(0)
    for number, age in ((1, 50), (2, 30), (3, 0)):
        journal.add(event(number, received_at=NOW - age), [track])
    assert numbers(track.after(0)) == [1, 2, 3]
    clock.now += 20
    journal.trim()
    assert (numbers(track.after(0)), track.begins_after) == ([2, 3], 1)
    clock.now += 100
    journal.trim()
    assert (len(journal), journal.size, track.begins_after) == (0, 0, 3)


def test_an_event_of_two_tracks_counts_once() -> None:
    """Overlapping filters cost no more memory than one."""
    journal = Journal()
    first, second = Track(0), Track(0)
    journal.add(event(1), [first])
    alone = journal.size
    journal.add(event(2), [first, second])
    assert (len(journal), journal.size) == (2, 2 * alone)
    assert (numbers(first.after(0)), numbers(second.after(0))) == ([1, 2], [2])


def test_a_forgotten_track_takes_only_what_nobody_else_needs() -> None:
    """What another track has stays, and goes with the last of them."""
    journal = Journal()
    first, second = Track(0), Track(0)
    journal.add(event(1), [first])
    journal.add(event(2), [first, second])
    journal.add(event(3), [second])
    journal.forget(first)
    assert (len(journal), first.after(0), numbers(second.after(0))) == (2, [], [2, 3])
    journal.forget(second)
    assert (len(journal), journal.size) == (0, 0)


Operation = tuple[str, int, int]

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 7), st.integers(0, 1500)),
        st.tuples(st.just("add"), st.integers(1, 7), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 100), st.just(0)),
    ),
    max_size=60,
)


@given(OPERATIONS, st.integers(0, 6), st.integers(0, 8000), st.integers(1, 100))
def test_no_hole_is_silent(
    operations: list[Operation], max_messages: int, max_bytes: int, max_age_seconds: int
) -> None:
    """A track that claims to reach back to a number gives every event after it, whatever went meanwhile."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", clock)
        journal = Journal(
            max_messages=max_messages, max_bytes=max_bytes, max_age_seconds=float(max_age_seconds)
        )
        tracks = [Track(0) for _ in range(3)]
        everything: list[list[Event]] = [[] for _ in tracks]
        sequence = 0
        for kind, first, second in operations:
            if kind == "wait":
                clock.now += first
                continue
            if kind == "forget":
                journal.forget(tracks[first])
                tracks[first] = Track(sequence)
                everything[first] = []
            else:
                sequence += 1
                each = event(sequence, size=second, received_at=clock.now)
                chosen = [index for index in range(3) if first & 1 << index]
                journal.add(each, [tracks[index] for index in chosen])
                for index in chosen:
                    everything[index].append(each)
            assert len(journal) <= max_messages
            assert journal.size <= max_bytes or not len(journal)
            for track, all_of_it in zip(tracks, everything, strict=True):
                for position in range(track.begins_after, sequence + 1):
                    expected = [each for each in all_of_it if each.sequence > position]
                    assert track.after(position) == expected
                assert all(
                    clock.now - each.message.received_at <= max_age_seconds for each in track.events
                ) or (kind == "forget")
            kept = {each.sequence for track in tracks for each in track.events}
            assert len(journal) == len(kept)
        for track in tracks:
            journal.forget(track)
        assert (len(journal), journal.size) == (0, 0)
