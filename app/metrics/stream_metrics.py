"""Metrics of what comes from the broker and goes to streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.hub.control import GapReason
from app.hub.hub import Hub
from app.hub.listener import CloseReason
from app.settings import Settings

FORMS: Final = ("sse", "ndjson", "websocket")
SUBSCRIPTION: Final = "subscription"


def stream_metrics(hub: Hub, settings: Settings) -> Iterator[Metric]:
    """Who follows what, and what they were given."""
    counts = hub.counts
    yield GaugeMetricFamily("tidegate_draining", "1 once the bridge stops.", hub.is_draining)
    yield GaugeMetricFamily("tidegate_filters", "Topic filters held at the broker.", hub.held_filters)
    streams = GaugeMetricFamily("tidegate_streams", "Streams that are open.", labels=("form",))
    for form in FORMS:
        streams.add_metric((form,), counts.open[form])
    yield streams
    yield GaugeMetricFamily(
        "tidegate_websocket_subscriptions", "Subscriptions of open WebSockets.", counts.open[SUBSCRIPTION]
    )
    yield GaugeMetricFamily(
        "tidegate_listeners", "Streams, WebSockets and their subscriptions together.", hub.listeners
    )
    yield GaugeMetricFamily("tidegate_listeners_limit", "How many may be open.", settings.max_streams)
    ended = CounterMetricFamily(
        "tidegate_streams_ended", "Streams, WebSockets and subscriptions that ended.", labels=("reason",)
    )
    for reason in CloseReason:
        ended.add_metric((reason.reason,), hub.ended[reason])
    yield ended
    yield CounterMetricFamily(
        "tidegate_messages_received", "Messages from the broker that somebody here follows.", counts.messages
    )
    yield CounterMetricFamily(
        "tidegate_deliveries", "Events that were written to streams.", counts.deliveries
    )
    yield GaugeMetricFamily(
        "tidegate_stream_pending_bytes", "What readers of streams have not read yet.", hub.pending_bytes
    )
    yield GaugeMetricFamily(
        "tidegate_stream_pending_limit_bytes", "How much that may be.", settings.streams_max_bytes
    )
    yield from _losses(hub)
    yield GaugeMetricFamily(
        "tidegate_journal_messages", "Messages kept for who comes back.", len(hub.journal)
    )
    yield GaugeMetricFamily("tidegate_journal_bytes", "About the memory that they take.", hub.journal.size)


def _losses(hub: Hub) -> Iterator[Metric]:
    counts = hub.counts
    left_out = CounterMetricFamily(
        "tidegate_stream_messages_left_out", "Messages that a stream was not given.", labels=("reason",)
    )
    left_out.add_metric(("dropped",), counts.dropped)
    left_out.add_metric(("conflated",), counts.conflated)
    left_out.add_metric(("thinned",), counts.thinned)
    yield left_out
    yield CounterMetricFamily(
        "tidegate_stream_lags", "Times that a slow reader lost messages.", counts.lagged
    )
    gaps = CounterMetricFamily(
        "tidegate_stream_gaps", "Streams told that something may be missing.", labels=("reason",)
    )
    for reason in get_args(GapReason):  # from the start: an alert waits for the first of them
        gaps.add_metric((reason,), counts.gaps[reason])
    yield gaps
    yield CounterMetricFamily(
        "tidegate_stream_replays", "Clients that came back and were given what they missed.", counts.replays
    )
    yield CounterMetricFamily(
        "tidegate_stream_replayed_messages", "The messages that they were given.", counts.replayed
    )
