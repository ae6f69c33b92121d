"""docs/brokers.md: Mosquitto takes the configuration that is shown, and the bridge sees what it is for."""

from __future__ import annotations

from typing import Final

from app.settings import Settings
from tests.support.bridge import running_bridge
from tests.support.markdown import blocks
from tests.support.mosquitto import Mosquitto

PLACE: Final = {"listener", "certfile", "keyfile", "password_file", "acl_file"}
"""What belongs to the machine: where it listens, and files."""


def test_mosquitto_takes_the_configuration_that_is_shown() -> None:
    """The bridge may have as many messages in flight as it would by itself, and gets acknowledgements."""
    [shown] = [
        block for block in blocks("") if block.page == "docs/brokers.md" and "persistence" in block.text
    ]
    lines = [line for line in shown.text.splitlines() if line and line.split()[0] not in PLACE]
    assert 6 == len(lines)
    with Mosquitto(persistence=True, extra=lines) as broker, running_bridge(broker.url) as bridge:
        limits = bridge.client.get("/v1/status").json()["broker"]["limits"]
        assert Settings.model_fields["max_in_flight"].default == limits["receive_maximum"]
        assert 200 == bridge.client.post("/v1/topics/brokers/a", content=b"1").status_code
