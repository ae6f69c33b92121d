"""QoS 1 and 2 messages that a connection has sent and the broker has not answered for good (MQTT 5 §4.3).

Knows no client library: what it keeps as ``packet`` is the library's own.

Rules:

1. An exchange holds its packet identifier from PUBLISH to PUBACK, PUBCOMP or a refusing PUBREC (§2.2.1).
2. Where the session is kept, exchanges are left to the next connection. If the broker kept it too, each goes
   on there under its packet identifier, waits in ``held``, or is dropped (``Carry``).
3. A dropped QoS 2 message that the broker has not confirmed keeps its packet identifier: the broker would
   take another message under it for a duplicate, and throw it away. One that was confirmed is released, and
   ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.connection import Carry


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """One exchange as one connection leaves it to the next.

    Attributes:
        packet_id: its packet identifier.
        packet: the PUBLISH as the client library keeps it.
        token: what the outcome is told with; None where nobody waits for it.
        qos: 1 or 2.
        is_confirmed: PUBREC was seen, and PUBREL is to be sent.
    """

    packet_id: int
    packet: Any
    token: Any
    qos: int
    is_confirmed: bool


class Exchanges:
    """The exchanges of one connection.

    Attributes:
        tokens: those in flight, by packet identifier, in the order of sending.
        held: exchanges that wait, by token.
        reserved: dropped exchanges that keep their packet identifier.
    """

    __slots__ = ("held", "reserved", "tokens")

    def __init__(self) -> None:
        self.tokens: dict[int, Any] = {}
        self.held: dict[Any, Exchange] = {}
        self.reserved: list[Exchange] = []

    def resume(self, left: Sequence[Exchange], answers: Sequence[Carry]) -> Iterator[Exchange]:
        """Take over what an earlier connection left; gives the exchanges that go on, in order.

        Args:
            left: the exchanges.
            answers: what becomes of each of those that have a token, in order.
        """
        carries = iter(answers)
        for exchange in left:
            carry = Carry.DROP if exchange.token is None else next(carries)
            if carry is Carry.HOLD:
                self.held[exchange.token] = exchange
            elif carry is Carry.CONTINUE or exchange.is_confirmed:
                self.tokens[exchange.packet_id] = exchange.token if carry is Carry.CONTINUE else None
                yield exchange
            elif exchange.qos == 2:
                self.reserved.append(exchange)

    def leave(self, in_flight: Iterator[Exchange]) -> list[Exchange]:
        """What is left to the next connection: those that are here, and those in flight."""
        return [*self.reserved, *self.held.values(), *in_flight]
