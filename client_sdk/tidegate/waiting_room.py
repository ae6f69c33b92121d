"""Messages that are not in flight: those that wait for their turn, and those between two connections.

Rules:

1. What was in flight comes back to the front, in its order. Suspects wait apart (``tidegate.suspects``).
2. QoS 1 and 2 messages in flight are carried to the next connection where the session is kept, and their
   exchanges go on there if the broker kept it too (MQTT 5 §4.4): nothing is doubled. Else QoS 1 goes to the
   front, and QoS 2 fails: without its session it cannot be sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence

from tidegate.connection import Carry
from tidegate.flight import Flight
from tidegate.suspects import Suspects, is_suspect


class WaitingRoom:
    """Where the messages of one session wait.

    Attributes:
        turns: those that wait for a connection or a slot, in order.
        suspects: those that are sent one at a time.
        carried: those whose exchange the next connection may go on with.
    """

    def __init__(self) -> None:
        self.turns: deque[Flight] = deque()
        self.suspects = Suspects()
        self.carried: dict[Flight, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is here."""
        return not (self.turns or self.suspects or self.carried)

    def all(self) -> list[Flight]:
        """Everything that is here."""
        return [*self.turns, *self.suspects, *self.carried]

    def come_back(self, flights: Iterable[Flight], reason: str) -> None:
        """Let messages that were in flight wait for their turn again; those of QoS 2 fail."""
        again: list[Flight] = []
        for flight in flights:
            if flight.message.qos == 2:
                flight.fail(flight.outcome_unknown(reason))
            elif is_suspect(flight):
                self.suspects.append(flight)
            else:
                again.append(flight)
        self.turns.extendleft(reversed(again))

    def carry(self, flights: Iterable[Flight]) -> list[Flight]:
        """Keep the exchanges of messages that were in flight, and give those that have none (QoS 0).

        What was held for its turn has an exchange too.
        """
        left = [*flights, *(each for each in (*self.suspects, *self.turns) if each.was_sent)]
        self.suspects.clear()
        unsent = [flight for flight in self.turns if not flight.was_sent]
        self.turns.clear()
        self.turns.extend(unsent)
        self.carried.update((flight, None) for flight in left if flight.message.qos)
        return [flight for flight in left if not flight.message.qos]

    def resume(self, flights: Sequence[Flight], slots: int) -> list[Carry]:
        """The broker kept the session: which of the exchanges go on.

        Args:
            flights: the messages of the exchanges.
            slots: how many may go on at once.

        Returns:
            For each what becomes of it; what continues is here no longer, what is held waits for its turn.
        """
        answers: list[Carry] = []
        held: list[Flight] = []
        for flight in flights:
            if flight not in self.carried or flight.future.done():
                self.carried.pop(flight, None)
                answers.append(Carry.DROP)
                continue
            del self.carried[flight]
            if is_suspect(flight):
                self.suspects.append(flight)
            elif slots <= 0:
                held.append(flight)
            else:
                slots -= 1
                answers.append(Carry.CONTINUE)
                continue
            answers.append(Carry.HOLD)
        self.turns.extendleft(reversed(held))
        return answers

    def forget(self, reason: str) -> None:
        """No exchange goes on: let what was carried wait for its turn again."""
        forgotten = list(self.carried)
        self.carried.clear()
        self.come_back(forgotten, reason)

    def take_overdue(self, now: float, in_flight: Container[Flight]) -> list[Flight]:
        """Take out what has waited too long, or what nobody waits for; a suspect in flight stays."""
        overdue: list[Flight] = []
        for queue in (self.turns, self.suspects):
            for flight in [each for each in queue if _is_overdue(each, now) and each not in in_flight]:
                queue.remove(flight)
                overdue.append(flight)
        for flight in [each for each in self.carried if _is_overdue(each, now)]:
            del self.carried[flight]
            overdue.append(flight)
        return overdue

    def take_all(self) -> list[Flight]:
        """Take out whatever waits for its turn."""
        taken = [*self.suspects, *self.turns]
        self.suspects.clear()
        self.turns.clear()
        return taken


def _is_overdue(flight: Flight, now: float) -> bool:
    return flight.deadline <= now or flight.future.done()
