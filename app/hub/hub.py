"""The hub: routes each message to the listeners that would have got it as MQTT clients of their own.

Rules:

1. One upstream SUBSCRIBE for each distinct filter, at the highest QoS asked for; UNSUBSCRIBE with the last
   listener. Only the first and the last listener of a filter, a higher QoS, or a wish for retained messages
   reaches the broker.
2. A listener is registered before the SUBSCRIBE for it goes out, so that no message falls in between.
3. ``join`` returns when the broker granted every filter, or raises and leaves nothing behind.
4. ``deliver`` is synchronous; it encodes nothing and waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from app.hub.event import ControlEvent, Event
from app.hub.listener import CloseReason, Listener
from app.hub.subscriptions import SubscribedFilter
from tidegate.errors import MQTTError, refusal
from tidegate.message import Message
from tidegate.topics import FilterIndex

IDENTIFIER_MEMORY_SECONDS: Final = 300.0
"""How long copies may be on their way under the identifier of an earlier SUBSCRIBE of the same filter."""

RETAINED_WINDOW_SECONDS: Final = 5.0
"""Without identifiers: how long after SUBACK a retained message may still be one that the SUBSCRIBE
brought."""


class Upstream(Protocol):
    """What the hub needs of the broker."""

    @property
    def has_identifiers(self) -> bool:
        """Whether copies carry subscription identifiers (MQTT 5 §3.3.2.3.8)."""

    async def subscribe(self, topic_filter: str, qos: int, identifier: int, *, retained: bool) -> int:
        """SUBSCRIBE and return the reason code; raises MQTTError where the broker is away or silent."""

    async def unsubscribe(self, topic_filter: str) -> None:
        """UNSUBSCRIBE; raises MQTTError where the broker is silent."""


class Hub:
    """All listeners of one bridge."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._filters: dict[str, SubscribedFilter] = {}
        self._index: FilterIndex[SubscribedFilter] = FilterIndex()
        self._by_identifier: dict[int, SubscribedFilter] = {}
        self._listeners: set[Listener] = set()
        self._identifiers = itertools.count(1)
        self._epoch = secrets.token_hex(4)
        self._sequence = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False

    @property
    def listeners(self) -> int:
        """How many listeners there are."""
        return len(self._listeners)

    @property
    def filters(self) -> tuple[str, ...]:
        """The distinct filters held upstream."""
        return tuple(self._filters)

    async def join(self, listener: Listener) -> None:
        """Subscribe a listener to all its filters.

        Raises:
            RefusedError: the broker refused a filter.
            MQTTError: the broker is away or does not answer.
        """
        if self._is_draining:
            listener.close(CloseReason.SHUTDOWN)
            return
        self._listeners.add(listener)
        try:
            async with asyncio.TaskGroup() as group:
                for each in listener.filters:
                    group.create_task(self._attach(each, listener))
        except BaseExceptionGroup as failed:
            self.leave(listener)
            first = failed.exceptions[0]
            raise first from None
        except BaseException:
            self.leave(listener)
            raise

    def leave(self, listener: Listener) -> None:
        """Remove a listener at once; filters that nobody holds any more are dropped in the background."""
        self._listeners.discard(listener)
        listener.close(CloseReason.CLIENT_LEFT)
        for topic_filter in listener.filters:
            entry = self._filters.get(topic_filter)
            if entry is not None:
                entry.leave(listener)
                if not entry.listeners:
                    self._spawn(self._drop_if_unused(entry))

    def deliver(self, message: Message) -> None:
        """Hand a message to everybody that it is for."""
        routes: list[tuple[SubscribedFilter, int | None]] = []
        for identifier in message.subscription_identifiers:
            entry = self._by_identifier.get(identifier)
            if entry is not None:
                routes.append((entry, identifier))
        if not message.subscription_identifiers:
            routes = [(entry, None) for entry in self._index.match(message.topic)]
        event: Event | None = None
        served: set[Listener] = set()
        for entry, route_identifier in routes:
            for listener in entry.targets(message, route_identifier):
                if listener in served:
                    continue
                if event is None:
                    self._sequence += 1
                    event = Event(message, f"{self._epoch}-{self._sequence}")
                if len(routes) > 1:
                    served.add(listener)
                listener.offer(event)

    def broker_down(self, reason: str) -> None:
        """The connection to the broker ended: every stream is told."""
        for entry in self._filters.values():
            entry.replay_to_all()
        self._tell(ControlEvent("broker", {"state": "down", "reason": reason}))

    def broker_up(self, *, session_present: bool, refused: tuple[tuple[str, int], ...] = ()) -> None:
        """The connection is back, and the filters were subscribed to again, but for those refused."""
        self._tell(ControlEvent("broker", {"state": "up", "session_present": session_present}))
        if not session_present:
            self._tell(ControlEvent("gap", {"reason": "broker_connection"}))
        for topic_filter, _ in refused:
            entry = self._filters.get(topic_filter)
            if entry is not None:
                entry.is_live = False
                entry.qos = 0
                for listener in entry.listeners:
                    listener.close(CloseReason.REFUSED)

    def drain(self) -> None:
        """Close every listener because the bridge stops, and take no new ones."""
        self._is_draining = True
        for listener in self._listeners:
            listener.close(CloseReason.SHUTDOWN)

    async def close(self) -> None:
        """End the background work."""
        for task in self._tasks:
            task.cancel()
        for task in list(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _attach(self, topic_filter: str, listener: Listener) -> None:
        while True:
            entry = self._filters.get(topic_filter)
            if entry is None:
                entry = self._filters[topic_filter] = SubscribedFilter(topic_filter)
                self._index.add(topic_filter, entry)
            async with entry.lock:
                if entry.is_dropped:
                    continue
                await self._subscribe(entry, listener)
                return

    async def _subscribe(self, entry: SubscribedFilter, listener: Listener) -> None:
        wants_retained = listener.retained and not entry.is_shared
        if entry.is_live and listener.qos <= entry.qos and not wants_retained:
            entry.join(listener, entry.identifier, replay=False, confirmed=True)
            return
        identifier = next(self._identifiers)
        self._remember(entry, identifier)
        entry.join(listener, identifier, replay=wants_retained, confirmed=False)
        qos = max(entry.qos, listener.qos)
        try:
            await self._ask(entry, qos, identifier)
        except BaseException:
            entry.leave(listener)
            if not entry.listeners:
                self._spawn(self._drop_if_unused(entry))
            raise
        entry.confirm(listener)
        entry.is_live = True
        entry.qos = qos
        entry.identifier = identifier
        if wants_retained and not self._upstream.has_identifiers:
            asyncio.get_running_loop().call_later(RETAINED_WINDOW_SECONDS, entry.end_replay, listener)

    async def _ask(self, entry: SubscribedFilter, qos: int, identifier: int) -> None:
        entry.was_asked = True
        reason_code = await self._upstream.subscribe(
            entry.filter, qos, identifier, retained=entry.wants_retained
        )
        if reason_code >= 0x80:
            raise refusal("subscription", reason_code, topic=entry.filter, qos=qos)

    async def _drop_if_unused(self, entry: SubscribedFilter) -> None:
        async with entry.lock:
            if entry.listeners or entry.is_dropped:
                return
            if entry.was_asked:  # also where no answer came: the broker may have taken it
                with contextlib.suppress(MQTTError):
                    await self._upstream.unsubscribe(entry.filter)
            entry.is_dropped = True
            del self._filters[entry.filter]
            self._index.discard(entry.filter, entry)
            for _, identifier in entry.identifiers:
                self._by_identifier.pop(identifier, None)

    def _remember(self, entry: SubscribedFilter, identifier: int) -> None:
        """Copies under an earlier identifier may still be on their way; forget it only when that is over."""
        now = asyncio.get_running_loop().time()
        self._by_identifier[identifier] = entry
        entry.identifiers.append((now, identifier))
        while entry.identifiers[0][0] < now - IDENTIFIER_MEMORY_SECONDS and len(entry.identifiers) > 2:
            self._by_identifier.pop(entry.identifiers.popleft()[1], None)

    def _tell(self, event: ControlEvent) -> None:
        for listener in self._listeners:
            listener.offer(event)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
