"""A broker that restarts on its store under load: what was answered with 200 has arrived."""

from __future__ import annotations

from typing import Any

import pytest

from bench.restarts import IN_FLIGHT, publish_over_restarts
from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto

KEPT = {"broker_client_id": "restarts", "broker_session_expiry_seconds": 600}


@pytest.mark.parametrize(("qos", "settings"), [(1, {}), (2, KEPT)])
async def test_no_message_that_was_acknowledged_is_lost_over_restarts(
    qos: int, settings: dict[str, Any]
) -> None:
    """Killed or stopped three times under load; with QoS 2 in a kept session nothing is doubled.

    With QoS 2 the broker is only stopped: killed, Mosquitto forgets what it confirmed last.
    """
    with (
        Mosquitto(persistence=True, extra=[IN_FLIGHT]) as broker,
        running_bridge(broker.url, publish_timeout_seconds=60, **settings) as bridge,
    ):
        report = await publish_over_restarts(
            broker,
            bridge.url,
            publishes=2000,
            clients=8,
            restarts=3,
            ends=(broker.kill, broker.stop) if qos == 1 else (broker.stop,),
            qos=qos,
            patience_seconds=30,
        )
    assert report.restarts == 3
    assert report.lost == set()
    assert report.answers.total() == 2000
    if qos == 2:
        assert report.duplicates == 0
