"""Who holds which streams: how many a principal may have, and their end when it is good no more.

Rules:

1. A stream, and a WebSocket with all its subscriptions, is held by one principal from its beginning to the
   moment at which its listener leaves the hub.
2. Every ``SWEEP_SECONDS`` each principal that holds something is asked about again. Where it has expired or
   was revoked, all that it holds is closed with the reason.
3. Without authentication nobody holds anything: there is nothing to expire, and no one to count for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

from app.hub.listener import CloseReason, Listener
from app.problems import RETRY_AFTER_SECONDS, ProblemError, ProblemType
from app.security.audit import Throttled
from app.security.authentication import Authentication, Ended
from app.security.principal import Principal, Source

SWEEP_SECONDS: Final = 1.0
_AT_A_TIME: Final = 500
"""Principals that are asked about before others have their turn."""

_REASONS: Final = {
    Ended.EXPIRED: CloseReason.TOKEN_EXPIRED,
    Ended.REVOKED: CloseReason.TOKEN_REVOKED,
}


class _Holder:
    """What one principal holds (``app.hub.listener.Owner``)."""

    __slots__ = ("_holdings", "listeners", "principal")

    def __init__(self, holdings: Holdings, principal: Principal) -> None:
        self._holdings = holdings
        self.principal = principal
        self.listeners: set[Listener] = set()

    def left(self, listener: Listener) -> None:
        """A listener has left the hub."""
        self.listeners.discard(listener)
        self._holdings.release(self)


class Holdings:
    """All that principals hold.

    Args:
        authentication: knows whether a principal is still good.
        max_streams: how many one principal may hold at once.
        throttled: is told of who wants more.
    """

    def __init__(self, authentication: Authentication, *, max_streams: int, throttled: Throttled) -> None:
        self._authentication = authentication
        self._throttled = throttled
        self._max_streams = max_streams
        self._holders: dict[Principal, _Holder] = {}
        self._counts: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after principals."""
        if self._authentication.is_required:
            self._task = asyncio.get_running_loop().create_task(self._sweep_again_and_again())

    async def close(self) -> None:
        """Stop looking after them."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextlib.contextmanager
    def room(self, principal: Principal) -> Iterator[None]:
        """Keep room for one more stream of a principal, while it is opened.

        Raises:
            ProblemError: TOO_MANY_REQUESTS.
        """
        if principal.source is Source.NONE:
            yield
            return
        identity = principal.identity
        if self._counts[identity] >= self._max_streams:
            problem = ProblemError(
                ProblemType.TOO_MANY_REQUESTS,
                f"{self._max_streams} streams are open: as many as TIDEGATE_MAX_STREAMS_PER_PRINCIPAL allows",
                hint="close one, or follow several filters on one stream",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
            self._throttled.note(
                "TIDEGATE_MAX_STREAMS_PER_PRINCIPAL", principal.bounded_as, principal, problem
            )
            raise problem
        self._counts[identity] += 1
        try:
            yield
        finally:
            self._uncount(identity)

    def hold(self, principal: Principal, listener: Listener) -> None:
        """A principal opened a stream; its listener has joined the hub, and is released when it leaves."""
        if principal.source is Source.NONE or listener.close_reason is not None:
            return
        holder = self._holders.get(principal)
        if holder is None:
            holder = self._holders[principal] = _Holder(self, principal)
        holder.listeners.add(listener)
        listener.owner = holder
        self._counts[principal.identity] += 1

    def release(self, holder: _Holder) -> None:
        """One listener of a holder has left."""
        self._uncount(holder.principal.identity)
        if not holder.listeners:
            self._holders.pop(holder.principal, None)

    def _uncount(self, identity: str) -> None:
        self._counts[identity] -= 1
        if not self._counts[identity]:
            del self._counts[identity]

    async def _sweep_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for number, holder in enumerate(list(self._holders.values()), 1):
                ended = self._authentication.why_ended(holder.principal)
                if ended is not None:
                    for listener in list(holder.listeners):
                        listener.close(_REASONS[ended])
                if not number % _AT_A_TIME:
                    await asyncio.sleep(0)
