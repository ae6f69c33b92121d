"""What the hub holds upstream: one entry for each distinct topic filter.

Every SUBSCRIBE carries a subscription identifier of its own. A broker that honours identifiers stamps each
copy with that of the subscription as it stood, so an identifier also marks a moment: a copy with identifier
``n`` was sent after the broker had taken the SUBSCRIBE with ``n``. A listener remembers the identifier that
it joined with, and takes the copies of that one and later ones: just what a client of its own would have been
sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator

from app.hub.journal import Track
from app.hub.listener import Listener
from tidegate.message import Message
from tidegate.topics import matches, split_share


class SubscribedFilter:
    """One distinct filter, its listeners, and who among them waits for retained messages.

    Attributes:
        filter: the topic filter.
        track: what is kept for clients that come back.
        is_remembered: somebody was here who may come back.
        is_shared: it is a shared subscription (MQTT 5 §4.8.2), of which nothing is kept.
        lock: held by whoever changes the subscription upstream.
        requests: who waits to be subscribed, each with what tells it; see ``Filters``.
        is_served: somebody sees to the requests.
        is_live: the broker granted it.
        was_asked: a SUBSCRIBE went out, whatever came of it.
        is_dropped: it is given up, and a new entry has to take its place.
        asked_qos: the QoS asked for.
        qos: the QoS granted, which may be lower.
        identifier: the subscription identifier in force.
        identifiers: all in use, each with the time of its SUBSCRIBE on the loop's clock, in seconds.
    """

    def __init__(self, topic_filter: str, track: Track) -> None:
        self.filter = topic_filter
        self.track = track
        self.is_remembered = False
        self.is_shared = split_share(topic_filter)[0] is not None
        self.lock = asyncio.Lock()
        self.requests: dict[Listener, asyncio.Future[bool]] = {}
        self.is_served = False
        self.is_live = False
        self.was_asked = False
        self.is_dropped = False
        self.asked_qos = 0
        self.qos = 0
        self.identifier = 0
        self.identifiers: deque[tuple[float, int]] = deque()
        self._joined_with: dict[Listener, int] = {}
        self._unconfirmed: set[Listener] = set()
        self._replays: dict[int, set[Listener]] = {}
        self._turn = 0

    @property
    def listeners(self) -> list[Listener]:
        """Everybody on this filter."""
        return list(self._joined_with)

    @property
    def wants_retained(self) -> bool:
        """Whether anybody on this filter asked for retained messages."""
        return not self.is_shared and any(listener.retained for listener in self._joined_with)

    def join(self, listener: Listener, identifier: int, *, replay: bool, confirmed: bool) -> None:
        """Add a listener that takes copies from ``identifier`` on; one that is here already stays as it is.

        Args:
            listener: who joins.
            identifier: that of the SUBSCRIBE made for it, or of the one in force.
            replay: retained messages that this SUBSCRIBE brings are for it.
            confirmed: the broker has answered.
        """
        if replay:
            self._replays.setdefault(identifier, set()).add(listener)
        if listener not in self._joined_with:
            self._joined_with[listener] = identifier
            if not confirmed:
                self._unconfirmed.add(listener)

    def holds(self, listener: Listener) -> bool:
        """Whether a listener is on this filter."""
        return listener in self._joined_with

    def confirm(self, listener: Listener) -> None:
        """The broker has answered the SUBSCRIBE made for this listener."""
        self._unconfirmed.discard(listener)

    def leave(self, listener: Listener) -> None:
        """Remove a listener; it may have left already."""
        self._joined_with.pop(listener, None)
        self._unconfirmed.discard(listener)
        for identifier in [each for each, who in self._replays.items() if listener in who]:
            self._replays[identifier].discard(listener)
            if not self._replays[identifier]:
                del self._replays[identifier]

    def replay_to(self, listener: Listener) -> None:
        """The retained messages that the next connection brings are for this listener too."""
        if not self.is_shared:
            self._replays.setdefault(self.identifier, set()).add(listener)

    def replay_to_all(self) -> None:
        """After a lost connection the broker sends the retained messages again, and to everybody."""
        self._replays = {}
        if self.is_shared:
            return
        for listener, identifier in self._joined_with.items():
            if listener.retained:
                # one that waits for its SUBACK is subscribed for again under the identifier of its own
                stamp = identifier if listener in self._unconfirmed else self.identifier
                self._replays.setdefault(stamp, set()).add(listener)

    def targets(self, message: Message, identifier: int | None) -> Iterator[Listener]:
        """Who gets this copy.

        Args:
            message: the copy.
            identifier: the identifier it carries for this filter, or None where brokers send none.
        """
        if identifier is None:
            yield from self._targets_by_topic(message)
        elif message.retain:
            for listener in self._replays.get(identifier, ()):
                if listener.takes(message.topic, self.filter):
                    yield listener
        elif self.is_shared:
            yield from self._next_in_turn()
        else:
            for listener, since in self._joined_with.items():
                if since <= identifier and (
                    len(listener.own_filters) == 1 or listener.takes(message.topic, self.filter)
                ):
                    yield listener

    def _targets_by_topic(self, message: Message) -> Iterator[Listener]:
        """Without identifiers nothing tells whom a copy was sent for, or whether before or after a SUBSCRIBE.

        A listener takes live messages from the moment at which it registers: one message too many is better
        than one too few. Of retained ones it takes the first of each topic that it has seen nothing of.
        """
        topic = message.topic
        if self.is_shared:
            if not message.retain:
                yield from self._next_in_turn()
        elif message.retain:
            for listener in self._joined_with:
                if listener.begins(topic):
                    yield listener
        else:
            for listener in self._joined_with:
                listener.sees(topic)
                yield listener

    def _next_in_turn(self) -> Iterator[Listener]:
        """Of a shared subscription's messages each goes to one listener."""
        listeners = [
            each for each in self._joined_with if each.close_reason is None and each not in self._unconfirmed
        ]
        if listeners:
            self._turn = (self._turn + 1) % len(listeners)
            yield listeners[self._turn]


def first_match(filters: Iterable[str], topic: str) -> str | None:
    """The first of these filters that matches a topic, or None."""
    return next((each for each in filters if matches(each, topic)), None)
