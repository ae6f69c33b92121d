"""Two connections that are subscribed to the same at once, and which copy of each message counts.

The old connection delivers, and what the new one receives is held. A *marker* is published to a topic that
both are subscribed to, once with each QoS: a message of QoS 0 may overtake others that wait, and one of QoS 2
is received when it is released (MQTT 5 §4.3.3), maybe behind a later one of QoS 1. A broker that puts each
message into the queues of all its subscribers at once has put every message before the marker of its QoS for
both, or behind it for both.

Rules:

1. Copies on the old connection before its marker are delivered; those behind it are dropped, as the new one
   has them.
2. Copies on the new connection before its marker are dropped where the old one delivered the same; one that
   it did not deliver is delivered. Those behind the marker are delivered.
3. So no message is dropped that was not delivered. One may be doubled by a broker that shows two subscribers
   messages in a different order, if it falls beside the marker.
4. Each message of a shared subscription goes to one of the two connections, and counts wherever it comes.
5. Without a marker (``cut``) everything so far counts as before it.
6. Retained messages, flagged so, were asked for on the old connection alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from tidegate.connection import Subscription
from tidegate.errors import MQTTError, QueueFullError
from tidegate.message import Message
from tidegate.topics import matches, split_share

MAX_HELD: Final = 100_000
MAX_HELD_BYTES: Final = 64 * 1024 * 1024
"""What may be held of the new connection, and remembered of the old one, before the attempt is given up."""


class Overlap:
    """Decides over each copy that either connection receives.

    Args:
        deliver: takes the messages that count, in order.
        subscriptions: what both connections are subscribed to.
        marker: the topic of the markers; messages with it are never delivered.

    Attributes:
        is_over: done when both connections have their markers; fails where too much is held.
        came_over_old: how many messages came over the old connection.
    """

    def __init__(
        self, deliver: Callable[[Message], None], subscriptions: Iterable[Subscription], marker: str
    ) -> None:
        self._deliver = deliver
        self._marker = marker
        shared = [(each, split_share(each.filter)[1]) for each in subscriptions]
        shared = [(each, rest) for each, rest in shared if rest != each.filter]
        self._shared_identifiers = {each.identifier for each, _ in shared if each.identifier is not None}
        self._shared_filters = [rest for _, rest in shared]
        self._awaited: set[tuple[bool, int]] = set()
        self._passed: set[tuple[bool, int]] = set()
        self._seen: Counter[Any] = Counter()
        self._held: list[tuple[Message, bool]] = []
        self._count = self._bytes = 0
        self._is_committed = False
        self.came_over_old = 0
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def await_markers(self, qos: int) -> None:
        """Wait for markers, up to this QoS, on each connection."""
        self._awaited = {(is_new, each) for is_new in (False, True) for each in range(qos + 1)}
        self.is_over = asyncio.get_running_loop().create_future()

    def cut(self) -> None:
        """Let the old connection end here, without a marker; all that the new one has counts as before it."""
        self._passed = {(False, qos) for qos in range(3)}
        self._held = [(message, True) for message, _ in self._held]

    def commit(self) -> None:
        """Deliver what is held and counts; from here on the new connection's messages go straight through."""
        self._is_committed = True
        held, self._held = self._held, []
        for message, is_before in held:
            if is_before and self._seen:
                twin = _twin_key(message)
                if self._seen[twin] > 0:
                    self._seen[twin] -= 1
                    continue
            self._deliver(message)
        self._seen.clear()

    def on_old(self, message: Message) -> None:
        """A message came over the old connection."""
        self.came_over_old += 1
        if message.topic == self._marker:
            self._pass((False, message.qos))
        elif message.retain or self._is_shared(message):
            self._deliver(message)
        elif not (self._is_committed or (False, message.qos) in self._passed):
            if self._has_room(message):
                self._seen[_twin_key(message)] += 1
            self._deliver(message)

    def on_new(self, message: Message) -> None:
        """A message came over the new connection."""
        if message.topic == self._marker:
            self._pass((True, message.qos))
        elif self._is_committed or self._is_shared(message):
            self._deliver(message)
        elif not message.retain and self._has_room(message):
            self._held.append((message, (True, message.qos) not in self._passed))

    def _pass(self, place: tuple[bool, int]) -> None:
        self._passed.add(place)
        self._awaited.discard(place)
        if not self._awaited and not self.is_over.done():
            self.is_over.set_result(None)

    def _has_room(self, message: Message) -> bool:
        self._count += 1
        self._bytes += len(message.payload)
        if self._bytes <= MAX_HELD_BYTES and self._count <= MAX_HELD:
            return True
        if not self.is_over.done():
            error: MQTTError = QueueFullError("too many messages came while the connections were exchanged")
            self.is_over.set_exception(error)
            self.is_over.exception()  # whoever waits raises it; nobody else need hear of it
        return False

    def _is_shared(self, message: Message) -> bool:
        """Whether a copy is for a shared subscription; without identifiers, whether it may be."""
        if not self._shared_filters:
            return False
        if message.subscription_identifiers and self._shared_identifiers:
            return self._shared_identifiers.issuperset(message.subscription_identifiers)
        return any(matches(each, message.topic) for each in self._shared_filters)


def _twin_key(message: Message) -> Any:
    """What two copies of one message have in common; the time left to live is not part of it."""
    properties = message.properties
    if properties.message_expiry is not None:
        properties = replace(properties, message_expiry=None)
    return (message.topic, message.payload, message.qos, message.subscription_identifiers, properties)
