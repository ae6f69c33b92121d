"""What a client that comes back is given first: the events that it missed, and a gap where some lack."""

from __future__ import annotations

from collections.abc import Container
from typing import Literal, NamedTuple

from app.hub.control import GapFacts
from app.hub.event import ControlEvent, Event
from app.hub.filters import Filters
from app.hub.listener import Listener
from app.hub.position import Position
from app.hub.subscriptions import first_match


class Replay(NamedTuple):
    """What was missed.

    Attributes:
        events: in order, to be taken before anything that is live.
        complete: the filters of which nothing is lacking.
        gap: the gap among the events, if there is one.
    """

    events: list[Event | ControlEvent]
    complete: set[str]
    gap: ControlEvent | None


def take_replay(listener: Listener, position: Position, filters: Filters, added: Container[str]) -> Replay:
    """Collect what was missed, and have the listener join what is live already; nothing is awaited.

    Args:
        listener: who came back.
        position: where it stood, in this run of the bridge.
        filters: all that are held upstream.
        added: those of its filters that it did not follow up to there, as far as is known.
    """
    held = (filters.get(each) for each in listener.own_filters)
    live = [entry for entry in held if entry is not None and entry.is_live and entry.is_remembered]
    missed: dict[int, Event] = {}
    lacking = set(listener.filters)
    complete: set[str] = set()
    reason: Literal["not_kept", "broker_connection"] = "not_kept"
    for entry in live:
        track = entry.track
        filters.keep(entry)
        for event in track.after(position.sequence):
            # of all its filters, also those not followed any more: a copy may have been seen
            if first_match(listener.own_filters, event.message.topic) == entry.filter:
                missed[event.sequence] = event
        entry.join(listener, 0, replay=False, confirmed=True)
        lost_at = track.lost_connection_at if min(listener.qos, entry.qos) else track.lost_qos_0_at
        if entry.filter in added:
            continue
        if lost_at > position.sequence:
            reason = "broker_connection"
        elif track.begins_after <= position.sequence:
            lacking.discard(entry.filter)
            if listener.qos <= entry.asked_qos and not (position.lacks_retained and listener.retained):
                complete.add(entry.filter)
    events: list[Event | ControlEvent] = [missed[sequence] for sequence in sorted(missed)]
    gap: ControlEvent | None = None
    if lacking:
        gap = GapFacts(reason, str(position), sorted(lacking)).event(
            sequence=events[0].sequence - 1 if events else 0
        )
        events.insert(0, gap)
    return Replay(events, complete, gap)
