"""Where a session stands, and what is told when that changes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tidegate.errors import MQTTError


class SessionState(StrEnum):
    """Where a session stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StateChange:
    """One change of state.

    Attributes:
        state: the new state.
        error: why, where the state is DISCONNECTED.
        session_present: on CONNECTED, whether the broker had kept the session (MQTT 5 §3.2.2.1.1).
        refused: on CONNECTED, filters held before that the broker refuses now, with the reason code.
    """

    state: SessionState
    error: MQTTError | None = None
    session_present: bool = False
    refused: tuple[tuple[str, int], ...] = ()
