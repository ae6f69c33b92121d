"""Straight to the broker, over one session.

A filter that the broker granted once, and refuses after a reconnect, is asked for until it is granted or
nobody wants it: access rules that a broker loads late must not silence a subscriber for good.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.beginnings import Deference, pending
from tidegate.connection import BrokerLimits, Connect, ConnectOptions, Subscription
from tidegate.errors import MQTTError, NotConnectedError, refusal
from tidegate.message import NO_PROPERTIES, Message
from tidegate.session import Session, SessionState, StateChange
from tidegate.topics import matches
from tidegate.transports.transport import Receive

logger = logging.getLogger("tidegate")

ASK_AGAIN_MIN_SECONDS: Final = 0.5
ASK_AGAIN_MAX_SECONDS: Final = 60.0

_HEADROOM_BYTES: Final = 64
"""More than the fixed header and the parts of a PUBLISH without properties take (MQTT 5 §3.3)."""


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
        options: how to reach the broker; kept as ``options``.
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
        self.options = options
        self._connect = connect
        self._session = Session(options, on_message=self._deliver, on_state=self._on_state, connect=connect)
        self._deference = Deference(self.broker, self._session.hold, self._session.release)
        self._is_started = False
        self._limits: BrokerLimits | None = None
        self._told: list[Callable[[StateChange], None]] = []
        self._asking: dict[str, asyncio.Task[None]] = {}
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

    async def publish(self, message: Message, *, timeout_seconds: float | None = None) -> int:
        """Publish over the session."""
        if not self._is_started or self._is_closed:
            await self._start()
        if pending:
            self._deference.defer(is_connected=self._limits is not None)
        return await self._session.publish(message, timeout_seconds=timeout_seconds)

    def submit(self, message: Message) -> asyncio.Future[int]:
        """Publish without a task of its own where the session runs; the reason code may be a refusing one."""
        if self._is_started and not self._is_closed:
            if pending:
                self._deference.defer(is_connected=self._limits is not None)
            return self._session.submit(message)
        return asyncio.ensure_future(self.publish(message))

    def takes_unwaited(self, message: Message) -> bool:
        """Whether the connection of the moment surely takes a QoS 0 message; asked from any thread."""
        limits = self._limits
        return (
            limits is not None
            and not message.retain
            and message.properties is NO_PROPERTIES
            and (
                limits.maximum_packet_size is None
                or len(message.payload) + 4 * len(message.topic) + _HEADROOM_BYTES
                < limits.maximum_packet_size
            )
        )

    @property
    def broker(self) -> Hashable:
        """The broker's address; what opens its connections, where that was given."""
        return (self.options.host.lower(), self.options.port) if self._connect is None else (self._connect,)

    def has_properties(self) -> bool:
        """Whether the connection of the moment speaks MQTT 5; without one, as if it did."""
        limits = self._session.limits
        return limits is None or limits.protocol_version >= 5

    def watch(self, tell: Callable[[StateChange], None]) -> None:
        """Tell of each change of state from now on, and of a connection that is there already."""
        self._told.append(tell)
        if self._session.state is SessionState.CONNECTED:
            tell(StateChange(SessionState.CONNECTED))

    def unwatch(self, tell: Callable[[StateChange], None]) -> None:
        """Tell no more."""
        self._told.remove(tell)

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

    async def unsubscribe(self, receive: Receive) -> None:
        """End what was subscribed to with ``receive``; filters that nobody else holds are unsubscribed."""
        gone = [route for route in self._routes if route.receive == receive]
        self._routes = [route for route in self._routes if route.receive != receive]
        held = {each for route in self._routes for each in route.filters}
        dropped = list(dict.fromkeys(each for route in gone for each in route.filters if each not in held))
        for topic_filter in dropped:
            self._qos.pop(topic_filter, None)
            if (task := self._asking.pop(topic_filter, None)) is not None:
                task.cancel()
        for identifier, (topic_filter, owner) in list(self._by_identifier.items()):
            if topic_filter in dropped:
                del self._by_identifier[identifier]
            elif owner in gone:
                heir = next(route for route in self._routes if topic_filter in route.filters)
                self._by_identifier[identifier] = topic_filter, heir
        if dropped and not self._is_closed:
            await self._session.unsubscribe(dropped)

    async def close(self) -> None:
        """Flush and disconnect."""
        self._is_closed = True
        for task in self._asking.values():
            task.cancel()
        await self._session.close()
        self._deference.close()

    async def _start(self) -> None:
        if self._is_closed:
            raise NotConnectedError("the client was disconnected; make a new one")
        await self._session.start()
        self._is_started = True

    def _on_state(self, change: StateChange) -> None:
        self._limits = self._session.limits if change.state is SessionState.CONNECTED else None
        if self._limits is not None:
            self._deference.connected()
        for topic_filter, _ in change.refused:
            if topic_filter not in self._asking:
                self._asking[topic_filter] = asyncio.create_task(self._ask_again(topic_filter))
        for tell in tuple(self._told):
            tell(change)

    async def _ask_again(self, topic_filter: str) -> None:
        """Subscribe again to what was refused; a waiting time without a connection does not count."""
        delay = ASK_AGAIN_MIN_SECONDS
        try:
            while True:
                await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - jitter
                delay = min(delay * 2, ASK_AGAIN_MAX_SECONDS)
                identifier = max(
                    (n for n, (each, _) in self._by_identifier.items() if each == topic_filter), default=None
                )
                again = Subscription(topic_filter, qos=self._qos[topic_filter], identifier=identifier)
                try:
                    (code,) = await self._session.subscribe([again])
                except MQTTError:
                    continue
                if code < 0x80:
                    logger.warning("%s grants %s again", self._session.address, topic_filter)
                    return
        finally:
            if self._asking.get(topic_filter) is asyncio.current_task():
                del self._asking[topic_filter]

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
