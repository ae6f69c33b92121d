"""Where the events of one connection go; the receivers can change while it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tidegate.connection import BrokerLimits, Carry
from tidegate.errors import MQTTConnectionError
from tidegate.message import Message


class Line:
    """Implements ``tidegate.connection.ConnectionEvents``.

    Attributes:
        on_message: called with each message.
        on_published: called with the token and the reason code of each publish that ended.
        on_resumed: called with what an earlier connection left unanswered.
        lost: done with the reason when the connection ended, and not by ``close``.
    """

    __slots__ = ("lost", "on_message", "on_published", "on_resumed")

    def __init__(
        self,
        on_message: Callable[[Message], None],
        on_published: Callable[[Any, int], None],
        on_resumed: Callable[[BrokerLimits, Sequence[Any]], Sequence[Carry]],
    ) -> None:
        self.on_message = on_message
        self.on_published = on_published
        self.on_resumed = on_resumed
        self.lost: asyncio.Future[MQTTConnectionError] = asyncio.get_running_loop().create_future()

    def on_lost(self, error: MQTTConnectionError, /) -> None:
        """The connection ended."""
        if not self.lost.done():
            self.lost.set_result(error)
