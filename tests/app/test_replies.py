"""What counts as a reply: copies sent again, and listeners that close, without a broker."""

from __future__ import annotations

import asyncio

import pytest

from app.hub.event import Event
from app.hub.hub import Hub
from app.hub.listener import CloseReason
from app.hub.position import Epoch
from app.problems import ProblemError, ProblemType
from app.publishing import reply_topics
from app.publishing.replies import End, OwnInbox, Pending, ReplyCounts
from app.publishing.reply_topics import FixedInbox
from tests.support.hub import RecordedUpstream, settle
from tidegate.errors import NotAuthorizedError
from tidegate.message import Message, Properties


def reply(payload: bytes, *, duplicate: bool = False, topic: str = "r") -> Event:
    """A reply as it comes from the broker."""
    return Event(Message(topic, payload, 1, duplicate=duplicate), Epoch(), 0)


def taken(pending: Pending) -> list[bytes]:
    """The payloads that a request has."""
    return [each.message.payload for each in pending.replies]


async def test_a_copy_sent_again_after_a_lost_connection_counts_once() -> None:
    """The broker did not get the acknowledgement, and marks what it sends again (MQTT 5 §3.3.1.1)."""
    pending = Pending(wanted=3)
    pending.take(reply(b"a"))
    pending.cut_off()
    pending.take(reply(b"a", duplicate=True))
    pending.take(reply(b"b", duplicate=True))
    assert taken(pending) == [b"a", b"b"]


async def test_two_devices_may_say_the_same() -> None:
    """Only a marked copy of what was there before the loss is left out, once for each."""
    pending = Pending(wanted=9)
    pending.take(reply(b"ok"))
    pending.take(reply(b"ok"))
    pending.take(reply(b"ok", duplicate=True))  # nothing was lost yet: another device's, sent to us before
    assert taken(pending) == [b"ok"] * 3
    pending.cut_off()
    pending.take(reply(b"ok"))
    for _ in range(4):
        pending.take(reply(b"ok", duplicate=True))
    assert taken(pending) == [b"ok"] * 5


@pytest.mark.parametrize(
    "other",
    [
        Message("other", b"ok", 1, duplicate=True),
        Message("r", b"no", 1, duplicate=True),
        Message("r", b"ok", 1, duplicate=True, properties=Properties(user_properties=(("device", "2"),))),
        Message("r", b"ok", 1, duplicate=True, properties=Properties(correlation_data=b"x")),
    ],
)
async def test_a_copy_that_differs_is_another_reply(other: Message) -> None:
    """Topic, payload, correlation data and user properties make it the same."""
    pending = Pending(wanted=9)
    pending.take(reply(b"ok"))
    pending.cut_off()
    pending.take(Event(other, Epoch(), 0))
    assert len(pending.replies) == 2


async def test_tokens_cannot_be_guessed_and_do_not_repeat() -> None:
    """Neither those of requests nor those of bridges."""
    requests = {Pending().token for _ in range(1000)}
    bridges = {OwnInbox("p", ReplyCounts()).filters[0] for _ in range(100)}
    assert (len(requests), len(bridges)) == (1000, 100)
    assert all(len(each) == 24 for each in requests)


async def test_who_waits_for_the_subscription_shares_it() -> None:
    """A thousand requests at once make one SUBSCRIBE; one that gives up takes it from nobody."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    inbox = OwnInbox("p", ReplyCounts())
    upstream.gate.clear()
    waiting = [asyncio.create_task(inbox.open(hub)) for _ in range(1000)]
    await settle()
    waiting[0].cancel()
    await settle()
    upstream.gate.set()
    await asyncio.gather(*waiting[1:])
    assert upstream.taken_calls() == [("subscribe", inbox.filters[0], 1, False)]
    await hub.close()


async def test_a_refused_subscription_is_tried_again() -> None:
    """Whoever waited is told; the next request asks the broker anew."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    inbox = OwnInbox("p", ReplyCounts())
    upstream.codes[inbox.filters[0]] = 0x87
    for _ in range(2):
        results = await asyncio.gather(inbox.open(hub), inbox.open(hub), return_exceptions=True)
        assert [type(each) for each in results] == [NotAuthorizedError, NotAuthorizedError]
    upstream.codes.clear()
    await inbox.open(hub)
    assert inbox.is_open
    await hub.close()


@pytest.mark.parametrize(
    ("reason", "kind", "end"),
    [
        (CloseReason.SHUTDOWN, ProblemType.SHUTTING_DOWN, End.SHUTDOWN),
        (CloseReason.REFUSED, ProblemType.BROKER_UNAVAILABLE, End.REFUSED),
    ],
)
async def test_a_closed_subscription_ends_every_wait(
    reason: CloseReason, kind: ProblemType, end: End
) -> None:
    """Those that were sent, and those that wait for the subscription."""
    upstream = RecordedUpstream()
    hub = Hub(upstream)
    inbox = OwnInbox("p", ReplyCounts())
    pending = Pending()
    inbox.pending[pending.token] = pending
    upstream.gate.clear()
    opening = asyncio.create_task(inbox.open(hub))
    await settle()
    inbox.close(reason)
    with pytest.raises(ProblemError) as caught:
        await opening
    assert (caught.value.kind, pending.ended.result()) == (kind, end)
    upstream.gate.set()
    await hub.close()


@pytest.mark.parametrize("is_first", [False, True])
async def test_a_turn_that_nobody_takes_is_handed_on_once(is_first: bool) -> None:
    """A request that gives up right before or right after its turn comes keeps nobody waiting, and lets no
    two others have the topic together.
    """
    hub = Hub(RecordedUpstream())
    inbox = FixedInbox("t", ReplyCounts(), max_line=9, settle_seconds=0, on_unused=hub.leave)
    had: list[str] = []

    async def have(name: str) -> None:
        async with inbox.turn(Pending()):
            had.append(f"{name} has it")
            await settle()
            had.append(f"{name} had it")

    async with asyncio.timeout(10):
        async with inbox.turn(Pending()):
            gives_up, *others = (asyncio.create_task(have(name)) for name in ("first", "second", "third"))
            await settle()
            if is_first:
                gives_up.cancel()
        if not is_first:
            gives_up.cancel()
        await asyncio.gather(*others)
    assert gives_up.cancelled()
    assert had == ["second has it", "second had it", "third has it", "third had it"]
    inbox.close(CloseReason.SHUTDOWN)


async def test_a_topic_that_is_wanted_again_is_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request keeps the subscription, also when the time to let it go is short."""
    monkeypatch.setattr(reply_topics, "KEEP_SECONDS", 0)
    let_go: list[FixedInbox] = []
    inbox = FixedInbox("t", ReplyCounts(), max_line=9, settle_seconds=0, on_unused=let_go.append)
    async with inbox.turn(Pending()):
        pass
    async with inbox.turn(Pending()):
        await settle()
        assert let_go == []
    await settle()
    assert let_go == [inbox]
