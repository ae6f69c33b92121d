"""Metrics of HTTP requests: how many, with which answers, and how long they took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from app.metrics.http_counts import NO_ANSWER, HttpCounts
from app.metrics.publish_metrics import buckets

NONE: Final = "none"
"""The status of a request whose client left before it had one."""


def http_metrics(counts: HttpCounts) -> Iterator[Metric]:
    """Rate, errors and duration, by method and route."""
    requests = CounterMetricFamily(
        "tidegate_http_requests",
        "HTTP requests that were answered, and streams that began.",
        labels=("method", "route", "status"),
    )
    durations = HistogramMetricFamily(
        "tidegate_http_request_duration_seconds",
        "From the head of a request to the end of its answer; of a stream to its beginning.",
        labels=("method", "route"),
    )
    for (method, route), counted in counts:
        for status, count in counted.by_status.items():
            requests.add_metric((method, route, NONE if status == NO_ANSWER else str(status)), count)
        durations.add_metric((method, route), buckets(counted.durations), counted.durations.seconds)
    yield requests
    yield durations
    yield GaugeMetricFamily(
        "tidegate_http_requests_in_progress",
        "HTTP requests that are not answered yet, without streams that began.",
        counts.in_progress,
    )
