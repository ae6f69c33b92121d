"""Which copy counts while two connections are subscribed to the same, in whatever order copies come."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate import overlap
from tidegate.connection import Subscription
from tidegate.errors import QueueFullError
from tidegate.message import Message, Properties
from tidegate.overlap import Overlap

MARKER = "marker"
FILTERS = [Subscription("a/#", qos=1), Subscription("$share/g/s/#", qos=1)]

messages = st.lists(
    st.tuples(st.sampled_from(["a/1", "a/2"]), st.sampled_from([b"on", b"off"]), st.sampled_from([0, 1, 2])),
    max_size=12,
)


def queued(sequence: list[Message], choices: Iterator[bool]) -> list[Message]:
    """How a queue of the broker's is received: each QoS keeps its order, and may overtake the others."""
    kinds = [[each for each in sequence if each.qos == qos] for qos in range(3)]
    received: list[Message] = []
    while left := [kind for kind in kinds if kind]:
        while len(left) > 1 and next(choices):
            left.pop(0)
        received.append(left[0].pop(0))
    return received


@given(before=messages, between=messages, behind=messages, rest=messages, data=st.data())
def test_each_message_counts_once(
    before: list[tuple[str, bytes, int]],
    between: list[tuple[str, bytes, int]],
    behind: list[tuple[str, bytes, int]],
    rest: list[tuple[str, bytes, int]],
    data: st.DataObject,
) -> None:
    """Messages that are alike too, whatever overtakes what, and whichever connection is ahead."""

    def choices() -> Iterator[bool]:
        while True:
            yield data.draw(st.booleans())

    async def work() -> None:
        delivered: list[Message] = []
        found = Overlap(delivered.append, FILTERS, MARKER)
        parts = [[Message(*each) for each in part] for part in (before, between, behind, rest)]
        markers = [Message(MARKER, b"", qos) for qos in range(3)]
        old = queued(parts[0] + parts[1] + markers + parts[2] + parts[3], choices())
        new = queued(parts[1] + markers + parts[2] + parts[3], choices())  # subscribed behind the first part
        found.await_markers(2)
        picks = choices()
        while old or new:
            if found.is_over.done() and not found._is_committed and next(picks):
                found.commit()
            if old and (not new or next(picks)):
                found.on_old(old.pop(0))
            else:
                found.on_new(new.pop(0))
        found.is_over.result()
        if not found._is_committed:
            found.commit()
        expected = [each for part in parts for each in part]
        assert Counter(expected) == Counter(delivered)
        for topic in ("a/1", "a/2"):
            for qos in range(3):
                kind = [
                    [each.payload for each in many if (each.topic, each.qos) == (topic, qos)]
                    for many in (expected, delivered)
                ]
                assert kind[0] == kind[1]

    asyncio.run(work())


@given(before=messages, between=messages, data=st.data())
def test_nothing_is_lost_by_a_broker_without_order(
    before: list[tuple[str, bytes, int]], between: list[tuple[str, bytes, int]], data: st.DataObject
) -> None:
    """A cluster may show two subscribers messages in any order: each comes, and some come twice."""

    async def work() -> None:
        delivered: list[Message] = []
        found = Overlap(delivered.append, FILTERS, MARKER)
        first, both = ([Message(*each) for each in part] for part in (before, between))
        markers = [Message(MARKER, b"", qos) for qos in range(3)]
        old = data.draw(st.permutations([*first, *both, *markers]))
        new = data.draw(st.permutations([*both, *markers]))
        found.await_markers(2)
        for each in old:
            found.on_old(each)
        for each in new:
            found.on_new(each)
        found.commit()
        seen = set(delivered)
        assert set(both) <= seen

    asyncio.run(work())


async def test_shared_and_retained_copies() -> None:
    """A shared copy counts on either side, alike or not; a retained one on the old side alone."""
    delivered: list[Message] = []
    found = Overlap(delivered.append, FILTERS, MARKER)
    shared, kept = Message("s/1", b"x", 1), Message("a/1", b"kept", 1, retain=True)
    for each in (shared, kept):
        found.on_old(each)
        found.on_new(each)
    assert [shared, shared, kept] == delivered
    found.cut()
    found.commit()
    found.on_old(shared)
    found.on_old(Message("a/1", b"late", 1))
    assert [shared, shared, kept, shared] == delivered


async def test_identifiers_tell_a_shared_copy_from_another() -> None:
    """Where the bridge follows a topic both ways, each copy is judged by its own subscription."""
    filters = [Subscription("#", qos=1, identifier=1), Subscription("$share/g/a", qos=1, identifier=2)]
    delivered: list[Message] = []
    found = Overlap(delivered.append, filters, MARKER)
    plain = Message("a", b"", 1, subscription_identifiers=(1,))
    shared = Message("a", b"", 1, subscription_identifiers=(2,))
    for each in (plain, shared):
        found.on_old(each)
        found.on_new(each)
    found.cut()
    found.commit()
    assert Counter({plain: 1, shared: 2}) == Counter(delivered)


async def test_the_time_left_to_live_is_not_part_of_a_copy() -> None:
    """A broker counts it down, and the copy that it sends later has less of it."""
    delivered: list[Message] = []
    found = Overlap(delivered.append, FILTERS, MARKER)
    found.on_old(Message("a/1", b"x", 1, properties=Properties(message_expiry=60, content_type="t")))
    found.on_new(Message("a/1", b"x", 1, properties=Properties(message_expiry=59, content_type="t")))
    found.on_new(Message("a/1", b"x", 1, properties=Properties(message_expiry=59, content_type="other")))
    found.cut()
    found.commit()
    assert ["t", "other"] == [each.properties.content_type for each in delivered]


@pytest.mark.parametrize("bound", ["MAX_HELD", "MAX_HELD_BYTES"])
async def test_too_much_to_hold(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Beyond its bounds it gives up; the old connection's messages are delivered all the same."""
    monkeypatch.setattr(overlap, bound, 10)
    delivered: list[Message] = []
    found = Overlap(delivered.append, FILTERS, MARKER)
    found.await_markers(1)
    for number in range(6):
        found.on_new(Message("a/1", b"%d0" % number, 1))
        found.on_old(Message("a/1", b"%d1" % number, 1))
    with pytest.raises(QueueFullError):
        found.is_over.result()
    assert 6 == len(delivered)
