"""A hub without a broker: an upstream that records what it is asked, and reads what listeners hold."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from app.hub.event import ControlEvent, Event, envelope
from app.hub.hub import Hub
from app.hub.listener import Listener
from app.hub.position import Position
from tidegate.errors import MQTTError
from tidegate.message import Message

ALL_BYTES = 2**40


class RecordedUpstream:
    """Grants what is asked, unless told otherwise, and writes it down.

    Attributes:
        calls: what it was asked, in order.
        codes: reason codes to answer with, by filter; without one the QoS asked for is granted.
        failure: what SUBSCRIBE raises instead of an answer.
        identifiers: the subscription identifiers of each filter, in order.
        gate: closed (cleared) it holds every answer back.
    """

    def __init__(self, *, has_identifiers: bool = True) -> None:
        self.has_identifiers = has_identifiers
        self.calls: list[tuple[Any, ...]] = []
        self.codes: dict[str, int] = {}
        self.failure: MQTTError | None = None
        self.identifiers: dict[str, list[int]] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def subscribe(
        self, topic_filter: str, qos: int, identifier: int, *, retained: bool, retained_again: bool
    ) -> int:
        """Grant, or give the code that the test set."""
        del retained_again
        self.calls.append(("subscribe", topic_filter, qos, retained))
        self.identifiers.setdefault(topic_filter, []).append(identifier)
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.codes.get(topic_filter, qos)

    async def unsubscribe(self, topic_filter: str) -> None:
        """Write it down."""
        self.calls.append(("unsubscribe", topic_filter))
        await asyncio.sleep(0)

    def taken_calls(self) -> list[tuple[Any, ...]]:
        """What it was asked since the last call of this."""
        calls, self.calls = self.calls, []
        return calls

    def send(self, hub: Hub, topic: str, payload: str, *filters: str, retain: bool = False) -> None:
        """Let the broker send one copy for each of these filters, under the identifier in force.

        Without identifiers it sends one copy, whatever the filters.
        """
        if not self.has_identifiers:
            hub.deliver(copy(topic, payload, retain=retain))
            return
        for each in filters or (topic,):
            hub.deliver(copy(topic, payload, self.identifiers[each][-1], retain=retain))


def copy(
    topic: str,
    payload: str,
    *identifiers: int,
    retain: bool = False,
    qos: int = 1,
    received_at: float | None = None,
) -> Message:
    """One copy as a broker sends it, by default now."""
    return Message(
        topic,
        payload.encode(),
        qos,
        retain,
        subscription_identifiers=identifiers,
        received_at=time.time() if received_at is None else received_at,
    )


def taken(listener: Listener) -> list[Event | ControlEvent]:
    """Everything that the listener holds; it holds nothing afterwards."""
    found: list[Event | ControlEvent] = []
    while events := listener.take(ALL_BYTES):
        found += events
    return found


def id_of(hub: Hub, listener: Listener, event: Event | ControlEvent) -> str:
    """The id under which a listener's stream gives an event; what its client brings back."""
    return str(Position(hub.epoch, event.sequence, listener.digest))


def seen(listener: Listener) -> list[tuple[str, Any, bool]]:
    """Topic, payload and retain flag of each message that the listener holds."""
    bodies = [json.loads(envelope(each.message)) for each in taken(listener) if isinstance(each, Event)]
    return [(body["topic"], body["payload"], body["retain"]) for body in bodies]


Story = list[tuple[str, Any]]
"""What a listener was handed: payloads of messages (``-r`` marks retained ones), and control events."""


def story(events: Sequence[Event | ControlEvent]) -> Story:
    """The events in words."""
    found: Story = []
    for each in events:
        if isinstance(each, ControlEvent):
            found.append((each.name, each.facts.get("reason", each.facts.get("state"))))
        else:
            found.append((each.message.topic, each.message.payload.decode() + "-r" * each.message.retain))
    return found


def control_events(listener: Listener) -> list[tuple[str, dict[str, Any]]]:
    """Name and facts of each control event that the listener holds."""
    return [(each.name, each.facts) for each in taken(listener) if isinstance(each, ControlEvent)]


class StuckReader:
    """A writer whose reader takes nothing. Attributes: ``asked``, how often it was to be written."""

    def __init__(self) -> None:
        self.asked = 0

    def schedule(self) -> None:
        """There is something; nobody takes it."""
        self.asked += 1

    def write(self) -> None:
        """Blocked."""


class QuickReader:
    """A writer whose reader takes everything at once. Attributes: ``events``, what it took."""

    def __init__(self, listener: Listener) -> None:
        self.events: list[Event | ControlEvent] = []
        self._listener = listener
        listener.attach(self)

    def schedule(self) -> None:
        """Write at once."""
        self.write()

    def write(self) -> None:
        """Take what there is."""
        while self._listener.is_due:
            self.events += self._listener.take(ALL_BYTES)


class LateReader:
    """A writer whose reader takes everything, but whose turn comes late: ``schedule`` alone brings nothing.

    Attributes: ``events``, what it took.
    """

    def __init__(self, listener: Listener) -> None:
        self.events: list[Event | ControlEvent] = []
        self._listener = listener
        listener.attach(self)

    def schedule(self) -> None:
        """Its turn has not come."""

    def write(self) -> None:
        """Take what there is."""
        while self._listener.is_due:
            self.events += self._listener.take(ALL_BYTES)


class LeavingReader(LateReader):
    """One that leaves the hub as soon as its listener is closed, as a subscription of a WebSocket does."""

    def __init__(self, hub: Hub, listener: Listener) -> None:
        self._hub = hub
        super().__init__(listener)

    def write(self) -> None:
        """Take what there is, and leave after the last of it."""
        super().write()
        if self._listener.close_reason is not None:
            self._hub.leave(self._listener)


class FailingReader:
    """A writer that fails at whatever it is told."""

    def schedule(self) -> None:
        """Fail."""
        raise OSError("it cannot be scheduled")

    def write(self) -> None:
        """Fail."""
        raise OSError("it cannot be written")


async def settle() -> None:
    """Let the hub's background work run until it is done."""
    for _ in range(10):
        await asyncio.sleep(0)


async def joined(hub: Hub, *filters: str, last_event_id: str = "", **options: Any) -> Listener:
    """A listener that has joined."""
    listener = Listener(filters, **options)
    await hub.join(listener, last_event_id)
    return listener
