"""The filters held upstream: who makes, keeps and drops the subscriptions that all listeners share.

Rules:

1. One upstream SUBSCRIBE for each distinct filter, at the highest QoS asked for. Only the first listener of a
   filter, a higher QoS, or a wish for retained messages reaches the broker.
2. A listener is registered before the SUBSCRIBE for it goes out, so that no message falls in between.
3. A filter is changed upstream by one task at a time, the holder of its lock. What is asked for meanwhile is
   done in one go afterwards: a thousand clients that come back at once cost a few SUBSCRIBEs, not a thousand,
   each with all that is retained.
4. A filter without listeners is kept up for a while, if one of its clients may come back, and then dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from app.hub.journal import Journal, Track
from app.hub.listener import CloseReason, Listener
from app.hub.subscriptions import SubscribedFilter
from tidegate.errors import MQTTError, RefusedError, refusal
from tidegate.message import Message
from tidegate.topics import FilterIndex

IDENTIFIER_MEMORY_SECONDS: Final = 300.0
"""How long copies may be on their way under the identifier of an earlier SUBSCRIBE of the same filter."""

MAX_ABANDONED_FILTERS: Final = 1000
"""Filters kept up for clients that may come back; beyond it the one left first is dropped early."""


class Upstream(Protocol):
    """What the hub needs of the broker."""

    @property
    def has_identifiers(self) -> bool:
        """Whether copies carry subscription identifiers (MQTT 5 §3.3.2.3.8)."""

    async def subscribe(
        self, topic_filter: str, qos: int, identifier: int, *, retained: bool, retained_again: bool
    ) -> int:
        """SUBSCRIBE and return the reason code; raises MQTTError where the broker is away or silent.

        Args:
            topic_filter: the filter.
            qos: the QoS asked for.
            identifier: the subscription identifier, where the broker takes one.
            retained: have the broker send what it retains.
            retained_again: the same, when the subscription is made again after a lost connection.
        """

    async def unsubscribe(self, topic_filter: str) -> None:
        """UNSUBSCRIBE; raises MQTTError where the broker is silent."""


class Filters:
    """All filters held upstream.

    Args:
        upstream: the broker.
        journal: where the events of remembered filters are.
        grace_seconds: how long a filter is kept up after its last listener left.
        next_sequence: counts on in the hub's order, so that who stood anywhere before stands before it.
    """

    def __init__(
        self,
        upstream: Upstream,
        journal: Journal,
        *,
        grace_seconds: float,
        next_sequence: Callable[[], int],
    ) -> None:
        self._upstream = upstream
        self._journal = journal
        self._grace_seconds = grace_seconds
        self._next_sequence = next_sequence
        self._by_name: dict[str, SubscribedFilter] = {}
        self._index: FilterIndex[SubscribedFilter] = FilterIndex()
        self._by_identifier: dict[int, SubscribedFilter] = {}
        self._abandoned: OrderedDict[SubscribedFilter, asyncio.TimerHandle] = OrderedDict()
        self._identifiers = itertools.count(1)
        self._promised: dict[Listener, list[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[SubscribedFilter]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, topic_filter: str) -> SubscribedFilter | None:
        """The entry of a filter, or None."""
        return self._by_name.get(topic_filter)

    @property
    def in_use(self) -> tuple[str, ...]:
        """The filters that listeners hold."""
        return tuple(each.filter for each in self if each not in self._abandoned)

    def routes(self, message: Message) -> list[tuple[SubscribedFilter, int | None]]:
        """The filters that a copy was sent for, each with the subscription identifier that it carries."""
        identifiers = message.subscription_identifiers
        if not identifiers:
            return [(entry, None) for entry in self._index.match(message.topic)]
        found = ((self._by_identifier.get(each), each) for each in identifiers)
        return [(entry, identifier) for entry, identifier in found if entry is not None]

    async def attach(self, topic_filter: str, listener: Listener, *, is_away: bool) -> None:
        """Subscribe a listener to a filter, as far as it is not.

        Args:
            topic_filter: the filter.
            listener: the listener; it may be on the filter already.
            is_away: there is no connection to the broker.

        Raises:
            RefusedError: the broker refused the filter.
            MQTTError: the broker is away or does not answer.
        """
        is_done = False
        while not is_done:
            entry = self._by_name.get(topic_filter)
            if entry is None:
                entry = self._by_name[topic_filter] = SubscribedFilter(topic_filter, Track(0))
                self._index.add(topic_filter, entry)
            if is_away and entry.is_live and entry.holds(listener) and listener.qos <= entry.asked_qos:
                entry.replay_to(listener)  # the next connection brings what is retained
                self._promised.setdefault(listener, []).append(topic_filter)
                return
            answer = entry.requests[listener] = asyncio.get_running_loop().create_future()
            if not entry.is_served:
                entry.is_served = True
                self._spawn(self._serve(entry))
            try:
                is_done = await answer
            finally:
                entry.requests.pop(listener, None)

    def keep_promises(self, *, session_present: bool) -> None:
        """Those who joined without a connection wait for retained messages; there is one now.

        It has brought them, unless the broker kept the session: then nothing was subscribed to again.
        """
        promised, self._promised = self._promised, {}
        if session_present:
            for listener, filters in promised.items():
                for each in filters:
                    self._spawn(self._bring_retained(each, listener))

    async def _bring_retained(self, topic_filter: str, listener: Listener) -> None:
        try:
            await self.attach(topic_filter, listener, is_away=False)
        except MQTTError as error:
            # its ids say that retained messages are lacking: it may come back for them
            listener.close(CloseReason.REFUSED if isinstance(error, RefusedError) else CloseReason.GAP)

    def leave(self, listener: Listener) -> None:
        """Take a listener from all its filters."""
        self._promised.pop(listener, None)
        for topic_filter in listener.filters:
            entry = self._by_name.get(topic_filter)
            if entry is not None:
                entry.leave(listener)
                if not entry.listeners:
                    self.abandon(entry)

    async def close(self) -> None:
        """End the background work."""
        for timer in self._abandoned.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _serve(self, entry: SubscribedFilter) -> None:
        """See to the requests for one filter; those that come meanwhile share the next SUBSCRIBE."""
        async with entry.lock:
            while entry.requests:
                requests, entry.requests = entry.requests, {}
                if entry.is_dropped:
                    for answer in requests.values():
                        _settle(answer, value=False)  # there is, or will be, a new entry
                else:
                    await self._subscribe(entry, requests)
            entry.is_served = False
            if not entry.listeners:
                self.abandon(entry)

    async def _subscribe(
        self, entry: SubscribedFilter, requests: Mapping[Listener, asyncio.Future[bool]]
    ) -> None:
        self.keep(entry)
        asking: list[Listener] = []
        for listener, answer in requests.items():
            if answer.done():  # it gave up waiting
                continue
            if listener.close_reason is not None:
                _settle(answer, value=True)
                continue
            if listener.is_resumable and not (entry.is_remembered or entry.is_shared):
                entry.is_remembered = True
                entry.track.begins_after = self._next_sequence()
            if self._can_join_at_once(entry, listener):
                entry.join(listener, entry.identifier, replay=False, confirmed=True)
                _settle(answer, value=True)
            else:
                asking.append(listener)
        if not asking:
            return
        identifier = next(self._identifiers)
        self._remember(entry, identifier)
        for listener in asking:
            replay = listener.retained and not entry.is_shared
            entry.join(listener, identifier, replay=replay, confirmed=False)
        try:
            await self._ask(entry, asking, identifier)
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            if isinstance(error, RefusedError):
                self._forget_identifier(entry, identifier)
            for listener in asking:
                entry.leave(listener)
                _settle(requests[listener], error=error)
            return
        for listener in asking:
            entry.confirm(listener)
            _settle(requests[listener], value=True)

    def _can_join_at_once(self, entry: SubscribedFilter, listener: Listener) -> bool:
        """Whether the broker need not hear of it. With identifiers, a SUBSCRIBE marks the moment."""
        if not entry.is_live or listener.qos > entry.asked_qos:
            return False
        return entry.is_shared or not (listener.retained or self._upstream.has_identifiers)

    async def _ask(self, entry: SubscribedFilter, asking: Sequence[Listener], identifier: int) -> None:
        entry.was_asked = True
        qos = max(entry.asked_qos, *(listener.qos for listener in asking))
        reason_code = await self._upstream.subscribe(
            entry.filter,
            qos,
            identifier,
            retained=not entry.is_shared and any(listener.retained for listener in asking),
            retained_again=entry.wants_retained,
        )
        if reason_code >= 0x80:
            raise refusal("subscription", reason_code, topic=entry.filter, qos=qos)
        entry.is_live = True
        entry.asked_qos = qos
        entry.qos = min(qos, reason_code)
        entry.identifier = identifier

    def take_back(self, entry: SubscribedFilter) -> None:
        """The broker no longer grants a filter."""
        entry.is_live = False
        entry.asked_qos = entry.qos = 0
        entry.is_remembered = False
        self._journal.forget(entry.track)

    # Filters that nobody holds.

    def abandon(self, entry: SubscribedFilter) -> None:
        """The last listener left: keep the filter up for a while, if its client may come back."""
        if entry in self._abandoned:
            return
        if not (entry.is_live and entry.is_remembered and self._grace_seconds > 0):
            self._spawn(self._drop_if_unused(entry))
            return
        loop = asyncio.get_running_loop()
        self._abandoned[entry] = loop.call_later(self._grace_seconds, self.give_up, entry)
        if len(self._abandoned) > MAX_ABANDONED_FILTERS:
            self.give_up(next(iter(self._abandoned)))

    def keep(self, entry: SubscribedFilter) -> None:
        """Somebody holds the filter again."""
        timer = self._abandoned.pop(entry, None)
        if timer is not None:
            timer.cancel()

    def give_up(self, entry: SubscribedFilter) -> None:
        """Drop a filter in the background, unless somebody holds it."""
        self.keep(entry)
        self._spawn(self._drop_if_unused(entry))

    async def _drop_if_unused(self, entry: SubscribedFilter) -> None:
        async with entry.lock:
            if entry.listeners or entry.requests or entry.is_dropped or entry in self._abandoned:
                return
            entry.is_live = False  # from here on nobody can come back to it
            if entry.was_asked:  # also where no answer came: the broker may have taken it
                with contextlib.suppress(MQTTError):
                    await self._upstream.unsubscribe(entry.filter)
            entry.is_dropped = True
            del self._by_name[entry.filter]
            self._journal.forget(entry.track)
            self._index.discard(entry.filter, entry)
            for _, identifier in entry.identifiers:
                self._by_identifier.pop(identifier, None)

    def _remember(self, entry: SubscribedFilter, identifier: int) -> None:
        """Copies under an earlier identifier may still be on their way; forget it only when that is over.

        The one in force, and whatever came after it and may be in force without an answer, is not forgotten.
        """
        now = asyncio.get_running_loop().time()
        self._by_identifier[identifier] = entry
        entry.identifiers.append((now, identifier))
        while (
            entry.identifiers[0][1] < entry.identifier
            and entry.identifiers[0][0] < now - IDENTIFIER_MEMORY_SECONDS
        ):
            self._by_identifier.pop(entry.identifiers.popleft()[1], None)

    def _forget_identifier(self, entry: SubscribedFilter, identifier: int) -> None:
        """The broker refused the SUBSCRIBE with it: no copy carries it."""
        self._by_identifier.pop(identifier, None)
        entry.identifiers = deque(each for each in entry.identifiers if each[1] != identifier)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _settle(answer: asyncio.Future[bool], *, value: bool = False, error: Exception | None = None) -> None:
    """Tell who waits, if it still does."""
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)
