"""Metrics of the connection to the broker."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.broker.link import BrokerLink
from app.settings import Settings
from tidegate.session import SessionState


def broker_metrics(link: BrokerLink, settings: Settings) -> Iterator[Metric]:
    """The connection's state, and what is on its way over it."""
    session = link.session
    state = GaugeMetricFamily(
        "tidegate_broker_state", "1 for the state that the session with the broker is in.", labels=("state",)
    )
    for each in SessionState:
        state.add_metric((each.value,), session.state is each)
    yield state
    yield CounterMetricFamily(
        "tidegate_broker_connections", "Connections that were made to the broker.", link.connections
    )
    yield CounterMetricFamily(
        "tidegate_broker_connection_failures", "Attempts to connect that failed.", link.failures
    )
    age = GaugeMetricFamily(
        "tidegate_broker_round_trip_age_seconds",
        "How long ago the broker answered last; not there without a connection.",
    )
    seconds = session.last_round_trip_seconds_ago
    if seconds is not None:
        age.add_metric((), seconds)
    yield age
    limits = link.limits
    in_flight_limit = settings.max_in_flight
    if limits is not None:
        in_flight_limit = min(in_flight_limit, limits.receive_maximum)
    yield GaugeMetricFamily(
        "tidegate_broker_in_flight_messages", "Messages sent and not acknowledged.", session.in_flight
    )
    yield GaugeMetricFamily("tidegate_broker_in_flight_limit_messages", "How many may be.", in_flight_limit)
    yield GaugeMetricFamily(
        "tidegate_broker_waiting_messages", "Messages that wait for the broker.", session.waiting
    )
    yield GaugeMetricFamily("tidegate_broker_waiting_limit_messages", "How many may.", settings.max_waiting)
