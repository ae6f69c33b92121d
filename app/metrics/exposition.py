"""All metrics of one bridge, as they are written for Prometheus.

One process serves one bridge, so there is nothing to add up over processes; replicas are scraped each.
"""

from __future__ import annotations

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.broker.link import BrokerLink
from app.hub.hub import Hub
from app.metrics.broker_metrics import broker_metrics
from app.metrics.http_counts import HttpCounts
from app.metrics.http_metrics import http_metrics
from app.metrics.publish_metrics import problem_metrics, publish_metrics, request_metrics, schema_metrics
from app.metrics.refusals import AuthenticationRefusals, refusal_metrics
from app.metrics.stream_metrics import stream_metrics
from app.problems import ProblemType
from app.publishing.counts import PublishCounts
from app.publishing.replies import ReplyCounts
from app.publishing.schemas import Schemas
from app.settings import Settings

if TYPE_CHECKING:
    from app.redis_watch import RedisWatch

MAX_CREDENTIALS: Final = 100
SECONDS_A_DAY: Final = 86_400


def _none() -> Mapping[str, float]:
    return {}


class BridgeCollector(Collector):
    """Reads the numbers of all parts when it is asked, in one turn of the event loop.

    Args:
        link: the broker.
        hub: the streams.
        publishes: what became of messages.
        replies: what became of requests.
        problems: what was answered in place of what was asked for.
        schemas: those in force, where there are some.
        refusals: who was refused for who they are.
        not_allowed: what else was refused to whom, as often as it was, by action.
        settings: the bounds.
        http: how HTTP requests were answered.
        redis: whether what replicas share can be used; None where they share nothing.

    Attributes:
        days_left: gives the days until each credential's certificate ends, by the credential's name; those
            that end first are told, at most ``MAX_CREDENTIALS``.
    """

    def __init__(
        self,
        link: BrokerLink,
        hub: Hub,
        publishes: PublishCounts,
        replies: ReplyCounts,
        problems: Counter[ProblemType],
        schemas: Schemas | None,
        refusals: AuthenticationRefusals,
        not_allowed: Mapping[str, int],
        settings: Settings,
        http: HttpCounts,
        redis: RedisWatch | None,
    ) -> None:
        self._http = http
        self._redis = redis
        self._link = link
        self._hub = hub
        self._publishes = publishes
        self._replies = replies
        self._problems = problems
        self._schemas = schemas
        self._refusals = refusals
        self._not_allowed = not_allowed
        self._settings = settings
        self._build = {"version": version("tidegate-bridge"), "python": platform.python_version()}
        self.days_left: Callable[[], Mapping[str, float]] = _none

    def collect(self) -> Iterator[Metric]:
        """Every metric of the bridge (``prometheus_client``)."""
        yield InfoMetricFamily("tidegate_build", "What runs here.", self._build)
        yield from broker_metrics(self._link, self._settings)
        yield from publish_metrics(self._publishes)
        yield from request_metrics(self._replies)
        if self._schemas is not None:
            yield from schema_metrics(self._schemas)
        yield from stream_metrics(self._hub, self._settings)
        yield from http_metrics(self._http)
        yield from problem_metrics(self._problems)
        yield from refusal_metrics(self._refusals, self._not_allowed)
        remaining = GaugeMetricFamily(
            "tidegate_credential_remaining_seconds",
            "Until a credential's certificate ends; below zero once it has.",
            labels=("credential",),
        )
        soonest = sorted(self.days_left().items(), key=lambda each: each[1])[:MAX_CREDENTIALS]
        for name, days in soonest:
            remaining.add_metric((name,), days * SECONDS_A_DAY)
        yield remaining
        if self._redis is not None:
            yield GaugeMetricFamily(
                "tidegate_redis_up", "Whether the Redis that replicas share can be used.", self._redis.is_up
            )


class Exposition:
    """Writes metrics in the format that a scraper asks for.

    Args:
        collector: the bridge's own metrics; those of the process are added.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._process = ProcessCollector(registry=None)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics, and their content type.

        The bridge's own are read in one turn of the loop, a millisecond with ten thousand streams. What the
        kernel is asked for takes longer, seven with as many connections, and is asked for in a thread.

        Args:
            accept: the ``Accept`` of the request: OpenMetrics where it names that, else Prometheus' text.
        """
        encode, content_type = choose_encoder(accept)
        families = list(self._collector.collect())
        return await asyncio.to_thread(self._write, encode, families), content_type

    def _write(self, encode: Callable[[Collector], bytes], families: list[Metric]) -> bytes:
        return encode(_Collected([*families, *self._process.collect()]))


class _Collected(Collector):
    """What was collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
