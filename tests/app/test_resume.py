"""Coming back to the hub with the last event id: what was missed, once, in order, and no hole in silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.hub.event import ControlEvent, Event
from app.hub.filter_sets import digest_of
from app.hub.hub import Hub
from app.hub.journal import Journal
from app.hub.listener import CloseReason, Listener
from app.hub.position import Epoch, Position
from tests.support.hub import QuickReader, RecordedUpstream, copy, id_of, joined, settle, story, taken
from tidegate.errors import NotConnectedError

GRACE_SECONDS = 1000.0
"""Longer than any test lasts."""


@pytest.fixture(params=[True, False], ids=["identifiers", "no identifiers"])
def upstream(request: pytest.FixtureRequest) -> RecordedUpstream:
    """A broker, with subscription identifiers and without."""
    return RecordedUpstream(has_identifiers=request.param)


def hub_of(upstream: RecordedUpstream, **journal: Any) -> Hub:
    """A hub that keeps filters up for clients that may come back."""
    return Hub(upstream, journal=Journal(**journal), grace_seconds=GRACE_SECONDS)


async def came_and_left(hub: Hub, *filters: str, **options: Any) -> str:
    """A client that joined and left again; what it brings back."""
    listener = await joined(hub, *filters, **{"retained": False, **options})
    hub.leave(listener)
    return str(hub.position_of(listener))


# What comes back.


async def test_what_was_missed_comes_first_and_then_what_is_live(upstream: RecordedUpstream) -> None:
    """Nothing missing, nothing twice, and no word about it."""
    hub = hub_of(upstream)
    first = await joined(hub, "a", retained=False)
    for number in (1, 2, 3):
        upstream.send(hub, "a", str(number))
    saw = [each for each in taken(first) if isinstance(each, Event)][1]
    hub.leave(first)
    upstream.send(hub, "a", "4")
    second = await joined(hub, "a", retained=False, last_event_id=id_of(hub, first, saw))
    upstream.send(hub, "a", "5")
    assert story(taken(second)) == [("a", "3"), ("a", "4"), ("a", "5")]
    assert len(upstream.calls) == 1


async def test_the_ids_stay_those_of_the_first_time(upstream: RecordedUpstream) -> None:
    """A replayed event has the id that it had for everybody else."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    other = await joined(hub, "a", retained=False)
    upstream.send(hub, "a", "1")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    (seen_by_other,), (replayed,) = taken(other), taken(back)
    assert isinstance(replayed, Event)
    assert replayed is seen_by_other


async def test_who_saw_everything_gets_nothing_again(upstream: RecordedUpstream) -> None:
    """Coming back at once is no event at all, and asks nothing of the broker."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", "b")
    upstream.taken_calls()
    back = await joined(hub, "a", "b", last_event_id=last_event_id)
    assert (story(taken(back)), upstream.calls) == ([], [])


async def test_a_stream_that_saw_no_message_can_be_resumed(upstream: RecordedUpstream) -> None:
    """The position that joining gives is enough to come back with."""
    hub = hub_of(upstream)
    quiet = Listener(["a"], retained=False)
    position = await hub.join(quiet)
    hub.leave(quiet)
    upstream.send(hub, "a", "1")
    back = await joined(hub, "a", retained=False, last_event_id=str(position))
    assert story(taken(back)) == [("a", "1")]


async def test_the_position_of_a_joiner_is_before_its_first_event(upstream: RecordedUpstream) -> None:
    """Whoever joins while messages arrive, and leaves before reading any, comes back to all of them."""
    hub = hub_of(upstream)
    await joined(hub, "a", retained=False)
    upstream.gate.clear()
    listener = Listener(["a", "b"], retained=False)
    joining = asyncio.create_task(hub.join(listener))
    while len(upstream.calls) < 2:
        await asyncio.sleep(0)
    upstream.send(hub, "a", "1")
    upstream.gate.set()
    position = await joining
    upstream.send(hub, "b", "2")
    assert story(taken(listener)) == [("a", "1"), ("b", "2")]
    hub.leave(listener)
    back = await joined(hub, "a", "b", retained=False, last_event_id=str(position))
    assert story(taken(back)) == [("a", "1"), ("b", "2")]


async def test_messages_that_arrive_while_coming_back_are_neither_lost_nor_doubled(
    upstream: RecordedUpstream,
) -> None:
    """The broker may take its time over retained messages; live ones go on meanwhile."""
    hub = hub_of(upstream)
    last_event_id = f"{await came_and_left(hub, 'a', retained=True)}-r"
    upstream.send(hub, "a", "1")
    upstream.gate.clear()
    back = Listener(["a"])
    joining = asyncio.create_task(hub.join(back, last_event_id))
    while len(upstream.calls) < 2:
        await asyncio.sleep(0)
    before = upstream.identifiers["a"][0]
    hub.deliver(copy("a", "2", *([before] if upstream.has_identifiers else [])))
    upstream.send(hub, "a", "2", retain=True)
    upstream.send(hub, "a", "3")
    upstream.gate.set()
    await joining
    upstream.send(hub, "a", "4")
    found = story(taken(back))
    assert [each for each in found if not each[1].endswith("-r")] == [("a", str(n)) for n in range(1, 5)]
    assert found.count(("a", "2-r")) == upstream.has_identifiers


async def test_a_replay_is_taken_in_bounded_pieces(upstream: RecordedUpstream) -> None:
    """A client that missed a lot costs no more at once than one that is slow."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    for number in range(300):
        upstream.send(hub, "a", f"{number:05d}" + "x" * 995)
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    found: list[Event] = []
    while events := back.take(20_000):
        assert sum(len(each.message.payload) for each in events[:-1] if isinstance(each, Event)) < 20_000
        found += [each for each in events if isinstance(each, Event)]
    assert [int(each.message.payload[:5]) for each in found] == list(range(300))


async def test_a_limit_counts_what_is_replayed(upstream: RecordedUpstream) -> None:
    """However much was missed, no more than the limit comes, and then the end."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    for number in range(1000):
        upstream.send(hub, "a", str(number))
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id, limit=300)
    reader = QuickReader(back)
    assert story(reader.events) == [("a", str(number)) for number in range(300)]
    assert back.close_reason is not None
    assert back.close_reason.reason == "limit"
    assert not back.is_due


async def test_a_large_replay_is_not_bounded_by_the_buffer(upstream: RecordedUpstream) -> None:
    """The journal bounds it, so that a client that was away can always catch up."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    for number in range(100):
        upstream.send(hub, "a", str(number))
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id, max_messages=2, max_bytes=500)
    reader = QuickReader(back)
    assert story(reader.events) == [("a", str(number)) for number in range(100)]
    assert back.close_reason is None


# Several filters.


@pytest.mark.parametrize("first", [("a/#", "a/+", "a/b"), ("a/b", "a/#", "a/+")])
@pytest.mark.parametrize("second", [("a/#", "a/+", "a/b"), ("a/+", "a/b", "a/#")])
@pytest.mark.parametrize("cut", range(7))
async def test_overlapping_filters_are_replayed_once(
    upstream: RecordedUpstream, first: tuple[str, ...], second: tuple[str, ...], cut: int
) -> None:
    """Whichever of the broker's copies was seen last, and in whatever order the filters are named."""
    hub = hub_of(upstream)
    before = Listener(first, retained=False)
    position = await hub.join(before)
    for number in range(6):
        copies = (("a/b", "a/+", "a/#"), ("a/#", "a/b", "a/+"))[number % 2]
        upstream.send(hub, "a/b", str(number), *copies)
    events = taken(before)
    assert story(events) == [("a/b", str(number)) for number in range(6)]
    hub.leave(before)
    last_event_id = id_of(hub, before, events[cut - 1]) if cut > 0 else str(position)
    back = await joined(hub, *second, retained=False, last_event_id=last_event_id)
    upstream.send(hub, "a/b", "6", "a/b", "a/+", "a/#")
    assert story(taken(back)) == [("a/b", str(number)) for number in range(cut, 7)]


async def test_copies_on_both_sides_of_coming_back_are_one_message() -> None:
    """One of a broker's copies arrives before, the other after: the message comes once all the same."""
    for order in (("a/#", "a/b"), ("a/b", "a/#")):
        upstream = RecordedUpstream()
        hub = hub_of(upstream)
        last_event_id = await came_and_left(hub, "a/b", "a/#")
        upstream.send(hub, "a/b", "1", order[0])
        back = await joined(hub, "a/#", "a/b", retained=False, last_event_id=last_event_id)
        upstream.send(hub, "a/b", "1", order[1])
        upstream.send(hub, "a/b", "2", *order)
        assert story(taken(back)) == [("a/b", "1"), ("a/b", "2")], order


async def test_filters_are_replayed_in_the_order_of_arrival(upstream: RecordedUpstream) -> None:
    """As one stream, not filter by filter."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", "b")
    for number in range(6):
        upstream.send(hub, "ab"[number % 2], str(number))
    back = await joined(hub, "b", "a", retained=False, last_event_id=last_event_id)
    assert story(taken(back)) == [("ab"[number % 2], str(number)) for number in range(6)]


async def test_what_only_others_follow_is_not_replayed(upstream: RecordedUpstream) -> None:
    """A client gets its own filters' messages, whatever else the journal holds."""
    hub = hub_of(upstream)
    await joined(hub, "#", retained=False)
    last_event_id = await came_and_left(hub, "a")
    upstream.send(hub, "a", "1", "#", "a")
    upstream.send(hub, "b", "2", "#")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert story(taken(back)) == [("a", "1")]


async def test_a_filter_added_since_is_told(upstream: RecordedUpstream) -> None:
    """What came of it before is not known; the others go on without a hole."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    upstream.send(hub, "a", "1")
    back = await joined(hub, "b", "a", retained=False, last_event_id=last_event_id)
    upstream.send(hub, "b", "2")
    assert story(taken(back)) == [("gap", "not_kept"), ("a", "1"), ("b", "2")]


async def test_a_filter_added_since_that_others_follow_is_told(upstream: RecordedUpstream) -> None:
    """The journal may have all of it, and still this client was told nothing: its values are brought too."""
    hub = hub_of(upstream)
    await joined(hub, "b")
    last_event_id = await came_and_left(hub, "a", retained=True)
    upstream.send(hub, "a", "1")
    upstream.taken_calls()
    back = Listener(["a", "b"])
    assert str(await hub.join(back, last_event_id)) == last_event_id
    assert upstream.calls == [("subscribe", "b", 1, True)]
    upstream.send(hub, "b", "2", retain=True)
    events = taken(back)
    assert story(events) == [("gap", "not_kept"), ("a", "1"), ("b", "2-r")]
    assert isinstance(events[0], ControlEvent)
    assert events[0].facts == {"reason": "not_kept", "last_event_id": last_event_id, "filters": ["b"]}


async def test_a_filter_left_and_taken_up_again_is_told(upstream: RecordedUpstream) -> None:
    """What came of it in between went by unseen, and is not taken for seen."""
    hub = hub_of(upstream)
    both = await came_and_left(hub, "a", "b")
    one = Listener(["a"], retained=False)
    assert (await hub.join(one, both)).filters == one.digest
    assert taken(one) == []
    upstream.send(hub, "b", "1")
    upstream.send(hub, "a", "2")
    (seen,) = taken(one)
    hub.leave(one)
    upstream.send(hub, "a", "3")
    upstream.taken_calls()
    back = await joined(hub, "a", "b", last_event_id=id_of(hub, one, seen))
    assert upstream.calls == [("subscribe", "b", 1, True)]
    assert story(taken(back)) == [("gap", "not_kept"), ("a", "3")]


async def test_with_fewer_filters_nothing_is_lacking(upstream: RecordedUpstream) -> None:
    """And nothing is asked of the broker."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", "b", "c", retained=True)
    upstream.send(hub, "b", "1")
    upstream.taken_calls()
    back = await joined(hub, "b", "a", last_event_id=last_event_id)
    assert (story(taken(back)), upstream.calls) == ([("b", "1")], [])


async def test_a_gap_that_was_not_read_is_told_again(upstream: RecordedUpstream) -> None:
    """The place in front of it is that of the earlier filters; that of the gap is that of the new ones."""
    hub = hub_of(upstream)
    await joined(hub, "b", retained=False)
    last_event_id = await came_and_left(hub, "a")
    cut = Listener(["a", "b"], retained=False)
    position = await hub.join(cut, last_event_id)
    (gap,) = taken(cut)
    assert gap.sequence
    hub.leave(cut)
    again = await joined(hub, "a", "b", retained=False, last_event_id=str(position))
    assert story(taken(again)) == [("gap", "not_kept")]
    after = await joined(hub, "a", "b", retained=False, last_event_id=id_of(hub, cut, gap))
    assert taken(after) == []


async def test_filters_that_are_not_known_any_more_are_all_told(upstream: RecordedUpstream) -> None:
    """The hub remembers the sets of late alone: a gap too many, and none too few."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", "b")
    place, _, _ = last_event_id.partition("-")
    upstream.send(hub, "a", "1")
    back = await joined(hub, "a", retained=False, last_event_id=f"{place}-00000000")
    events = taken(back)
    assert story(events) == [("gap", "not_kept"), ("a", "1")]
    assert isinstance(events[0], ControlEvent)
    assert events[0].facts["filters"] == ["a"]


async def test_while_an_added_filter_is_subscribed_to_nothing_is_doubled() -> None:
    """Until the broker has taken the added filter nobody knows for which of them its copies are.

    What is lost then is lost after a gap, and not in silence.
    """
    upstream = RecordedUpstream()
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a/b")
    upstream.gate.clear()
    back = Listener(["a/b", "a/#"], retained=False)
    joining = asyncio.create_task(hub.join(back, last_event_id))
    while len(upstream.calls) < 2:
        await asyncio.sleep(0)
    upstream.send(hub, "a/b", "1", "a/b")
    upstream.send(hub, "a/b", "2", "a/b", "a/#")
    upstream.gate.set()
    await joining
    upstream.send(hub, "a/b", "3", "a/b", "a/#")
    gap, *messages = story(taken(back))
    assert gap == ("gap", "not_kept")
    assert [each for each in messages if each != ("a/b", "1")] == [("a/b", "2"), ("a/b", "3")]


async def test_a_shared_subscription_is_not_replayed(upstream: RecordedUpstream) -> None:
    """Another member of the share had it meanwhile; the gap is told, and the own filters are replayed."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "$share/g/a", "b")
    upstream.send(hub, "a", "1", "$share/g/a")
    upstream.send(hub, "b", "2")
    assert len(hub.journal) == 1
    back = await joined(hub, "$share/g/a", "b", retained=False, last_event_id=last_event_id)
    upstream.send(hub, "a", "3", "$share/g/a")
    assert story(taken(back)) == [("gap", "not_kept"), ("b", "2"), ("a", "3")]


async def test_a_higher_qos_is_asked_for_on_coming_back(upstream: RecordedUpstream) -> None:
    """What was missed comes all the same, and there is no gap."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", qos=0)
    upstream.send(hub, "a", "1")
    upstream.taken_calls()
    back = await joined(hub, "a", retained=False, qos=2, last_event_id=last_event_id)
    assert upstream.calls == [("subscribe", "a", 2, False)]
    upstream.send(hub, "a", "2")
    assert story(taken(back)) == [("a", "1"), ("a", "2")]


# Gaps.


@pytest.mark.parametrize(
    "last_event_id",
    [
        *("x-7", "7", " ", "\x00", "{place}", "{place}-x", "{place}-{filters}-r-r"),
        *("{another}-{filters}", "{future}-{filters}"),
    ],
)
async def test_an_unknown_id_is_told_and_replays_nothing(
    upstream: RecordedUpstream, last_event_id: str
) -> None:
    """Another run's, one from the future, or no id at all: the stream begins anew, and says so first."""
    hub = hub_of(upstream)
    other = await joined(hub, "a", retained=False)
    upstream.send(hub, "a", "1")
    places = {"place": hub.epoch.place(1), "another": Epoch().place(1), "future": hub.epoch.place(999)}
    given = last_event_id.format(
        filters=other.digest, **{name: place.decode() for name, place in places.items()}
    )
    back = await joined(hub, "a", last_event_id=given)
    upstream.send(hub, "a", "1", retain=True)
    upstream.send(hub, "a", "2")
    events = taken(back)
    assert story(events) == [("gap", "unknown_id"), ("a", "1-r"), ("a", "2")]
    assert isinstance(events[0], ControlEvent)
    assert events[0].facts["last_event_id"] == given
    assert events[0].sequence == events[1].sequence - 1


async def test_what_the_journal_has_let_go_is_told(upstream: RecordedUpstream) -> None:
    """The gap stands in front of what is left."""
    hub = hub_of(upstream, max_messages=2)
    last_event_id = await came_and_left(hub, "a")
    for number in range(4):
        upstream.send(hub, "a", str(number))
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    events = taken(back)
    assert story(events) == [("gap", "not_kept"), ("a", "2"), ("a", "3")]
    assert events[0].sequence == events[1].sequence - 1


async def test_who_was_told_of_a_gap_is_not_told_again(upstream: RecordedUpstream) -> None:
    """The gap has an id of its own; who comes back with it goes on from there."""
    hub = hub_of(upstream, max_messages=2)
    last_event_id = await came_and_left(hub, "a")
    for number in range(4):
        upstream.send(hub, "a", str(number))
    first = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    gap = taken(first)[0]
    hub.leave(first)
    stands = id_of(hub, first, gap)
    back = await joined(hub, "a", retained=False, last_event_id=stands)
    assert story(taken(back)) == [("a", "2"), ("a", "3")]


async def test_a_filter_that_was_dropped_is_told(upstream: RecordedUpstream) -> None:
    """After the grace nobody followed it, and what came then is not known."""
    hub = Hub(upstream, journal=Journal(), grace_seconds=0)
    last_event_id = await came_and_left(hub, "a")
    await settle()
    assert upstream.taken_calls()[-1] == ("unsubscribe", "a")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    upstream.send(hub, "a", "1")
    assert story(taken(back)) == [("gap", "not_kept"), ("a", "1")]


async def test_who_was_told_of_a_dropped_filter_is_not_told_again(upstream: RecordedUpstream) -> None:
    """The id of the gap is that of the moment when the filter was followed again."""
    hub = Hub(upstream, journal=Journal(), grace_seconds=0)
    last_event_id = await came_and_left(hub, "a")
    await settle()
    await joined(hub, "b", retained=False)
    first = await joined(hub, "a", "b", retained=False, last_event_id=last_event_id)
    await joined(hub, "a", retained=False)
    (gap,) = taken(first)
    hub.leave(first)
    stands = id_of(hub, first, gap)
    back = await joined(hub, "a", "b", retained=False, last_event_id=stands)
    upstream.send(hub, "a", "1")
    assert story(taken(back)) == [("a", "1")]


async def test_a_filter_that_was_dropped_and_joined_by_others_is_told(upstream: RecordedUpstream) -> None:
    """Even where the hub has seen no other message since the client left."""
    hub = Hub(upstream, journal=Journal(), grace_seconds=0)
    last_event_id = await came_and_left(hub, "a")
    await settle()
    assert upstream.taken_calls()[-1] == ("unsubscribe", "a")
    # what is published now, nobody sees
    await joined(hub, "a", retained=False)
    upstream.send(hub, "a", "1")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert story(taken(back)) == [("gap", "not_kept"), ("a", "1")]


async def test_a_filter_that_the_broker_took_back_and_granted_again_is_told(
    upstream: RecordedUpstream,
) -> None:
    """Between the two nobody followed it."""
    hub = hub_of(upstream)
    refused = await joined(hub, "a", retained=False)
    hub.broker_down("it was closed")
    hub.broker_up(session_present=False, refused=(("a", 0x87),))
    last_event_id = str(hub.position_of(refused))
    await joined(hub, "a", retained=False)
    upstream.send(hub, "a", "1")
    hub.leave(refused)
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert story(taken(back)) == [("gap", "not_kept"), ("a", "1")]


async def test_messages_while_nobody_is_remembered_are_no_silent_hole(upstream: RecordedUpstream) -> None:
    """A reader of retained messages keeps nothing; who joins while it is there begins where it joined."""
    hub = hub_of(upstream)
    upstream.gate.clear()
    collector = Listener(["a"], is_resumable=False)
    reading = asyncio.create_task(hub.join(collector))
    other = Listener(["a"], retained=False)
    last_event_id = str(Position(hub.epoch, 1, digest_of(other.filters)))
    joining = asyncio.create_task(hub.join(other))
    while not upstream.calls:
        await asyncio.sleep(0)
    upstream.send(hub, "a", "1")
    upstream.gate.set()
    await asyncio.gather(reading, joining)
    upstream.send(hub, "a", "2")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    found = story(taken(back))
    assert found in (
        [("a", "1"), ("a", "2")],
        [("gap", "not_kept"), ("a", "2")],
        [("gap", "not_kept"), ("a", "1"), ("a", "2")],
    )


async def test_a_lost_broker_connection_is_told_to_who_was_away(upstream: RecordedUpstream) -> None:
    """A broker sends nothing for the time without a connection; what is kept comes too."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    upstream.send(hub, "a", "1")
    hub.broker_down("it was closed")
    hub.broker_up(session_present=False)
    upstream.send(hub, "a", "2")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert story(taken(back)) == [("gap", "broker_connection"), ("a", "1"), ("a", "2")]


async def test_a_lost_connection_whose_session_the_broker_kept_is_no_gap(upstream: RecordedUpstream) -> None:
    """It sends what was missed by itself."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    hub.broker_down("it was closed")
    hub.broker_up(session_present=True)
    upstream.send(hub, "a", "1")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert story(taken(back)) == [("a", "1")]


async def test_who_saw_the_gap_of_a_lost_connection_is_not_told_again(upstream: RecordedUpstream) -> None:
    """It was told on the stream, under an id of its own."""
    hub = hub_of(upstream)
    first = await joined(hub, "a", retained=False)
    hub.broker_down("it was closed")
    hub.broker_up(session_present=False)
    events = taken(first)
    assert story(events) == [("broker", "it was closed"), ("broker", "up"), ("gap", "broker_connection")]
    hub.leave(first)
    stands = id_of(hub, first, events[-1])
    back = await joined(hub, "a", retained=False, last_event_id=stands)
    upstream.send(hub, "a", "1")
    assert story(taken(back)) == [("a", "1")]


async def test_coming_back_while_the_broker_is_away_is_told(upstream: RecordedUpstream) -> None:
    """The stream opens with what was kept, says that the broker is away, and goes on when it is back."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    upstream.send(hub, "a", "1")
    hub.broker_down("it was closed")
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    hub.broker_up(session_present=False)
    upstream.send(hub, "a", "2")
    assert story(taken(back)) == [
        ("a", "1"),
        ("broker", "it was closed"),
        ("broker", "up"),
        ("gap", "broker_connection"),
        ("a", "2"),
    ]


# Retained messages.


async def test_retained_messages_are_not_asked_for_again(upstream: RecordedUpstream) -> None:
    """Who had them and missed nothing has the newest values already."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", retained=True)
    upstream.taken_calls()
    back = await joined(hub, "a", last_event_id=last_event_id)
    assert upstream.calls == []
    assert not back.lacks_retained


async def test_retained_messages_that_may_not_all_have_come_are_asked_for(upstream: RecordedUpstream) -> None:
    """The mark in the id says so."""
    hub = hub_of(upstream)
    last_event_id = f"{await came_and_left(hub, 'a', retained=True)}-r"
    upstream.taken_calls()
    back = await joined(hub, "a", last_event_id=last_event_id)
    assert upstream.calls == [("subscribe", "a", 1, True)]
    assert back.lacks_retained
    upstream.send(hub, "a", "1", retain=True)
    assert story(taken(back)) == [("a", "1-r")]


async def test_the_mark_means_nothing_to_who_wants_no_retained_messages(upstream: RecordedUpstream) -> None:
    """A client may change its mind."""
    hub = hub_of(upstream)
    last_event_id = f"{await came_and_left(hub, 'a', retained=True)}-r"
    upstream.taken_calls()
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert (upstream.calls, back.lacks_retained) == ([], False)


async def test_after_a_gap_the_retained_messages_are_asked_for(upstream: RecordedUpstream) -> None:
    """The values may have changed unseen; others on the filter get nothing again."""
    hub = hub_of(upstream, max_messages=1)
    last_event_id = await came_and_left(hub, "a", retained=True)
    other = await joined(hub, "a", retained=False)
    for number in (1, 2):
        upstream.send(hub, "a", str(number))
    taken(other)
    upstream.taken_calls()
    back = await joined(hub, "a", last_event_id=last_event_id)
    assert upstream.calls == [("subscribe", "a", 1, True)]
    upstream.send(hub, "a", "2", retain=True)
    assert story(taken(back)) == [("gap", "not_kept"), ("a", "2"), ("a", "2-r")]
    assert taken(other) == []


async def test_only_the_filters_with_a_gap_are_asked_again(upstream: RecordedUpstream) -> None:
    """The others lack nothing."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a", retained=True)
    upstream.taken_calls()
    await joined(hub, "a", "b", last_event_id=last_event_id)
    assert upstream.calls == [("subscribe", "b", 1, True)]


@pytest.mark.parametrize("answer", [1, 0x97, None])
async def test_a_kept_session_brings_no_retained_messages_by_itself(answer: int | None) -> None:
    """Who came back without a connection, and lacks them, gets them by a SUBSCRIBE; refused, it is told."""
    upstream = RecordedUpstream()
    hub = hub_of(upstream)
    other = await joined(hub, "a")
    last_event_id = f"{await came_and_left(hub, 'a', retained=True)}-r"
    hub.broker_down("it was closed")
    back = await joined(hub, "a", last_event_id=last_event_id)
    left = await joined(hub, "a", last_event_id=last_event_id)
    upstream.taken_calls()
    hub.broker_returns(session_present=True)
    if answer is None:
        upstream.failure = NotConnectedError("it was lost again")
    else:
        upstream.codes["a"] = answer
    hub.broker_up(session_present=True)
    hub.leave(left)
    await settle()
    assert upstream.taken_calls() == [("subscribe", "a", 1, True)]
    reasons = {1: None, 0x97: CloseReason.REFUSED, None: CloseReason.GAP}
    assert back.close_reason is reasons[answer]
    if answer == 1:
        upstream.send(hub, "a", "1", retain=True)
        told = [("broker", "it was closed"), ("broker", "up")]
        assert story(taken(back)) == [*told, ("a", "1-r")]
        assert story(taken(other)) == told
        assert hub.subscriptions == [("a", 1, 2)]


async def test_a_new_session_brings_retained_messages_by_itself(upstream: RecordedUpstream) -> None:
    """To who came back without a connection too; nothing more is asked for."""
    hub = hub_of(upstream)
    last_event_id = f"{await came_and_left(hub, 'a', retained=True)}-r"
    hub.broker_down("it was closed")
    back = await joined(hub, "a", last_event_id=last_event_id)
    upstream.taken_calls()
    hub.broker_returns(session_present=False)
    upstream.send(hub, "a", "1", retain=True)
    hub.broker_up(session_present=False)
    await settle()
    assert upstream.taken_calls() == []
    told = [("broker", "it was closed"), ("broker", "up"), ("gap", "broker_connection")]
    assert story(taken(back)) == [*told, ("a", "1-r")]


async def test_retained_copies_are_never_replayed(upstream: RecordedUpstream) -> None:
    """They were another listener's; the broker gives them for the asking."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    other = await joined(hub, "a")
    upstream.send(hub, "a", "1", retain=True)
    assert story(taken(other)) == [("a", "1-r")]
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert taken(back) == []
