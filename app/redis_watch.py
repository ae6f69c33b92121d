"""Whether the Redis or Valkey that replicas share can be used.

Rules:

1. One watch for all that is kept there. Where a use fails it is away; that it is back, a probe finds out. So
   what fails now and then fills no log: there are two lines a probe at most.
2. A probe goes the way of every use: a script that writes. A server that answers and takes nothing is away.
3. Nothing waits for a probe: a bridge starts, and is ready, without the server.
4. Host and port are told; the rest of the URL appears nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

logger = logging.getLogger("tidegate")

PROBE_SECONDS: Final = 5.0
"""Between two probes."""
CALL_SECONDS: Final = 2.0
"""Bound on one probe, with all that it takes to connect."""

_DEFAULT_PORT: Final = 6379
_PROBE: Final = """
redis.call('SET', KEYS[1], '', 'PX', 1000)
return redis.call('DEL', KEYS[1])
"""
_KEY: Final = b"tidegate:probe"


class RedisWatch:
    """Probes the server for as long as the bridge runs, and hears of uses that fail.

    Args:
        url: where the server is: ``redis://`` or ``rediss://``; it may hold a password.
        probe_seconds: between two probes.
        call_seconds: bound on one probe.
    """

    def __init__(
        self, url: str, *, probe_seconds: float = PROBE_SECONDS, call_seconds: float = CALL_SECONDS
    ) -> None:
        self._address = _address_of(url)
        self._client = Redis.from_url(
            url,
            max_connections=1,
            socket_timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that was idle may have ended
        )
        self._probe = self._client.register_script(_PROBE)
        self._probe_seconds = probe_seconds
        self._call_seconds = call_seconds
        self._is_up: bool | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it can be used, as far as is known; false before the first probe is through."""
        return self._is_up is True

    def start(self) -> None:
        """Begin to probe, at once."""
        self._task = asyncio.create_task(self._run(), name="tidegate redis watch")

    def lost(self, error: Exception) -> None:
        """A use failed.

        Args:
            error: why; only its kind is told, since servers repeat in words what they were sent.
        """
        if self._is_up is not False:
            self._is_up = False
            logger.warning(
                "Redis at %s cannot be used (%s): requests with an Idempotency-Key, and those for a ticket "
                "or with one, are refused until it is back",
                self._address,
                type(error).__name__,
            )

    async def close(self) -> None:
        """Probe no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._client.aclose()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._call_seconds):
                    await self._probe(keys=[_KEY])
            except (OSError, RedisError) as error:
                self.lost(error)
            else:
                self._found()
            await asyncio.sleep(self._probe_seconds)

    def _found(self) -> None:
        if self._is_up is False:
            logger.info("Redis at %s can be used again", self._address)
        self._is_up = True


def _address_of(url: str) -> str:
    """Host and port, without whom to be there."""
    address = urlsplit(url).netloc.rpartition("@")[2]
    return address if urlsplit(url).port is not None else f"{address.removesuffix(':')}:{_DEFAULT_PORT}"
