"""Messages that may make the broker close the connection, which is everybody's.

A message that was in flight at two ends of a connection is a suspect: it is sent again with no other
suspect in flight, the rest of the traffic going on. If the connection ends a third time it is convicted: it
fails, with the broker's reason code or as an unknown outcome, and is not sent again. Ends that we brought
about, or that the broker gave another reason for, do not count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from tidegate.errors import MQTTError
from tidegate.flight import Flight

CONVICTED_AFTER: Final = 3
"""Ends of a connection after which a message counts as their cause."""

SUSPECT_AFTER: Final = CONVICTED_AFTER - 1

_NOT_THE_MESSAGE: Final = frozenset(
    {0x00, 0x88, 0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x96, 0x98, 0x9C, 0x9D, 0x9F, 0xA0}
)
"""Reason codes of a DISCONNECT that no single message is to blame for (MQTT 5 §3.14.2.1)."""


class Suspects(deque[Flight]):
    """The suspects of one session, in order.

    Attributes:
        is_one_out: whether the first is in flight; it stays here until it is answered, given up, or back.
    """

    is_one_out = False

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self) - self.is_one_out

    def let_go(self) -> None:
        """The one in flight is a suspect no longer, or is taken back with all others."""
        self.popleft()
        self.is_one_out = False

    def connection_lost(self) -> None:
        """The one in flight, if there is one, is so no longer."""
        if self.is_one_out:
            self.let_go()


def is_suspect(flight: Flight) -> bool:
    """Whether a message has to be sent apart from others like it."""
    return flight.losses >= SUSPECT_AFTER


def blame(flights: Iterable[Flight], error: MQTTError) -> None:
    """The other side ended the connection with these in flight: count it, and convict."""
    if error.reason_code in _NOT_THE_MESSAGE:
        return
    for flight in flights:
        flight.losses += 1
        if flight.losses >= CONVICTED_AFTER:
            flight.fail(flight.convicted(error))
