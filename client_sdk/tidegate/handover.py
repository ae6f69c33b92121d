"""How a session goes from one connection to another: no message is missed, and none comes twice.

    1. the new connection is opened
    2. it subscribes to all that the session holds, with no retained messages
    3. markers tell where the one ends and the other begins (``tidegate.overlap``)
    4. from there on the session receives over the new one; what was published over the old one is answered
       there
    5. the old one leaves its filters, gives what was on its way for shared subscriptions, and is closed

Whatever fails before 4 leaves the session with the old connection. Where markers cannot be had, because the
broker's rules forbid the topic, the old connection unsubscribes, and round trips take their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from tidegate.connection import BrokerLimits, Connection, Subscription
from tidegate.errors import MQTTConnectionError, MQTTError, MQTTTimeoutError, refusal
from tidegate.held_filters import subscribe, unsubscribe
from tidegate.limits import check_filter
from tidegate.line import Line
from tidegate.message import Message
from tidegate.overlap import Overlap

MARKER_PREFIX: Final = "tidegate/handover/"
"""Of the topics of markers; what follows is random."""

CLOSE_SILENT_SECONDS: Final = 1.0

QUIET_ROUNDS: Final = 2
"""Round trips that bring nothing, after which nothing waits any more."""

MARKER_SECONDS: Final = 2.0
"""How long a marker may be on its way before it counts as forbidden."""


class Handover:
    """One attempt, between two open connections.

    Args:
        old: the connection in use, and where its events go.
        new: the one to go on with.
        limits: of the new one.
        subscriptions: what the session holds.
        deliver: takes received messages.
        timeout_seconds: bound on each answer of the broker's.
    """

    def __init__(
        self,
        old: tuple[Line, Connection],
        new: tuple[Line, Connection],
        limits: BrokerLimits,
        subscriptions: Sequence[Subscription],
        *,
        deliver: Callable[[Message], None],
        timeout_seconds: float,
    ) -> None:
        self._old_line, self._old = old
        self._new_line, self._new = new
        self._limits = limits
        self._subscriptions = subscriptions
        self._deliver = deliver
        self._timeout_seconds = timeout_seconds
        self._topic = MARKER_PREFIX + secrets.token_hex(8)
        self._marker_qos = 0
        self._is_marked = False
        self._wants_markers = False
        self._old_is_bare = False
        self._overlap = Overlap(deliver, subscriptions, self._topic)

    async def prepare(self, *, may_mark: bool) -> None:
        """Bring both connections to where the new one can go on (steps 2 and 3).

        Args:
            may_mark: markers may be tried; a broker may close the new connection on one that it forbids.

        Raises:
            MQTTError: it cannot be; the session goes on as it was (``abandon``).
        """
        for each in self._subscriptions:
            check_filter(each.filter, self._limits)
        self._old_line.on_message = self._overlap.on_old
        self._new_line.on_message = self._overlap.on_new
        if self._subscriptions:
            wanted = [replace(each, retain_handling=2) for each in self._subscriptions]
            codes = await self._while_both_live(subscribe(self._new, self._limits, wanted))
            for each, code in zip(wanted, codes, strict=True):
                if code >= 0x80:
                    raise refusal("subscription", code, topic=each.filter, qos=each.qos)
            self._wants_markers = may_mark
            self._is_marked = may_mark and await self._mark()
            if not self._is_marked:
                filters = [each.filter for each in self._subscriptions]
                self._old_is_bare = True
                await self._while_both_live(unsubscribe(self._old, self._limits, filters))
                await self._run_dry()
                self._overlap.cut()
                for _ in range(QUIET_ROUNDS):
                    await self._while_both_live(self._new.ping())
        if self._overlap.is_over.done():
            self._overlap.is_over.result()

    def commit(self) -> None:
        """Go on with the new connection (step 4); nothing is awaited, and nothing can fail."""
        self._overlap.commit()

    async def abandon(self) -> None:
        """Go on with the old connection, and close the new one."""
        self._old_line.on_message = self._deliver
        self._new_line.on_message = _ignore
        await close_quickly(self._new)
        if self._old_is_bare:  # another connection has to subscribe again
            self._old_line.on_lost(MQTTConnectionError("its subscriptions could not be handed over"))
        elif self._wants_markers:
            with contextlib.suppress(MQTTError, TimeoutError):
                async with asyncio.timeout(MARKER_SECONDS):
                    await self._old.unsubscribe([self._topic])

    async def leave_old(self) -> None:
        """Take what is still on its way over the old connection (step 5); ``close_old`` comes next."""
        # Where a connection ends, or the broker is slow, nothing more is to be had from the old one.
        with contextlib.suppress(TimeoutError, MQTTError):
            async with asyncio.timeout(self._timeout_seconds):
                if self._is_marked:
                    await self._new.unsubscribe([self._topic])
                    filters = [*(each.filter for each in self._subscriptions), self._topic]
                    await unsubscribe(self._old, self._limits, filters)
                await self._run_dry()
                await self._new.ping()  # a filter such as # brings a copy of a marker of its own

    async def close_old(self) -> None:
        """Close the old connection."""
        self._new_line.on_message = self._deliver
        await close_quickly(self._old)
        self._old_line.on_message = _ignore

    async def _mark(self) -> bool:
        """Find out with markers where the one connection ends and the other begins; False: it cannot be."""
        qos = min(max(each.qos for each in self._subscriptions), self._limits.maximum_qos)
        wanted = [Subscription(self._topic, qos=qos)]
        answers = await asyncio.gather(
            self._while_both_live(self._new.subscribe(wanted)),
            self._while_both_live(self._old.subscribe(wanted)),
        )
        granted = [code for codes in answers for code in codes]
        self._marker_qos = min(granted)
        return max(granted) < 0x80 and await self._send_markers()

    async def _send_markers(self) -> bool:
        """Publish markers, and wait until both connections have them; False where the broker keeps them."""
        self._overlap.await_markers(self._marker_qos)
        refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        settle = self._new_line.on_published
        markers = [object() for _ in range(self._marker_qos + 1)]

        def on_published(token: Any, reason_code: int, /) -> None:
            if token not in markers:
                settle(token, reason_code)
            elif reason_code >= 0x80 and not refused.done():
                refused.set_result(reason_code)

        self._new_line.on_published = on_published
        try:
            for qos, token in enumerate(markers):
                self._new.publish(Message(self._topic, b"", qos), token)
            over = self._overlap.is_over
            awaited: set[asyncio.Future[Any]] = {over, refused, self._old_line.lost, self._new_line.lost}
            await asyncio.wait(awaited, timeout=MARKER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            self._check_lines()
            if over.done():
                over.result()
            return over.done()
        finally:
            self._new_line.on_published = settle

    async def _run_dry(self) -> None:
        """Take what waits at the broker for the old connection, which has unsubscribed.

        What it acknowledges makes room for what waits, and that comes before the answer to a PINGREQ that was
        sent behind the acknowledgement. A message of QoS 2 needs two rounds.
        """
        quiet_rounds = 0
        while quiet_rounds < QUIET_ROUNDS:
            before = self._overlap.came_over_old
            await self._while_both_live(self._old.ping())
            quiet_rounds = quiet_rounds + 1 if self._overlap.came_over_old == before else 0

    async def _while_both_live(self, call: Coroutine[Any, Any, Any]) -> Any:
        """The result of a call, unless a connection ends or the time is up."""
        task = asyncio.ensure_future(call)
        try:
            awaited: set[asyncio.Future[Any]] = {task, self._old_line.lost, self._new_line.lost}
            await asyncio.wait(awaited, timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self._check_lines()
            raise MQTTTimeoutError(f"the broker did not answer within {self._timeout_seconds:g} s")
        finally:
            task.cancel()

    def _check_lines(self) -> None:
        for line in (self._new_line, self._old_line):
            if line.lost.done():
                raise line.lost.result()


async def close_quickly(
    connection: Connection, seconds: float = CLOSE_SILENT_SECONDS, *, ends_session: bool = False
) -> None:
    """Close a connection, without waiting long for a broker that does not answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await connection.close(ends_session=ends_session)


def _ignore(message: Message, /) -> None:
    del message
