"""Straight to the broker, over one session."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.connection import Connect, ConnectOptions, Subscription
from tidegate.errors import MQTTError, NotConnectedError, refusal
from tidegate.message import Message
from tidegate.session import Session
from tidegate.topics import matches
from tidegate.transports.transport import Receive


@dataclass(frozen=True, slots=True, eq=False)
class _Route:
    """Filters that were subscribed to together, and who gets their messages."""

    filters: tuple[str, ...]
    receive: Receive

    def first_match(self, topic: str) -> str | None:
        return next((each for each in self.filters if matches(each, topic)), None)


class DirectTransport:
    """A session with a broker, and who gets which of its messages.

    Where the broker has subscription identifiers (MQTT 5 §3.8.2.1.2), a copy names the filter it is for, and
    a retained message goes to whoever asked for it last. Elsewhere messages are matched.

    Args:
        options: how to reach the broker.
        connect: what opens connections; the default client where it is left out.
        connect_timeout_seconds: how long a call waits for the connection.
    """

    def __init__(
        self,
        options: ConnectOptions,
        *,
        connect: Connect | None = None,
        connect_timeout_seconds: float = 10.0,
    ) -> None:
        self._session = Session(options, on_message=self._deliver, connect=connect)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._routes: list[_Route] = []
        self._by_identifier: dict[int, tuple[str, _Route]] = {}
        self._qos: dict[str, int] = {}
        self._is_closed = False
        self._identifiers = itertools.count(1)

    async def connect(self) -> None:
        """Wait for the connection; a broker that is away is an error at once, and tried again later."""
        await self._start()
        await self._session.attempted(self._connect_timeout_seconds)

    async def publish(self, message: Message) -> int:
        """Publish over the session."""
        await self._start()
        return await self._session.publish(message)

    async def subscribe(self, filters: Sequence[tuple[str, int]], receive: Receive) -> None:
        """Subscribe over the session."""
        await self._start()
        route = _Route(tuple(topic_filter for topic_filter, _ in filters), receive)
        subscriptions = []
        for topic_filter, qos in filters:
            identifier = next(self._identifiers)
            self._by_identifier[identifier] = (topic_filter, route)
            # a second SUBSCRIBE replaces the first, so it asks for the highest QoS of both
            highest = self._qos[topic_filter] = max(qos, self._qos.get(topic_filter, 0))
            subscriptions.append(Subscription(topic_filter, qos=highest, identifier=identifier))
        self._routes.append(route)
        try:
            _raise_refused(subscriptions, await self._session.subscribe(subscriptions))
        except BaseException as error:
            self._routes.remove(route)
            held = {each for other in self._routes for each in other.filters}
            for subscription in subscriptions:
                if subscription.filter not in held:  # else copies for the others may carry the new identifier
                    self._by_identifier.pop(subscription.identifier or 0, None)
            if isinstance(error, MQTTError) and not isinstance(error, NotConnectedError):
                await self._session.unsubscribe([each for each in route.filters if each not in held])
            raise

    async def close(self) -> None:
        """Flush and disconnect."""
        self._is_closed = True
        await self._session.close()

    async def _start(self) -> None:
        if self._is_closed:
            raise NotConnectedError("the client was disconnected; make a new one")
        await self._session.start()

    def _deliver(self, message: Message) -> None:
        if not message.subscription_identifiers:
            for route in self._routes:
                if route.first_match(message.topic) is not None:
                    route.receive(message)
            return
        served: set[_Route] = set()
        for identifier in message.subscription_identifiers:
            found = self._by_identifier.get(identifier)
            if found is None:
                continue
            topic_filter, owner = found
            for route in self._routes:
                if (route is not owner) if message.retain else (topic_filter not in route.filters):
                    continue
                if route not in served and route.first_match(message.topic) == topic_filter:
                    served.add(route)
                    route.receive(message)


def _raise_refused(subscriptions: Sequence[Subscription], codes: Sequence[int]) -> None:
    for subscription, code in zip(subscriptions, codes, strict=True):
        if code >= 0x80:
            raise refusal("subscription", code, topic=subscription.filter, qos=subscription.qos)
