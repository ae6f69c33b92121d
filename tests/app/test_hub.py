"""The hub alone, over an upstream that only records what it is asked."""

from __future__ import annotations

import asyncio

import pytest

from app.api.stream.forms import EventStreamForm
from app.hub import filters as filters_module
from app.hub.event import Event
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from tests.support.hub import (
    FailingReader,
    LeavingReader,
    RecordedUpstream,
    StuckReader,
    control_events,
    copy,
    id_of,
    joined,
    seen,
    settle,
    story,
    taken,
)
from tidegate.errors import NotAuthorizedError, RefusedError


async def test_a_filter_is_subscribed_once_and_dropped_with_its_last_listener() -> None:
    """Two listeners on one filter cost one SUBSCRIBE and one UNSUBSCRIBE, where none marks a moment."""
    upstream = RecordedUpstream(has_identifiers=False)
    hub = Hub(upstream)
    first = await joined(hub, "a/#", retained=False)
    second = await joined(hub, "a/#", retained=False)
    hub.leave(first)
    await settle()
    assert upstream.calls == [("subscribe", "a/#", 1, False)]
    hub.leave(second)
    await settle()
    assert upstream.calls[1:] == [("unsubscribe", "a/#")]
    assert hub.filters == ()


async def test_a_join_marks_its_moment_where_there_are_identifiers() -> None:
    """A listener on a filter held already is subscribed for too: what was sent before is not for it."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    early = await joined(hub, "a", retained=False)
    late = await joined(hub, "a", retained=False)
    hub.deliver(copy("a", "1", upstream.identifiers["a"][0]))
    hub.deliver(copy("a", "2", upstream.identifiers["a"][1]))
    assert seen(early) == [("a", 1, False), ("a", 2, False)]
    assert seen(late) == [("a", 2, False)]


async def test_listeners_that_join_at_once_share_a_subscribe() -> None:
    """Those that come while a SUBSCRIBE is on its way are subscribed for together by the next one."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    upstream.gate.clear()
    joining = [asyncio.create_task(joined(hub, "a", qos=number % 3)) for number in range(50)]
    await settle()
    upstream.gate.set()
    listeners = await asyncio.gather(*joining)
    assert len(upstream.calls) <= 2
    assert max(call[2] for call in upstream.calls) == 2
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1]))
    assert all(("a", 1, False) in seen(listener) for listener in listeners)


async def test_one_that_gives_up_waiting_takes_nobody_along() -> None:
    """A client that leaves during the SUBSCRIBE that it shares with others leaves alone."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    upstream.gate.clear()
    leaving = asyncio.create_task(joined(hub, "a"))
    staying = asyncio.create_task(joined(hub, "a"))
    await settle()
    leaving.cancel()
    await settle()
    upstream.gate.set()
    listener = await staying
    assert hub.listeners == 1
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1]))
    assert seen(listener) == [("a", 1, False)]


async def test_a_higher_qos_is_asked_for_and_a_lower_one_is_not() -> None:
    """The upstream subscription has the highest QoS that anybody asked for."""
    upstream = RecordedUpstream(has_identifiers=False)
    hub = Hub(upstream)
    await joined(hub, "a", retained=False, qos=1)
    await joined(hub, "a", retained=False, qos=0)
    await joined(hub, "a", retained=False, qos=2)
    assert [call[2] for call in upstream.calls] == [1, 2]


async def test_each_listener_is_told_the_qos_it_would_have_got() -> None:
    """A listener at QoS 0 on a shared QoS 1 subscription sees QoS 0."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    low = await joined(hub, "a", retained=False, qos=0)
    high = await joined(hub, "a", retained=False, qos=1)
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1], qos=1))
    form = EventStreamForm()
    assert b'"qos":0' in form.encode(taken(low), low.qos, hub.epoch, marked=False)
    assert b'"qos":1' in form.encode(taken(high), high.qos, hub.epoch, marked=False)


async def test_a_refused_filter_is_an_error_and_leaves_nothing_behind() -> None:
    """The filters granted beside a refused one are given back."""
    upstream = RecordedUpstream()
    upstream.codes["secret"] = 0x87
    hub = Hub(upstream)
    with pytest.raises(NotAuthorizedError) as caught:
        await joined(hub, "open", "secret")
    await settle()
    assert caught.value.reason_code == 0x87
    assert caught.value.topic == "secret"
    assert hub.listeners == 0
    assert hub.filters == ()
    assert ("unsubscribe", "open") in upstream.calls


async def test_a_copy_goes_to_the_listeners_of_its_own_filter() -> None:
    """With overlapping filters, each listener gets a message once."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    wide = await joined(hub, "a/#", retained=False)
    narrow = await joined(hub, "a/b", retained=False)
    hub.deliver(copy("a/b", "1", upstream.identifiers["a/#"][-1]))
    hub.deliver(copy("a/b", "1", upstream.identifiers["a/b"][-1]))
    assert seen(wide) == [("a/b", 1, False)]
    assert seen(narrow) == [("a/b", 1, False)]


async def test_a_listener_with_overlapping_filters_gets_a_message_once() -> None:
    """Of the copies for its filters, only the first filter's is kept."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a/+", "a/b", "#", retained=False)
    for topic_filter in ("#", "a/b", "a/+"):
        hub.deliver(copy("a/b", "1", upstream.identifiers[topic_filter][-1]))
    hub.deliver(copy("x", "2", upstream.identifiers["#"][-1]))
    assert seen(listener) == [("a/b", 1, False), ("x", 2, False)]


async def test_one_copy_for_several_filters_is_delivered_once() -> None:
    """A broker may send one copy with the identifiers of all matching subscriptions."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    both = await joined(hub, "a/+", "a/b", retained=False)
    one = await joined(hub, "a/b", retained=False)
    hub.deliver(copy("a/b", "1", upstream.identifiers["a/+"][-1], upstream.identifiers["a/b"][-1]))
    assert seen(both) == [("a/b", 1, False)]
    assert seen(one) == [("a/b", 1, False)]


async def test_retained_messages_reach_the_joiner_alone() -> None:
    """A late joiner makes the broker send retained messages again; nobody else sees them."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    early = await joined(hub, "a")
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1], retain=True))
    late = await joined(hub, "a")
    unwilling = await joined(hub, "a", retained=False)
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-2], retain=True))
    assert seen(early) == [("a", 1, True)]
    assert seen(late) == [("a", 1, True)]
    assert seen(unwilling) == []


async def test_a_copy_sent_before_a_listener_joined_is_not_for_it() -> None:
    """A late joiner takes copies from its own SUBSCRIBE on: retained and live neither double nor miss."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    early = await joined(hub, "a")
    before = upstream.identifiers["a"][-1]
    late = await joined(hub, "a")
    since = upstream.identifiers["a"][-1]
    hub.deliver(copy("a", "1", before))
    hub.deliver(copy("a", "1", since, retain=True))
    hub.deliver(copy("a", "2", since))
    assert seen(early) == [("a", 1, False), ("a", 2, False)]
    assert seen(late) == [("a", 1, True), ("a", 2, False)]


async def test_without_identifiers_messages_are_routed_by_matching() -> None:
    """On MQTT 3.1.1 one copy serves every filter that matches, and each listener once."""
    upstream = RecordedUpstream(has_identifiers=False)
    hub = Hub(upstream)
    both = await joined(hub, "a/+", "a/b", retained=False)
    other = await joined(hub, "b", retained=False)
    hub.deliver(copy("a/b", "1"))
    assert seen(both) == [("a/b", 1, False)]
    assert seen(other) == []


async def test_without_identifiers_retained_messages_reach_the_joiner_alone() -> None:
    """On MQTT 3.1.1 a listener that saw a topic's retained or live message does not get it again."""
    upstream = RecordedUpstream(has_identifiers=False)
    hub = Hub(upstream)
    early = await joined(hub, "a/#")
    hub.deliver(copy("a/b", "1", retain=True))
    hub.deliver(copy("a/c", "7"))
    assert seen(early) == [("a/b", 1, True), ("a/c", 7, False)]
    late = await joined(hub, "a/#")
    hub.deliver(copy("a/b", "1", retain=True))
    hub.deliver(copy("a/c", "7", retain=True))
    assert seen(early) == []
    assert seen(late) == [("a/b", 1, True), ("a/c", 7, True)]


async def test_a_shared_subscription_hands_each_message_to_one_listener() -> None:
    """Two listeners of one share get every message once between them, and no retained ones are asked for."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    one = await joined(hub, "$share/g/a")
    two = await joined(hub, "$share/g/a")
    for number in range(4):
        hub.deliver(copy("a", str(number), upstream.identifiers["$share/g/a"][-1]))
    first, second = seen(one), seen(two)
    assert sorted([*first, *second]) == [("a", number, False) for number in range(4)]
    assert len(first) == len(second) == 2
    assert upstream.calls == [("subscribe", "$share/g/a", 1, False)]


async def test_a_full_buffer_closes_its_own_listener_only() -> None:
    """A reader that is too slow is closed with that reason after what fitted; the other sees everything."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    slow = await joined(hub, "a", retained=False, max_messages=2)
    slow.attach(StuckReader())
    fast = await joined(hub, "a", retained=False)
    for number in range(3):
        hub.deliver(copy("a", str(number), upstream.identifiers["a"][-1]))
    assert slow.close_reason is CloseReason.TOO_SLOW
    assert [payload for _, payload, _ in seen(slow)] == [0, 1]
    assert [payload for _, payload, _ in seen(fast)] == [0, 1, 2]


async def test_the_buffer_is_bounded_in_bytes_too() -> None:
    """A few large messages fill a buffer as many small ones do."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False, max_bytes=10_000)
    for _ in range(3):
        hub.deliver(copy("a", "x" * 4000, upstream.identifiers["a"][-1]))
    assert listener.close_reason is CloseReason.TOO_SLOW
    assert len(seen(listener)) == 2


async def test_events_have_rising_ids_and_are_encoded_once() -> None:
    """Every listener is handed the very same bytes."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    one = await joined(hub, "a", retained=False)
    two = await joined(hub, "a", retained=False)
    form = EventStreamForm()
    written = []
    for payloads in (["1"], ["2"], ["3", "4"]):
        for payload in payloads:
            hub.deliver(copy("a", payload, upstream.identifiers["a"][-1]))
        first, second = taken(one), taken(two)
        text = form.encode(first, one.qos, hub.epoch, marked=False, filters=one.digest)
        assert text is form.encode(second, two.qos, hub.epoch, marked=False, filters=two.digest)
        written += [each for each in first if isinstance(each, Event)]
        assert text.startswith(f"id: {id_of(hub, one, written[-len(payloads)])}\n".encode())
    numbers = [each.sequence for each in written]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


async def test_streams_are_told_when_the_broker_goes_and_comes_back() -> None:
    """Down, up, and a gap where the broker kept no session; retained messages then come to all anew."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    one = await joined(hub, "a")
    two = await joined(hub, "a")
    hub.broker_down("it was closed")
    assert (
        control_events(one)
        == control_events(two)
        == [("broker", {"state": "down", "reason": "it was closed"})]
    )
    hub.broker_returns(session_present=False)
    assert taken(one) == []
    hub.broker_up(session_present=False)
    told = [("broker", {"state": "up", "session_present": False}), ("gap", {"reason": "broker_connection"})]
    assert control_events(one) == control_events(two) == told
    hub.deliver(copy("a", "5", upstream.identifiers["a"][-1], retain=True))
    assert seen(one) == seen(two) == [("a", 5, True)]
    hub.broker_up(session_present=True)
    assert [name for name, _ in control_events(one)] == ["broker"]


async def test_the_hole_is_told_before_what_comes_after_it() -> None:
    """A broker sends at once for what is subscribed to again first, and may take its time over the rest."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    other = await joined(hub, "b")
    hub.broker_down("it was closed")
    hub.broker_returns(session_present=False)
    upstream.send(hub, "a", "1")
    upstream.send(hub, "b", "2", retain=True)
    upstream.send(hub, "a", "3")
    hub.broker_up(session_present=False)
    upstream.send(hub, "a", "4")
    start = [("broker", "it was closed"), ("broker", "up"), ("gap", "broker_connection")]
    assert story(taken(listener)) == [*start, ("a", "1"), ("a", "3"), ("a", "4")]
    assert story(taken(other)) == [*start, ("b", "2-r")]


async def test_who_comes_back_after_the_hole_was_told_is_not_told_again() -> None:
    """Its place is behind the hole, although not all is subscribed to again yet; who was away is told."""
    upstream = RecordedUpstream()
    hub = Hub(upstream, grace_seconds=1000)
    listener = await joined(hub, "a", retained=False)
    before = str(hub.position_of(listener))
    hub.broker_down("it was closed")
    hub.broker_returns(session_present=False)
    upstream.send(hub, "a", "1")
    *_, message = taken(listener)
    again = await joined(hub, "a", retained=False, last_event_id=id_of(hub, listener, message))
    late = await joined(hub, "a", retained=False, last_event_id=before)
    hub.broker_up(session_present=False)
    upstream.send(hub, "a", "2")
    assert story(taken(again)) == [("a", "2")]
    assert story(taken(late)) == [("gap", "broker_connection"), ("a", "1"), ("a", "2")]


async def test_a_session_that_sends_at_once_was_kept() -> None:
    """What a broker kept comes before anybody knows that it did; there is no hole for QoS 1."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    hub.broker_down("it was closed")
    upstream.send(hub, "a", "1")
    hub.broker_returns(session_present=True)
    upstream.send(hub, "a", "2")
    hub.broker_up(session_present=True)
    assert story(taken(listener)) == [
        ("broker", "it was closed"),
        ("broker", "up"),
        ("a", "1"),
        ("a", "2"),
    ]


async def test_a_connection_lost_again_before_all_is_subscribed_to_is_told_again() -> None:
    """Each hole is told in its place; attempts that bring nothing are not told of."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    hub.broker_down("it was closed")
    hub.broker_down("it is still away")
    hub.broker_returns(session_present=False)
    upstream.send(hub, "a", "1")
    hub.broker_down("it was lost again")
    hub.broker_returns(session_present=False)
    upstream.send(hub, "a", "2")
    hub.broker_up(session_present=False)
    back = [("broker", "up"), ("gap", "broker_connection")]
    assert story(taken(listener)) == [
        ("broker", "it was closed"),
        *back,
        ("a", "1"),
        ("broker", "it was lost again"),
        *back,
        ("a", "2"),
    ]


@pytest.mark.parametrize(
    ("asked", "granted", "expected"), [(0, 0, True), (1, 1, False), (2, 1, False), (1, 0, True)]
)
async def test_a_kept_session_is_a_gap_for_whoever_gets_qos_0(
    asked: int, granted: int, expected: bool
) -> None:
    """By what a listener asked for and the broker granted, whoever else shares the filter."""
    upstream = RecordedUpstream()
    upstream.codes["a"] = granted
    hub = Hub(upstream, grace_seconds=1000)
    low = await joined(hub, "a", retained=False, qos=0)
    listener = await joined(hub, "a", retained=False, qos=asked)
    assert hub.subscriptions == [("a", granted, 2)]
    before = str(hub.position_of(listener))
    hub.broker_down("it was closed")
    hub.broker_up(session_present=True)
    assert ("gap" in dict(control_events(listener))) == expected
    assert "gap" in dict(control_events(low))
    for qos, is_told in ((0, True), (asked, expected)):
        back = await joined(hub, "a", retained=False, qos=qos, last_event_id=before)
        assert ("gap" in dict(control_events(back))) == is_told


async def test_a_lower_qos_granted_is_not_asked_to_be_raised_by_each_that_joins() -> None:
    """The broker has given what it gives."""
    upstream = RecordedUpstream(has_identifiers=False)
    upstream.codes["a"] = 1
    hub = Hub(upstream)
    for _ in range(3):
        await joined(hub, "a", retained=False, qos=2)
    assert upstream.calls == [("subscribe", "a", 2, False)]


# A listener that leaves or fails while others are served.


async def with_one_that_leaves(hub: Hub, *filters: str) -> tuple[Listener, list[Listener]]:
    """A listener with a full buffer, whose next write is its last; and others before and behind it."""
    others = [await joined(hub, *filters, retained=False) for _ in range(3)]
    leaving = await joined(hub, *filters, retained=False, limit=3, max_messages=3)
    others += [await joined(hub, *filters, retained=False) for _ in range(3)]
    LeavingReader(hub, leaving)
    return leaving, others


@pytest.mark.parametrize("has_identifiers", [True, False])
@pytest.mark.parametrize("filters", [("a",), ("a", "+")])
async def test_one_that_leaves_while_a_message_is_delivered_costs_nobody_one(
    has_identifiers: bool, filters: tuple[str, ...]
) -> None:
    """A full buffer is written out, its limit is reached, and it leaves; the others see every message."""
    upstream = RecordedUpstream(has_identifiers=has_identifiers)
    hub = Hub(upstream)
    leaving, others = await with_one_that_leaves(hub, *filters)
    for number in range(8):
        upstream.send(hub, "a", str(number), *filters)
    assert leaving.close_reason is CloseReason.LIMIT
    assert hub.listeners == len(others)
    for each in others:
        assert seen(each) == [("a", number, False) for number in range(8)]
    assert {count for _, _, count in hub.subscriptions} == {len(others)}


@pytest.mark.parametrize("what", ["down", "up"])
async def test_one_that_leaves_while_all_are_told_costs_nobody_the_word(what: str) -> None:
    """Of the broker's absence, and of its return."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    groups = [await with_one_that_leaves(hub, "a") for _ in range(5)]
    for number in range(3):
        upstream.send(hub, "a", str(number))
    if what == "down":
        hub.broker_down("it was closed")
    else:
        hub.broker_up(session_present=False)
    for leaving, others in groups:
        assert leaving.close_reason is CloseReason.LIMIT
        for each in others:
            assert "broker" in dict(control_events(each))


async def test_a_writer_that_fails_costs_nobody_else_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a message nor the word of the broker's absence; the log has the failure."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    before = await joined(hub, "a", retained=False)
    failing = await joined(hub, "a", retained=False, max_messages=2)
    failing.attach(FailingReader())
    behind = await joined(hub, "a", retained=False)
    for number in range(4):
        upstream.send(hub, "a", str(number))
    hub.broker_down("it was closed")
    for each in (before, behind):
        assert story(taken(each)) == [
            *[("a", str(number)) for number in range(4)],
            ("broker", "it was closed"),
        ]
    assert failing.close_reason is CloseReason.TOO_SLOW
    assert "it cannot be written" in caplog.text


# Identifiers that are on their way.


@pytest.mark.parametrize("code", [0x97, None])
async def test_the_identifier_in_force_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """However long ago it was given, and whoever was refused or not answered since."""
    monkeypatch.setattr(filters_module, "IDENTIFIER_MEMORY_SECONDS", -1.0)
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    in_force = upstream.identifiers["a"][-1]
    for _ in range(5):
        if code is None:
            upstream.gate.clear()
            joining = asyncio.create_task(joined(hub, "a", retained=False))
            await settle()
            joining.cancel()
            upstream.codes["a"] = 0x80
            upstream.gate.set()
            await settle()
        else:
            upstream.codes["a"] = code
            with pytest.raises(RefusedError):
                await joined(hub, "a", retained=False)
    hub.deliver(copy("a", "1", in_force))
    assert seen(listener) == [("a", 1, False)]


async def test_refused_identifiers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy carries them; earlier ones than that in force go when their time is over."""
    monkeypatch.setattr(filters_module, "IDENTIFIER_MEMORY_SECONDS", -1.0)
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    await joined(hub, "a", retained=False)
    upstream.codes["a"] = 0x97
    for _ in range(5):
        with pytest.raises(RefusedError):
            await joined(hub, "a", retained=False)
    del upstream.codes["a"]
    await joined(hub, "a", retained=False)
    _, in_force, *refused, newest = upstream.identifiers["a"]
    assert len(refused) == 5
    for each in upstream.identifiers["a"]:
        hub.deliver(copy("a", str(each), each))
    assert seen(listener) == [("a", in_force, False), ("a", newest, False)]


async def test_a_filter_refused_after_a_reconnect_ends_its_streams() -> None:
    """Silence would be a lie: the stream is closed and the reason is named."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    one = await joined(hub, "a")
    other = await joined(hub, "b")
    hub.broker_up(session_present=False, refused=(("a", 0x87),))
    assert one.close_reason is CloseReason.REFUSED
    assert other.close_reason is None


async def test_draining_closes_everybody_and_takes_nobody_new() -> None:
    """What was offered before is still drained; the reason comes after it."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1]))
    hub.drain()
    assert seen(listener) == [("a", 1, False)]
    assert listener.close_reason is CloseReason.SHUTDOWN
    late = await joined(hub, "a")
    assert late.close_reason is CloseReason.SHUTDOWN


async def test_a_cancelled_join_leaves_nothing_behind() -> None:
    """A client that goes away while the broker has not answered yet costs no subscription."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    task = asyncio.create_task(joined(hub, "a"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert hub.listeners == 0
    assert hub.filters == ()


async def test_a_filter_left_and_joined_at_once_ends_subscribed() -> None:
    """However leaving and joining interleave, the last word upstream is SUBSCRIBE."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = await joined(hub, "a", retained=False)
    for _ in range(5):
        hub.leave(listener)
        listener = await joined(hub, "a", retained=False)
    await settle()
    assert upstream.calls[-1][0] == "subscribe"
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1]))
    assert seen(listener) == [("a", 1, False)]


async def test_a_join_that_a_lost_connection_interrupts_still_gets_retained_messages() -> None:
    """The SUBSCRIBE is made again under the identifier of its own, and so its retained messages arrive."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    listener = Listener(["a"])
    joining = asyncio.create_task(hub.join(listener))
    await settle()
    hub.broker_down("it was closed")
    hub.deliver(copy("a", "1", upstream.identifiers["a"][-1], retain=True))
    await joining
    assert ("a", 1, True) in seen(listener)


async def test_a_closed_listener_takes_no_share_of_the_messages() -> None:
    """What a slow listener of a share can no longer take goes to the others."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    slow = await joined(hub, "$share/g/a", max_messages=1)
    slow.attach(StuckReader())
    fast = await joined(hub, "$share/g/a")
    for number in range(20):
        hub.deliver(copy("a", str(number), upstream.identifiers["$share/g/a"][-1]))
    assert slow.close_reason is CloseReason.TOO_SLOW
    assert len(seen(slow)) == 1
    assert len(seen(fast)) >= 18


async def test_a_filter_refused_after_a_reconnect_is_asked_for_again() -> None:
    """A listener that joins while the refused one has not left yet is not taken for served."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    await joined(hub, "a", retained=False)
    hub.broker_up(session_present=False, refused=(("a", 0x87),))
    await joined(hub, "a", retained=False)
    assert [call[0] for call in upstream.calls] == ["subscribe", "subscribe"]


async def test_a_join_given_up_is_taken_back_at_the_broker() -> None:
    """The broker may have taken a SUBSCRIBE whose answer nobody waited for; UNSUBSCRIBE follows it."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    joining = asyncio.create_task(joined(hub, "a"))
    while not upstream.calls:
        await asyncio.sleep(0)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    await settle()
    assert upstream.calls[-1] == ("unsubscribe", "a")
