"""Whether the broker is there: a round trip proves it whenever nothing else has (MQTT 5 §3.1.2.10).

An acknowledgement proves it too, so that a busy connection is never asked.
"""

from __future__ import annotations

import asyncio

from tidegate.connection import Connection
from tidegate.errors import MQTTConnectionError
from tidegate.handover import close_quickly
from tidegate.line import Line
from tidegate.outbox import Outbox


class KeepAlive:
    """Watches the connection of the moment.

    Args:
        outbox: knows when the broker last acknowledged a message.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._last_answer_at = 0.0
        self._exchanged: asyncio.Future[None] | None = None

    @property
    def answered_at(self) -> float:
        """The event loop's time of the broker's last answer, 0.0 before the first."""
        return max(self._last_answer_at, self._outbox.last_acknowledged_at)

    def answered(self) -> None:
        """The broker answered something now."""
        self._last_answer_at = asyncio.get_running_loop().time()

    def exchanged(self) -> None:
        """Another connection has taken the place of the one that is watched."""
        if self._exchanged is not None and not self._exchanged.done():
            self._exchanged.set_result(None)

    async def watch(
        self, connection: Connection, line: Line, *, interval_seconds: float, address: str
    ) -> MQTTConnectionError | None:
        """Watch a connection until it is lost.

        Args:
            connection: the connection; one that does not answer is closed.
            line: where its events go.
            interval_seconds: how long the broker may be silent before it is asked.
            address: of the broker, for the error.

        Returns:
            Why it was lost; None where it was exchanged for another one.
        """
        loop = asyncio.get_running_loop()
        self._exchanged = exchanged = loop.create_future()
        lost = line.lost
        while True:
            await asyncio.wait(
                [lost, exchanged], timeout=interval_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if exchanged.done():
                return None
            if lost.done():
                return lost.result()
            if loop.time() - self.answered_at < interval_seconds:
                continue
            try:
                async with asyncio.timeout(2 * interval_seconds):
                    await connection.ping()
                self.answered()
            except TimeoutError:
                if exchanged.done():
                    return None
                await close_quickly(connection)
                return MQTTConnectionError(f"{address} did not answer for {3 * interval_seconds:g} s")
            except MQTTConnectionError as error:
                if exchanged.done():
                    return None
                return lost.result() if lost.done() else error
