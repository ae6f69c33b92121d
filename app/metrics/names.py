"""The names of metrics, and those of their labels."""

from __future__ import annotations

from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.metrics.publish_metrics import schema_metrics
from app.publishing.schemas import Schemas

_SUFFIXES: Final = {"counter": "_total", "info": "_info"}


def metric_names(collector: Collector) -> dict[str, list[str]]:
    """Each metric as it is asked for, a histogram without what is added for its parts, with its labels.

    Args:
        collector: that of a bridge; what only one with schemas has is added.
    """
    collected = {_name(each): each for each in (*schema_metrics(Schemas(())), *collector.collect())}
    return {name: _labels(collected[name]) for name in sorted(collected)}


def _name(metric: Metric) -> str:
    return metric.name + _SUFFIXES.get(metric.type, "")


def _labels(metric: Metric) -> list[str]:
    if metric.type == "info":
        return sorted({label for each in metric.samples for label in each.labels})
    labels: tuple[str, ...] = metric._labelnames  # type: ignore[attr-defined]  # each family has them
    return sorted(labels)
