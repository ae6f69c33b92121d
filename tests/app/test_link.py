"""The link to the broker: in which order it tells what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from app.broker.link import BrokerLink
from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.listener import Listener
from app.settings import Settings
from tests.support.hub import story, taken
from tidegate.connection import BrokerLimits, ConnectionEvents, ConnectOptions, Subscription
from tidegate.errors import MQTTConnectionError
from tidegate.message import Message

WAIT_SECONDS = 15.0


class EagerConnection:
    """A connection to a broker that sends a message for whatever is subscribed to, before it grants it.

    Args:
        events: who is told.
        number: which connection it is; the payload of its messages.
        fails: it ends when it is subscribed to.
        session_present: the broker kept the session, and has a message for it.
    """

    def __init__(self, events: ConnectionEvents, number: int, *, fails: bool, session_present: bool) -> None:
        self.limits = BrokerLimits(session_present=session_present)
        self._events = events
        self._number = number
        self._fails = fails

    def send(self, identifier: int | None) -> None:
        """A message of QoS 1."""
        identifiers = () if identifier is None else (identifier,)
        message = Message("a", str(self._number).encode(), 1, subscription_identifiers=identifiers)
        self._events.on_message(message)

    def lose(self) -> None:
        """The connection ends."""
        self._events.on_lost(MQTTConnectionError(f"connection {self._number} ended"))

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[int]:
        """Send, and grant or fail."""
        for each in subscriptions:
            self.send(each.identifier)
        if self._fails:
            raise MQTTConnectionError("it ended")
        return [each.qos for each in subscriptions]

    async def unsubscribe(self, filters: Sequence[str]) -> list[int]:
        """Agree."""
        return [0] * len(filters)

    async def ping(self) -> None:
        """Answer."""

    async def close(self, *, ends_session: bool = False) -> None:
        """End."""
        del ends_session

    def publish(self, message: Message, token: Any) -> None:
        """Nobody does."""


class EagerBroker:
    """Opens such connections.

    Args:
        failing: numbers of those that fail, from 1.
        keeps: it keeps the session.

    Attributes:
        connections: in order.
    """

    def __init__(self, *, failing: tuple[int, ...] = (), keeps: bool = False) -> None:
        self.connections: list[EagerConnection] = []
        self._failing = failing
        self._keeps = keeps

    async def __call__(self, options: ConnectOptions, events: ConnectionEvents) -> EagerConnection:
        """Connect; what a kept session has comes before anybody knows that it was kept."""
        if self._keeps and options.clean_start:
            return EagerConnection(events, 0, fails=False, session_present=False)  # clears an old session
        number = len(self.connections) + 1
        is_kept = self._keeps and number > 1
        connection = EagerConnection(events, number, fails=number in self._failing, session_present=is_kept)
        self.connections.append(connection)
        if is_kept:
            connection.send(1)
        return connection


async def story_of(broker: EagerBroker, connections: int, **settings: Any) -> list[tuple[str, Any]]:
    """What a listener on ``a`` is told until so many connections were made, and the last is in use."""
    chosen = Settings(broker_url=SecretStr("mqtt://127.0.0.1"), **settings)
    link = BrokerLink(chosen, chosen.connect_options(), connect=broker)
    hub = Hub(link)
    link.attach(hub)
    await link.start()
    await link.session.connected(WAIT_SECONDS)
    listener = Listener(["a"], retained=False)
    await hub.join(listener)
    assert story(taken(listener)) == [("a", "1")]
    broker.connections[0].lose()
    events: list[Event | ControlEvent] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(broker.connections) < connections or link.limits is None:
            await asyncio.sleep(0.01)
    broker.connections[-1].send(1)
    events += taken(listener)
    await hub.close()
    await link.close()
    return story(events)


async def test_what_is_subscribed_to_again_comes_after_the_gap() -> None:
    """Although the broker sends it before all is subscribed to, and nobody calls the session connected."""
    assert await story_of(EagerBroker(), 2) == [
        ("broker", "connection 1 ended"),
        ("broker", "up"),
        ("gap", "broker_connection"),
        ("a", "2"),
        ("a", "2"),
    ]


async def test_a_connection_that_ends_before_all_is_subscribed_to_is_told() -> None:
    """Each that brought a message; the reason is that of the attempt."""
    told = await story_of(EagerBroker(failing=(2,)), 3)
    assert told[:4] == [
        ("broker", "connection 1 ended"),
        ("broker", "up"),
        ("gap", "broker_connection"),
        ("a", "2"),
    ]
    (name, reason), *rest = told[4:]
    assert name == "broker"
    assert "subscribing again failed" in reason
    assert rest == [("broker", "up"), ("gap", "broker_connection"), ("a", "3"), ("a", "3")]


async def test_what_a_kept_session_brings_comes_after_the_word_of_it() -> None:
    """It comes with the connection, and without a gap."""
    told = await story_of(
        EagerBroker(keeps=True), 2, broker_session_expiry_seconds=300, broker_client_id="keeper"
    )
    assert told == [("broker", "connection 1 ended"), ("broker", "up"), ("a", "2"), ("a", "2")]
