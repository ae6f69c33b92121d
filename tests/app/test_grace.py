"""How long a filter is followed on for clients that may come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.hub import filters as filters_module
from app.hub.event import Event
from app.hub.hub import Hub
from app.hub.journal import Journal
from tests.support.hub import RecordedUpstream, joined, settle, taken

GRACE_SECONDS = 1000.0
"""Longer than any test lasts."""


@pytest.fixture
def upstream() -> RecordedUpstream:
    """A broker."""
    return RecordedUpstream()


def hub_of(upstream: RecordedUpstream) -> Hub:
    """A hub that keeps filters up for clients that may come back."""
    return Hub(upstream, journal=Journal(), grace_seconds=GRACE_SECONDS)


async def came_and_left(hub: Hub, *filters: str, **options: Any) -> str:
    """A client that joined and left again; what it brings back."""
    listener = await joined(hub, *filters, **{"retained": False, **options})
    hub.leave(listener)
    return str(hub.position_of(listener))


async def test_a_filter_is_kept_up_after_its_last_listener_left(upstream: RecordedUpstream) -> None:
    """It is no longer in use, and still followed."""
    hub = hub_of(upstream)
    await came_and_left(hub, "a")
    await settle()
    assert hub.filters == ()
    assert hub.subscriptions == [("a", 1, 0)]
    upstream.send(hub, "a", "1")
    assert len(hub.journal) == 1
    assert [call[0] for call in upstream.calls] == ["subscribe"]


async def test_a_filter_is_dropped_when_the_grace_is_over(upstream: RecordedUpstream) -> None:
    """And all that was kept of it."""
    hub = Hub(upstream, journal=Journal(), grace_seconds=0.02)
    listener = await joined(hub, "a", retained=False)
    upstream.send(hub, "a", "1")
    hub.leave(listener)
    assert len(hub.journal) == 1
    async with asyncio.timeout(10):
        while hub.subscriptions:
            await asyncio.sleep(0.001)
    assert upstream.calls[-1] == ("unsubscribe", "a")
    assert (len(hub.journal), hub.journal.size) == (0, 0)


async def test_who_comes_back_in_time_ends_the_grace(upstream: RecordedUpstream) -> None:
    """The timer of an earlier leaving drops nothing that is in use again."""
    hub = Hub(upstream, journal=Journal(), grace_seconds=0.02)
    last_event_id = await came_and_left(hub, "a", "b")
    await joined(hub, "a", retained=False, last_event_id=last_event_id)
    async with asyncio.timeout(10):
        while len(hub.subscriptions) > 1:
            await asyncio.sleep(0.001)
    assert hub.subscriptions == [("a", 1, 1)]
    assert [call for call in upstream.calls if call[0] == "unsubscribe"] == [("unsubscribe", "b")]


async def test_filters_kept_up_for_nobody_are_bounded(
    upstream: RecordedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was left first is dropped early."""
    monkeypatch.setattr(filters_module, "MAX_ABANDONED_FILTERS", 2)
    hub = hub_of(upstream)
    for topic in "abc":
        await came_and_left(hub, topic)
    await settle()
    assert [name for name, _, _ in hub.subscriptions] == ["b", "c"]
    assert upstream.calls[-1] == ("unsubscribe", "a")


async def test_a_reader_of_retained_messages_leaves_nothing_behind(upstream: RecordedUpstream) -> None:
    """Nobody comes back for what it did not see."""
    hub = hub_of(upstream)
    collector = await joined(hub, "a", is_resumable=False)
    upstream.send(hub, "a", "1")
    assert len(hub.journal) == 0
    hub.leave(collector)
    await settle()
    assert (hub.subscriptions, hub.ended) == ([], {})
    assert upstream.calls[-1] == ("unsubscribe", "a")


async def test_a_reader_of_retained_messages_does_not_end_the_grace_of_others(
    upstream: RecordedUpstream,
) -> None:
    """The filter stays up when it has left, and what came meanwhile is there."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    collector = await joined(hub, "a", is_resumable=False)
    upstream.send(hub, "a", "1")
    hub.leave(collector)
    upstream.send(hub, "a", "2")
    await settle()
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert [each.message.payload for each in taken(back) if isinstance(each, Event)] == [b"1", b"2"]


async def test_closing_ends_what_waits(upstream: RecordedUpstream) -> None:
    """No timer and no task outlives the hub."""
    hub = Hub(upstream, journal=Journal(), grace_seconds=0)
    await came_and_left(hub, "a")
    assert len(asyncio.all_tasks()) == 2
    await hub.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_earlier_grace_does_not_end_a_later_one(upstream: RecordedUpstream) -> None:
    """Who comes back and leaves again has the whole of it once more."""
    hub = hub_of(upstream)
    last_event_id = await came_and_left(hub, "a")
    (earlier,) = hub._filters._abandoned.values()
    back = await joined(hub, "a", retained=False, last_event_id=last_event_id)
    assert earlier.cancelled()
    hub.leave(back)
    (later,) = hub._filters._abandoned.values()
    assert not later.cancelled()
