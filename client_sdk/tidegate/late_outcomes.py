"""What becomes of messages whose callers were told already that no answer came in time."""

from __future__ import annotations

import asyncio

from tidegate.errors import MQTTConnectionError, MQTTError
from tidegate.flight import Flight


class LateOutcomes:
    """The outcomes that callers may still wait for, by message."""

    def __init__(self) -> None:
        self._outcomes: dict[Flight, asyncio.Future[int]] = {}

    def give_up(self, flight: Flight) -> None:
        """Tell the caller that the broker did not acknowledge a message in time, and who tells more later."""
        outcome = self._outcomes[flight] = flight.future.get_loop().create_future()
        flight.fail(flight.outcome_unknown("the broker did not acknowledge it in time", outcome))

    def answered(self, flight: Flight, reason_code: int) -> None:
        """The broker answered after all."""
        outcome = self._outcomes.pop(flight, None)
        if outcome is not None and not outcome.done():
            outcome.set_result(reason_code)

    def never(self, flight: Flight, error: MQTTError) -> None:
        """No answer comes any more."""
        outcome = self._outcomes.pop(flight, None)
        if outcome is not None and not outcome.done():
            outcome.set_exception(MQTTConnectionError(f"the broker never answered: {error}"))
            outcome.exception()  # asyncio would log an error that nobody asked for
