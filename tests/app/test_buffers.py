"""What waits for one reader, against what it may hold and what it must tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.buffers import (
    MAX_SPARED_CONTROLS,
    Buffer,
    ConflatingBuffer,
    DroppingBuffer,
    Policy,
    make_buffer,
)
from app.hub.event import ControlEvent, Event
from app.hub.position import Epoch
from tidegate.message import Message

MANY = 2**40
SMALL = 250
"""Bytes; an event counts 200 and what it holds."""

Out = Sequence[Event | ControlEvent]


def event(sequence: int, topic: str = "a", size: int = 0) -> Event:
    """A message of this number, which counts 200 bytes, its topic's and these."""
    return Event(Message(topic, b"x" * size), Epoch(), sequence)


def numbers(events: Out) -> list[int]:
    """The numbers of the messages."""
    return [each.sequence for each in events if isinstance(each, Event)]


def told(events: Out) -> list[tuple[str, dict[str, Any]]]:
    """The control events."""
    return [(each.name, each.facts) for each in events if isinstance(each, ControlEvent)]


def put(buffer: Buffer, each: Event | ControlEvent) -> bool:
    """Add an event for a reader that takes nothing; False where the policy is to give up."""
    return buffer.add(each) or buffer.squeeze_in(each)


def fill(buffer: Buffer, *topics: str) -> list[bool]:
    """Add one message for each of these topics, numbered from 1."""
    return [put(buffer, event(number, topic)) for number, topic in enumerate(topics, 1)]


# Each policy by itself.


def test_resume_takes_until_it_is_full_in_messages() -> None:
    """One more is not taken, and what was taken is kept."""
    buffer = make_buffer(Policy.RESUME, max_messages=2, max_bytes=MANY, conflates=False)
    assert fill(buffer, "a", "a", "a") == [True, True, False]
    assert len(buffer) == 2
    assert numbers(buffer.take(MANY)) == [1, 2]
    assert put(buffer, event(4))


def test_resume_takes_until_it_is_full_in_bytes() -> None:
    """Large messages fill it as many small ones do."""
    buffer = make_buffer(Policy.RESUME, max_messages=100, max_bytes=1000, conflates=False)
    assert [put(buffer, event(number, size=299)) for number in (1, 2, 3)] == [True, True, False]
    assert buffer.size == 1000
    assert numbers(buffer.take(MANY)) == [1, 2]
    assert buffer.size == 0


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("conflates", [False, True])
def test_a_full_buffer_takes_nothing_by_itself(policy: Policy, conflates: bool) -> None:
    """Whatever the policy: first it is to be written out, since its reader may be a quick one."""
    buffer = make_buffer(policy, max_messages=2, max_bytes=MANY, conflates=conflates)
    assert [buffer.add(event(number, topic)) for number, topic in enumerate("abc", 1)] == [True, True, False]
    found = buffer.take(MANY)
    assert (numbers(found), told(found)) == ([1, 2], [])
    assert buffer.add(event(3, "c"))


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("conflates", [False, True])
def test_an_event_larger_than_the_bound_is_taken_alone(policy: Policy, conflates: bool) -> None:
    """A message that never fits would otherwise never come."""
    buffer = make_buffer(policy, max_messages=10, max_bytes=SMALL, conflates=conflates)
    assert put(buffer, event(1, size=5000))
    second = put(buffer, event(2, "b"))
    assert second is (policy is not Policy.RESUME)
    found = buffer.take(MANY)
    if policy is Policy.RESUME:
        assert (numbers(found), told(found)) == ([1], [])
    else:
        assert (numbers(found), told(found)) == ([2], [("lag", {"dropped": 1})])


def test_drop_lets_the_oldest_go_and_tells_how_many() -> None:
    """The newest stay; the ``lag`` stands where the others would have been."""
    buffer = make_buffer(Policy.DROP, max_messages=2, max_bytes=MANY, conflates=False)
    assert fill(buffer, *"aaaaa") == [True] * 5
    found = buffer.take(MANY)
    assert told(found[:1]) == [("lag", {"dropped": 3})]
    assert numbers(found[1:]) == [4, 5]
    assert put(buffer, event(6))
    assert told(buffer.take(MANY)) == []


def test_drop_is_bounded_in_bytes() -> None:
    """One large message may cost several small ones."""
    buffer = make_buffer(Policy.DROP, max_messages=100, max_bytes=1000, conflates=False)
    fill(buffer, *"aaaa")
    assert buffer.size == 4 * 201
    put(buffer, event(5, size=500))
    assert buffer.size == 201 + 701
    found = buffer.take(MANY)
    assert (told(found), numbers(found)) == ([("lag", {"dropped": 3})], [4, 5])


@pytest.mark.parametrize("policy", [Policy.DROP, Policy.LATEST])
def test_control_events_outlive_their_place(policy: Policy) -> None:
    """What was said about the stream is said, whatever messages are let go; it does not count as one."""
    buffer = make_buffer(policy, max_messages=2, max_bytes=MANY, conflates=False)
    put(buffer, event(1, "a"))
    put(buffer, ControlEvent("broker", {"state": "down"}))
    for number, topic in enumerate("bcde", 2):
        put(buffer, event(number, topic))
    found = buffer.take(MANY)
    assert told(found) == [("lag", {"dropped": 3}), ("broker", {"state": "down"})]
    assert numbers(found) == [4, 5]


def test_control_events_that_outlive_their_place_are_bounded() -> None:
    """A reader that never reads costs no more memory however often the broker goes and comes."""
    buffer = make_buffer(Policy.DROP, max_messages=1, max_bytes=MANY, conflates=False)
    for number in range(3 * MAX_SPARED_CONTROLS):
        put(buffer, ControlEvent("broker", {"number": number}))
    found = told(buffer.take(MANY))
    last = 3 * MAX_SPARED_CONTROLS - 1
    assert [facts["number"] for _, facts in found] == list(range(last - MAX_SPARED_CONTROLS, last + 1))


def test_latest_keeps_everything_until_it_is_full() -> None:
    """A reader that keeps up misses nothing."""
    buffer = make_buffer(Policy.LATEST, max_messages=4, max_bytes=MANY, conflates=False)
    fill(buffer, *"abab")
    found = buffer.take(MANY)
    assert (numbers(found), told(found)) == ([1, 2, 3, 4], [])


def test_latest_keeps_the_newest_of_each_topic_once_it_is_full() -> None:
    """In the order of their numbers, with a count of those that newer ones replaced."""
    buffer = make_buffer(Policy.LATEST, max_messages=4, max_bytes=MANY, conflates=False)
    fill(buffer, *"abacb")
    found = buffer.take(MANY)
    assert told(found[:1]) == [("lag", {"conflated": 2})]
    assert numbers(found[1:]) == [3, 4, 5]


def test_latest_goes_on_to_conflate_until_it_was_empty() -> None:
    """A reader that takes little by little gets the newest; one that caught up gets everything again."""
    buffer = make_buffer(Policy.LATEST, max_messages=3, max_bytes=MANY, conflates=False)
    fill(buffer, *"abcc")
    assert numbers(buffer.take(1)) == [1]
    put(buffer, event(5, "c"))
    found = buffer.take(MANY)
    assert (numbers(found), told(found)) == ([2, 5], [("lag", {"conflated": 1})])
    put(buffer, event(6, "a"))
    put(buffer, event(7, "a"))
    assert numbers(buffer.take(MANY)) == [6, 7]


def test_latest_with_too_many_topics_lets_the_most_silent_go() -> None:
    """Conflation alone does not bound a buffer; what is let go is counted apart."""
    buffer = make_buffer(Policy.LATEST, max_messages=2, max_bytes=MANY, conflates=False)
    fill(buffer, *"abac")
    found = buffer.take(MANY)
    assert told(found) == [("lag", {"conflated": 1}), ("lag", {"dropped": 1})]
    assert numbers(found) == [3, 4]


def test_conflation_that_was_asked_for_is_silent() -> None:
    """With ``interval`` each topic has one message, and nobody is told of the others."""
    buffer = make_buffer(Policy.RESUME, max_messages=3, max_bytes=MANY, conflates=True)
    fill(buffer, *"ababa")
    assert len(buffer) == 2
    found = buffer.take(MANY)
    assert (numbers(found), told(found)) == ([4, 5], [])
    fill(buffer, *"aa")
    assert numbers(buffer.take(MANY)) == [2]


def test_conflation_with_the_policy_resume_is_full_when_topics_are_too_many() -> None:
    """Then the reader is too slow, and is told so; nothing is let go in silence."""
    buffer = make_buffer(Policy.RESUME, max_messages=2, max_bytes=MANY, conflates=True)
    assert fill(buffer, *"abac") == [True, True, True, False]
    assert numbers(buffer.take(MANY)) == [2, 3]


@pytest.mark.parametrize("conflates", [False, True])
@pytest.mark.parametrize("policy", Policy)
def test_the_first_number_is_that_of_the_oldest_message(policy: Policy, conflates: bool) -> None:
    """A client that saw nothing yet stands right before it."""
    buffer = make_buffer(policy, max_messages=10, max_bytes=MANY, conflates=conflates)
    assert buffer.first_sequence is None
    put(buffer, ControlEvent("broker", {}))
    assert buffer.first_sequence is None
    for number in (7, 8):
        put(buffer, event(number, str(number)))
    assert buffer.first_sequence == 7


# All of them, whatever happens.

Operation = tuple[str, int, int]

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.integers(0, 3), st.integers(0, 600)),
        st.tuples(st.just("message"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("take"), st.integers(0, 1500), st.just(0)),
        st.tuples(st.just("control"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Run:
    """One buffer and all that was done with it.

    Attributes:
        given: the messages that it took, in order.
        out: everything that it gave away, in order.
        controls: the control events that it took.
        refused: how many events it did not take.
    """

    def __init__(self, buffer: Buffer, operations: list[Operation]) -> None:
        self.buffer = buffer
        self.given: list[Event] = []
        self.controls: list[ControlEvent] = []
        self.out: list[Event | ControlEvent] = []
        self.refused = 0
        self.overflowed = False
        for kind, first, second in operations:
            if kind == "message":
                self._add(event(len(self.given) + 1, f"topic/{first}", second))
            elif kind == "take":
                self._take(first)
            elif len(self.controls) < MAX_SPARED_CONTROLS:
                self._add(ControlEvent("broker", {"number": len(self.controls)}))
        while buffer:
            self._take(SMALL)
        assert buffer.take(MANY) == []

    def _add(self, each: Event | ControlEvent) -> None:
        buffer = self.buffer
        is_full = len(buffer) >= buffer.max_messages or buffer.size + each.size > buffer.max_bytes
        self.overflowed = self.overflowed or is_full
        if not put(buffer, each):
            assert len(buffer) > 0
            assert is_full
            self.refused += 1
            return
        if isinstance(each, Event):
            self.given.append(each)
        else:
            self.controls.append(each)
        assert len(buffer) <= buffer.max_messages
        assert buffer.size <= buffer.max_bytes or len(buffer) == 1

    def _take(self, max_bytes: int) -> None:
        held = len(self.buffer)
        found = self.buffer.take(max_bytes)
        assert bool(found) or not held
        taken = [each for each in found if not (isinstance(each, ControlEvent) and each.name == "lag")]
        assert not taken or sum(each.size for each in taken[:-1]) <= max(max_bytes, 200 * MAX_SPARED_CONTROLS)
        self.out += found

    @property
    def lost(self) -> int:
        """How many messages ``lag`` events told of."""
        lags = [facts for name, facts in told(self.out) if name == "lag"]
        return sum(sum(facts.values()) for facts in lags)

    def check_what_every_policy_keeps(self) -> None:
        """Order, no double, every control event once and in order, and every loss told exactly."""
        found = numbers(self.out)
        assert found == sorted(set(found))
        assert [each for each in self.out if each in self.controls] == self.controls
        assert len(found) + self.lost == len(self.given)
        for index, each in enumerate(self.out):
            if isinstance(each, ControlEvent) and each.name == "lag":
                assert all(count > 0 for count in each.facts.values())
                assert index + 1 < len(self.out)


@given(OPERATIONS, st.integers(1, 6), st.integers(200, 1500))
def test_resume_gives_exactly_what_it_took(
    operations: list[Operation], max_messages: int, max_bytes: int
) -> None:
    """In order, in whatever pieces, and full only when it is."""
    run = Run(Buffer(max_messages, max_bytes), operations)
    run.check_what_every_policy_keeps()
    assert run.lost == 0
    assert [each for each in run.out if isinstance(each, Event)] == run.given


@given(OPERATIONS, st.integers(1, 6), st.integers(200, 1500))
def test_drop_tells_each_hole_where_it_is(
    operations: list[Operation], max_messages: int, max_bytes: int
) -> None:
    """Before each message stands how many are missing between it and the one before, and never another
    number.
    """
    run = Run(DroppingBuffer(max_messages, max_bytes), operations)
    run.check_what_every_policy_keeps()
    assert run.refused == 0
    last, missing = 0, 0
    for each in run.out:
        if isinstance(each, Event):
            assert each.sequence - last - 1 == missing
            last, missing = each.sequence, 0
        elif each.name == "lag":
            missing += each.facts["dropped"]
    assert last + missing == len(run.given)
    assert run.overflowed or run.lost == 0


@given(OPERATIONS, st.integers(1, 6), st.integers(200, 1500))
def test_latest_ends_with_the_newest_of_each_topic(
    operations: list[Operation], max_messages: int, max_bytes: int
) -> None:
    """Nothing is lost that was the newest of its topic, but where topics alone are too many."""
    run = Run(ConflatingBuffer(max_messages, max_bytes), operations)
    run.check_what_every_policy_keeps()
    assert run.refused == 0
    assert run.overflowed or run.lost == 0
    newest = {each.message.topic: each.sequence for each in run.given}
    lags = [facts for name, facts in told(run.out) if name == "lag"]
    if not any("dropped" in facts for facts in lags):
        assert set(newest.values()) <= set(numbers(run.out))


@given(OPERATIONS, st.integers(1, 6), st.integers(200, 1500), st.booleans())
def test_conflation_from_the_start_gives_a_topic_once_in_a_take(
    operations: list[Operation], max_messages: int, max_bytes: int, gives_up: bool
) -> None:
    """At any time one message a topic is held, and it is the newest; all of them come with a take."""
    buffer = ConflatingBuffer(max_messages, max_bytes, always=True, gives_up=gives_up)
    newest: dict[str, int] = {}
    operations = [each for each in operations if each[0] != "control"]
    for index, (kind, first, second) in enumerate([*operations, ("take", 0, 0)]):
        if kind == "message":
            each = event(index, f"topic/{first}", second)
            newest[each.message.topic] = index
            if not put(buffer, each):
                assert gives_up
                del newest[each.message.topic]  # the stream ends now, and goes on from the journal
                break
        else:
            found = buffer.take(MANY)
            dropped = sum(facts["dropped"] for _, facts in told(found))
            topics = [each.message.topic for each in found if isinstance(each, Event)]
            assert len(newest) - dropped <= len(topics) == len(set(topics)) <= len(newest)
            assert all(
                newest[each.message.topic] == each.sequence for each in found if isinstance(each, Event)
            )
            assert numbers(found) == sorted(numbers(found))
            assert not (gives_up and dropped)
            newest.clear()
    assert set(newest.values()) <= set(numbers(buffer.take(MANY)))
