"""Reading retained messages, for which MQTT has no request.

A reader joins the hub like any listener, so that a filter which streams hold already is shared with them and
none of them notices. The broker sends what it retains when it takes the SUBSCRIBE; there is no end mark.
Round trips made after SUBACK stand in for one: what was queued before is on the wire before their answers.
Two in a row that bring nothing new end the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.listener import CloseReason, Listener
from tidegate.errors import MQTTTimeoutError

QUIET_ROUND_TRIPS: Final = 2


class _Collector(Listener):
    """Keeps the retained messages and lets live ones pass."""

    def __init__(self, topic_filter: str, *, qos: int, limit: int) -> None:
        super().__init__([topic_filter], qos=qos, retained=True, is_resumable=False)
        self.found: dict[str, Event] = {}
        self._limit = limit

    def begins(self, topic: str) -> bool:
        """Every retained message is one to keep, also of a topic that is live."""
        return True

    def offer(self, event: Event | ControlEvent) -> None:
        """Keep a retained message; the newest of a topic counts."""
        if isinstance(event, Event) and event.message.retain:
            self.found[event.message.topic] = event
            if len(self.found) > self._limit:
                self.close(CloseReason.TOO_SLOW)


class TooManyRetainedError(Exception):
    """A filter matches more retained messages than may be read at once."""


async def read_retained(
    hub: Hub,
    topic_filter: str,
    *,
    round_trip: Callable[[], Awaitable[None]],
    timeout_seconds: float,
    limit: int,
) -> list[Event]:
    """The retained messages that match a filter, ordered by topic.

    Args:
        hub: the hub whose session is used.
        topic_filter: a valid filter; one without wildcards finds one message at most.
        round_trip: makes one round trip to the broker.
        timeout_seconds: bound on the whole reading.
        limit: how many messages may be read.

    Raises:
        RefusedError: the broker refuses the filter.
        NotConnectedError: the broker is away.
        MQTTTimeoutError: the broker did not answer in time.
        TooManyRetainedError: there are more than ``limit``.
    """
    # At QoS 0: at 1 and 2 a broker queues the message behind those in flight, or drops it from a full queue.
    collector = _Collector(topic_filter, qos=0, limit=limit)
    try:
        async with asyncio.timeout(timeout_seconds):
            await hub.join(collector)
            quiet = 0
            while quiet < QUIET_ROUND_TRIPS and collector.close_reason is None:
                before = len(collector.found)
                await round_trip()
                quiet = quiet + 1 if len(collector.found) == before else 0
    except TimeoutError:
        raise MQTTTimeoutError(f"the broker did not answer within {timeout_seconds:g} s") from None
    finally:
        is_too_long = collector.close_reason is CloseReason.TOO_SLOW
        hub.leave(collector)
    if is_too_long:
        raise TooManyRetainedError(f"more than {limit} retained messages match {topic_filter!r}")
    return [collector.found[topic] for topic in sorted(collector.found)]
