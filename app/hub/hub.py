"""The hub: routes each message to the listeners that would have got it as MQTT clients of their own.

Rules:

1. ``join`` returns when the broker granted every filter, or raises and leaves nothing behind.
2. A client that comes back is given what it missed and registered in one turn of the loop: nothing can come
   between the two.
3. ``deliver`` is synchronous; it encodes nothing and waits for nobody.
4. What may have been missed is told: a ``gap`` stands in the stream where it was, before what came after.
5. Whoever leaves or fails while a message is handed out costs nobody else anything: it is taken from its
   filters afterwards.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from app.hub.control import BrokerFacts, GapFacts
from app.hub.counts import HubCounts
from app.hub.event import ControlEvent, Event, Fault
from app.hub.filter_sets import FilterSets
from app.hub.filters import Filters, Upstream
from app.hub.flusher import Flusher
from app.hub.journal import Journal
from app.hub.listener import CloseReason, Listener
from app.hub.position import Epoch, Position, parse_position, standing
from app.hub.pressure import over_limit
from app.hub.replay import Replay, take_replay
from app.hub.subscriptions import SubscribedFilter
from tidegate.message import Message

RELIEF_SECONDS: Final = 0.5
"""How often what listeners leave unread is added up."""


class Hub:
    """All listeners of one bridge.

    Args:
        upstream: the broker.
        journal: keeps what clients that come back have missed.
        grace_seconds: how long a filter is kept up after its last listener left.
        max_pending_bytes: what all listeners together may leave unread.
        judge: says what is wrong with a message, once for all who get it; without one nothing ever is.

    Attributes:
        epoch: this run of the bridge, which makes ids.
        counts: what was done since the start.
        ended: how many streams ended, for each reason.
        is_draining: the bridge stops, and takes no new listeners.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        journal: Journal | None = None,
        grace_seconds: float = 0.0,
        max_pending_bytes: int = 256 * 1024 * 1024,
        judge: Callable[[Message], Fault | None] | None = None,
    ) -> None:
        self._journal = Journal() if journal is None else journal
        self._filters = Filters(
            upstream, self._journal, grace_seconds=grace_seconds, next_sequence=self._next_sequence
        )
        self._judge = judge
        self._listeners: set[Listener] = set()
        self._internal = 0
        self._flusher = Flusher()
        self.epoch = Epoch()
        self._sequence = 1
        self.is_draining = False
        self._filter_sets = FilterSets()
        self._is_delivering = False
        self._leaving: list[Listener] = []
        self._broker_is_away = ""
        self._kept_session: bool | None = None
        self._told_up: bool | None = None
        self._max_pending_bytes = max_pending_bytes
        self._relief: asyncio.TimerHandle | None = None
        self.counts = HubCounts()
        self.ended: Counter[CloseReason] = Counter()

    @property
    def listeners(self) -> int:
        """How many listeners there are, without those of the bridge itself."""
        return len(self._listeners) - self._internal

    @property
    def filters(self) -> tuple[str, ...]:
        """The distinct filters that listeners hold."""
        return self._filters.in_use

    @property
    def held_filters(self) -> int:
        """How many filters are held upstream."""
        return len(self._filters)

    @property
    def pending_bytes(self) -> int:
        """What listeners have not read yet, as events count themselves, each as often as it waits."""
        return sum(each.buffer.size + each.replay_bytes for each in self._listeners)

    @property
    def subscriptions(self) -> list[tuple[str, int, int]]:
        """Each filter held upstream, the QoS granted, and how many listeners it has."""
        return [(each.filter, each.qos, len(each.listeners)) for each in self._filters]

    def position_of(self, listener: Listener) -> Position:
        """Where a client stands that has seen everything that came for this listener."""
        return standing(self.epoch, self._sequence, listener.digest)

    @property
    def flusher(self) -> Flusher:
        """Has listeners written."""
        return self._flusher

    @property
    def journal(self) -> Journal:
        """What is kept for clients that come back."""
        return self._journal

    async def join(self, listener: Listener, last_event_id: str = "") -> Position:
        """Subscribe a listener to all its filters.

        Args:
            listener: who joins.
            last_event_id: the last event that its client saw before; what it missed is offered to it, and a
                ``gap`` where that is not known or no longer all there.

        Returns:
            Where the client stands before the first event.

        Raises:
            RefusedError: the broker refused a filter.
            MQTTError: the broker is away or does not answer.
        """
        if self.is_draining:
            listener.close(CloseReason.SHUTDOWN)
            return self.position_of(listener)
        if listener not in self._listeners:
            self._listeners.add(listener)
            self._internal += listener.is_internal
            self.counts.open[listener.form] += not listener.is_internal
            listener.buffer.count_into(self.counts)
        if listener.is_resumable:
            listener.digest = self._filter_sets.remember(listener.filters)
        if self._relief is None:
            self._relieve()
        complete = set[str]()
        gap: ControlEvent | None = None
        position = parse_position(last_event_id, self.epoch)
        if position is not None and position.sequence <= self._sequence:
            replay = self._resume(listener, position)
            complete, gap = replay.complete, replay.gap
            if gap is not None:
                self.counts.gaps[gap.facts["reason"]] += 1
        elif last_event_id:
            position = None
            gap = GapFacts("unknown_id", last_event_id).event()
            self.counts.gaps["unknown_id"] += 1
            listener.replay([gap])
        asks_retained = listener.retained and complete != set(listener.filters)
        if asks_retained:
            listener.expect_retained()
        await self._attach(listener, [each for each in listener.filters if each not in complete])
        if asks_retained:
            listener.expect_retained()
        first = listener.buffer.first_sequence
        stands_at = self._sequence if first is None else first - 1
        if gap is not None and not gap.sequence:
            gap.sequence = stands_at
        if position is None:
            return standing(self.epoch, stands_at, listener.digest, listener.lacks_retained)
        # As long as a gap was not read, the client stands where it stood, with the filters of that time.
        return position if gap is not None else replace(position, filters=listener.digest)

    async def _attach(self, listener: Listener, filters: Sequence[str]) -> None:
        """Subscribe to filters side by side; all of them, or the listener leaves."""
        is_away = self._is_away
        try:
            async with asyncio.TaskGroup() as group:
                for each in filters:
                    group.create_task(self._filters.attach(each, listener, is_away=is_away))
        except BaseExceptionGroup as failed:
            self._forget(listener)
            first = failed.exceptions[0]
            raise first from None
        except BaseException:
            self._forget(listener)
            raise

    def leave(self, listener: Listener) -> None:
        """Remove a listener at once; filters that nobody holds any more are dropped some time later."""
        if listener in self._listeners:
            listener.close(CloseReason.CLIENT_LEFT)
            if listener.is_resumable and listener.close_reason is not None:
                self.ended[listener.close_reason] += 1
            listener.discard()
        self._forget(listener)

    def _forget(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.discard(listener)
            self._internal -= listener.is_internal
            self.counts.open[listener.form] -= not listener.is_internal
            if listener.owner is not None:
                owner, listener.owner = listener.owner, None
                owner.left(listener)
        if self._is_delivering:
            self._leaving.append(listener)
        else:
            self._filters.leave(listener)

    def deliver(self, message: Message) -> None:
        """Hand a message to everybody that it is for."""
        routes = self._filters.routes(message)
        if not routes:
            return
        fault = None if self._judge is None else self._judge(message)
        if fault is not None and fault.is_dropped:
            return
        if self._broker_is_away and self._told_up is None:
            self._tell_return(session_present=self._kept_session is not False)
        self.counts.messages += 1
        event = Event(message, self.epoch, self._next_sequence(), fault)
        if not message.retain:
            tracks = [entry.track for entry, _ in routes if entry.is_remembered]
            if tracks:
                self._journal.add(event, tracks)
        self._is_delivering = True
        try:
            self._hand_out(event, routes)
        finally:
            self._is_delivering = False
            while self._leaving:
                self._filters.leave(self._leaving.pop())

    def _hand_out(self, event: Event, routes: Sequence[tuple[SubscribedFilter, int | None]]) -> None:
        message = event.message
        if len(routes) == 1:
            entry, route_identifier = routes[0]
            for listener in entry.targets(message, route_identifier):
                listener.offer(event)
            return
        served: set[Listener] = set()
        for entry, route_identifier in routes:
            for listener in entry.targets(message, route_identifier):
                if listener not in served:
                    served.add(listener)
                    listener.offer(event)

    def broker_down(self, reason: str) -> None:
        """The connection to the broker ended: every stream is told, unless that was the last it heard."""
        if self._is_away:
            return
        self._broker_is_away = reason
        self._kept_session = self._told_up = None
        for entry in self._filters:
            entry.replay_to_all()
        for listener in self._listeners:
            if listener.retained:
                listener.expect_retained_anew()
        self._tell(_down(reason))

    def broker_returns(self, *, session_present: bool) -> None:
        """There is a connection, and nothing was subscribed to again yet; what comes from now on is new.

        Streams are told by the first message, or by ``broker_up``. A message that came before this call was
        sent by a broker that kept the session: another one has nothing to send.
        """
        self._kept_session = session_present

    def broker_up(self, *, session_present: bool, refused: tuple[tuple[str, int], ...] = ()) -> None:
        """The connection is back, and the filters were subscribed to again, but for those refused."""
        if self._told_up is not session_present:
            self._tell_return(session_present=session_present)
        self._broker_is_away = ""
        self._kept_session = self._told_up = None
        for listener in self._listeners:
            if listener.retained:
                listener.expect_retained()
        self._filters.keep_promises(session_present=session_present)
        for topic_filter, _ in refused:
            lost = self._filters.get(topic_filter)
            if lost is not None:
                self._filters.take_back(lost)
                for listener in lost.listeners:
                    listener.close(CloseReason.REFUSED)
                if not lost.listeners:
                    self._filters.give_up(lost)

    @property
    def _is_away(self) -> bool:
        """Whether streams were told that the broker is away, and nothing else since."""
        return bool(self._broker_is_away) and self._told_up is None

    def _tell_return(self, *, session_present: bool) -> None:
        """Tell that the connection is back, and whoever may have missed something of it."""
        self._told_up = session_present
        self._tell(BrokerFacts("up", session_present=session_present).event())
        gap = GapFacts("broker_connection").event(sequence=self._next_sequence())
        told: dict[Listener, None] = {}
        for entry in self._filters:
            # A session that the broker kept has what came for it, of QoS 1 and 2 (MQTT 5 §4.1).
            entry.track.lost_qos_0_at = self._sequence
            if not (session_present and entry.qos > 0):
                entry.track.lost_connection_at = self._sequence
            for listener in entry.listeners:
                if not (session_present and min(listener.qos, entry.qos) > 0):
                    told[listener] = None
        self.counts.gaps["broker_connection"] += sum(bool(each.form) for each in told)
        for listener in told:
            listener.offer(gap)

    def drain(self) -> None:
        """Close every listener because the bridge stops, and take no new ones."""
        self.is_draining = True
        for listener in list(self._listeners):
            listener.close(CloseReason.SHUTDOWN)

    async def close(self) -> None:
        """End the background work."""
        if self._relief is not None:
            self._relief.cancel()
        await self._filters.close()

    def _resume(self, listener: Listener, position: Position) -> Replay:
        """Offer what was missed, and join what is live already.

        Nothing is awaited here: what comes from the broker comes after it.
        """
        self._journal.trim()
        added: set[str] = set()
        if position.filters != listener.digest:
            added = self._filter_sets.added(listener.filters, position.filters)
        replay = take_replay(listener, position, self._filters, added)
        if self._is_away:
            replay.events.append(_down(self._broker_is_away))
        listener.replay(replay.events, self._journal.let_go)
        self.counts.replays += 1
        self.counts.replayed += sum(isinstance(each, Event) for each in replay.events)
        return replay

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _relieve(self) -> None:
        """Close the listeners that hold most, where all together hold too much; look again later."""
        for listener in over_limit(self._listeners, self._max_pending_bytes, self._journal.let_go):
            listener.discard()
            listener.close(CloseReason.SERVER_LIMIT)
        self._journal.trim()
        loop = asyncio.get_running_loop()
        self._relief = loop.call_later(RELIEF_SECONDS, self._relieve) if self._listeners else None

    def _tell(self, event: ControlEvent) -> None:
        for listener in list(self._listeners):  # one that is written may leave
            listener.offer(event)


def _down(reason: str) -> ControlEvent:
    return BrokerFacts("down", reason).event()
