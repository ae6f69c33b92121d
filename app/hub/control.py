"""What control events say of a stream: one class for each, from which the events are made and described.

A member that is None is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from app.hub.event import ControlEvent


@dataclass(frozen=True, slots=True)
class _Facts:
    name: ClassVar[str]

    def event(self, *, sequence: int = 0) -> ControlEvent:
        """The event; ``sequence`` is where a client stands that has seen it."""
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        facts = {name: value for name, value in values if value is not None}
        return ControlEvent(self.name, facts, sequence=sequence)


@dataclass(frozen=True, slots=True)
class BrokerFacts(_Facts):
    """The bridge's connection to the broker was lost, or is back."""

    name: ClassVar = "broker"

    state: Annotated[Literal["down", "up"], Field(description="What became of the connection.")]
    reason: Annotated[str | None, Field(description="With `down`: why, in words.")] = None
    session_present: Annotated[
        bool | None, Field(description="With `up`: the broker had kept the session (MQTT 5 §3.2.2.1.1).")
    ] = None


GapReason = Literal["not_kept", "unknown_id", "broker_connection"]


@dataclass(frozen=True, slots=True)
class GapFacts(_Facts):
    """Messages may be missing here."""

    name: ClassVar = "gap"

    reason: Annotated[
        GapReason,
        Field(
            description="`not_kept`: the journal does not reach back so far, or a filter was not followed "
            "then. `unknown_id`: the id is of another run of the bridge, or none. `broker_connection`: the "
            "connection to the broker was lost, and with it what came meanwhile."
        ),
    ]
    last_event_id: Annotated[str | None, Field(description="The id that the client came back with.")] = None
    filters: Annotated[
        list[str] | None, Field(description="The filters concerned; left out where all are.")
    ] = None


@dataclass(frozen=True, slots=True)
class LagFacts(_Facts):
    """What the stream's policy left out at this point."""

    name: ClassVar = "lag"

    dropped: Annotated[int | None, Field(description="With `drop`: how many messages.", ge=1)] = None
    conflated: Annotated[
        int | None, Field(description="With `latest`: how many messages gave way to newer ones.", ge=1)
    ] = None


@dataclass(frozen=True, slots=True)
class CloseFacts(_Facts):
    """The stream ends; it is the last event."""

    name: ClassVar = "close"

    reason: Annotated[str, Field(description="Why.")]
    may_reconnect: Annotated[bool, Field(description="Whether the same request may be made again.")]


CONTROL_FACTS: Final = (BrokerFacts, GapFacts, LagFacts, CloseFacts)
"""All of them."""
