"""Metrics of what goes to the broker: publishes, requests, and what their callers were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from app.problems import ProblemType
from app.publishing.counts import BUCKETS, Durations, PublishCounts
from app.publishing.replies import ReplyCounts
from app.publishing.schemas import Schemas


def publish_metrics(counts: PublishCounts) -> Iterator[Metric]:
    """What became of messages, and how long it took."""
    publishes = CounterMetricFamily(
        "tidegate_publishes",
        "Messages to publish, by what became of them.",
        labels=("qos", "outcome", "reason"),
    )
    for outcome, count in counts:
        publishes.add_metric(outcome, count)
    yield publishes
    durations = HistogramMetricFamily(
        "tidegate_publish_duration_seconds",
        "Until the broker acknowledged (QoS 0: until the socket had it), of single messages accepted.",
        labels=("qos",),
    )
    for qos, each in enumerate(counts.durations):
        durations.add_metric((str(qos),), buckets(each), each.seconds)
    yield durations


def request_metrics(counts: ReplyCounts) -> Iterator[Metric]:
    """Requests that wait for a device's reply, and what became of others."""
    yield GaugeMetricFamily("tidegate_requests_waiting", "Requests that wait for a reply.", counts.waiting)
    requests = CounterMetricFamily("tidegate_requests", "Requests that ended.", labels=("outcome",))
    requests.add_metric(("answered",), counts.answered)
    requests.add_metric(("timed_out",), counts.timed_out)
    yield requests
    dropped = CounterMetricFamily(
        "tidegate_replies_dropped", "Messages on reply topics that went to nobody.", labels=("reason",)
    )
    dropped.add_metric(("late",), counts.late_replies)
    dropped.add_metric(("unmatched",), counts.unmatched_replies)
    yield dropped


def schema_metrics(schemas: Schemas) -> Iterator[Metric]:
    """Messages whose payload does not match its schema."""
    faults = CounterMetricFamily(
        "tidegate_schema_faults", "Messages that do not match their schema.", labels=("action",)
    )
    faults.add_metric(("refused",), schemas.refused)
    faults.add_metric(("flagged",), schemas.flagged)
    faults.add_metric(("dropped",), schemas.dropped)
    yield faults


def problem_metrics(problems: Counter[ProblemType]) -> Iterator[Metric]:
    """Error answers; faults of the bridge from the start, since an alert waits for the first of them."""
    family = CounterMetricFamily(
        "tidegate_http_problems",
        "HTTP requests that were answered with a problem, by its type.",
        labels=("type",),
    )
    for kind, count in {ProblemType.INTERNAL_ERROR: 0, **problems}.items():
        family.add_metric((kind.slug,), count)
    yield family


def buckets(durations: Durations) -> list[tuple[str, float]]:
    """The buckets of a histogram; cumulative, as Prometheus has them."""
    sums: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), durations.counts, strict=True):
        total += count
        sums.append((bound, total))
    return sums
