"""One message on its way to the broker, and the errors that it may end with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.errors import (
    MQTTError,
    NotConnectedError,
    OutcomeUnknownError,
    QueueFullError,
    refusal,
)
from tidegate.message import Message


class Flight:
    """One message and the caller that waits for what becomes of it.

    Attributes:
        message: what is sent.
        future: what the caller waits for.
        deadline: time of the event loop at which the caller is told that it took too long.
        was_sent: whether it was handed to a connection, ever.
        losses: ends of a connection that it may have caused (``tidegate.suspects``).
        on_sent: called when it is handed to a connection, each time; None where nobody asked.
    """

    __slots__ = ("deadline", "future", "losses", "message", "on_sent", "was_sent")

    def __init__(
        self,
        message: Message,
        future: asyncio.Future[int],
        deadline: float,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self.message = message
        self.future = future
        self.deadline = deadline
        self.on_sent = on_sent
        self.was_sent = False
        self.losses = 0

    def fail(self, error: MQTTError) -> None:
        """Tell the caller, if it still waits."""
        if not self.future.done():
            self.future.set_exception(error)

    def outcome_unknown(self, reason: str, outcome: asyncio.Future[int] | None = None) -> OutcomeUnknownError:
        """The error for a message that was sent, and of which no more is known."""
        return OutcomeUnknownError(
            f"the message was sent, but {reason}: it may have arrived, or not",
            topic=self.message.topic,
            qos=self.message.qos,
            outcome=outcome,
        )

    def never_sent(self, error: MQTTError | None, *, is_connected: bool) -> MQTTError:
        """The error for a message whose turn did not come."""
        if is_connected:
            return QueueFullError(
                "the broker acknowledges too slowly and the message's turn did not come; nothing was sent",
                topic=self.message.topic,
                qos=self.message.qos,
            )
        reason = f" ({error})" if error is not None else ""
        return NotConnectedError(
            f"there is no connection to the broker{reason}; nothing was sent",
            topic=self.message.topic,
            qos=self.message.qos,
        )

    def convicted(self, error: MQTTError) -> MQTTError:
        """The error for a message that makes the broker close the connection."""
        ends = f"by closing the connection, {self.losses} times"
        if error.reason_code is not None:
            return refusal(
                "publish", error.reason_code, topic=self.message.topic, qos=self.message.qos, how=ends
            )
        return self.outcome_unknown(
            f"the connection ended {self.losses} times before it was acknowledged, the last time with no "
            "other message in question, so that it is not sent again"
        )
