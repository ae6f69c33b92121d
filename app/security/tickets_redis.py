"""Tickets in Redis or Valkey: whichever replica a browser reaches can take a ticket that another gave.

The server's URL appears nowhere, and neither does a ticket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.problems import ProblemError, ProblemType
from app.security.tickets import LIFETIME_SECONDS

logger = logging.getLogger("tidegate.security")

CALL_SECONDS: Final = 2.0
"""Bound on one call, with all that it takes to connect."""
MAX_CONNECTIONS: Final = 8

_PREFIX: Final = b"tidegate:ticket:"


class RedisTicketStore:
    """Keeps them in Redis or Valkey (``TicketStore``).

    Args:
        url: where the server is: ``redis://`` or ``rediss://``; it may hold a password.
        call_seconds: bound on one call.
    """

    def __init__(self, url: str, *, call_seconds: float = CALL_SECONDS) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=call_seconds,
            socket_timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that was idle may have ended
        )
        self._client: Redis = Redis.from_pool(pool)
        self._call_seconds = call_seconds

    async def put(self, name: bytes, value: bytes) -> None:
        """``TicketStore.put``."""
        await self._call(self._client.set(_PREFIX + name, value, ex=LIFETIME_SECONDS))

    async def take(self, name: bytes) -> bytes | None:
        """``TicketStore.take``; an answer that is lost on the way uses the ticket up."""
        found: bytes | None = await self._call(self._client.getdel(_PREFIX + name))
        return found

    async def close(self) -> None:
        """``TicketStore.close``."""
        await self._client.aclose()

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._call_seconds):
                return await call
        except (OSError, RedisError) as error:
            logger.warning("the store of tickets does not answer: %s", type(error).__name__)
            raise ProblemError(
                ProblemType.TICKETS_UNAVAILABLE,
                "the store of tickets does not answer",
                hint="ask for a ticket again in a moment",
            ) from None
