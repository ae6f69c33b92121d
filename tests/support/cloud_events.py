"""CloudEvents as tests write and read them."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.support.bridge import Bridge

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
NDJSON: Final = "application/x-ndjson"
REQUIRED: Final = {
    "ce-specversion": "1.0",
    "ce-id": "A-1",
    "ce-source": "/sensors/7",
    "ce-type": "com.example.measured",
}
BINARY: Final = [
    ("content-type", "application/json"),
    ("user-property", "specversion", "1.0"),
    ("user-property", "id", "A-1"),
    ("user-property", "source", "/sensors/7"),
    ("user-property", "type", "com.example.measured"),
]
EVENT: Final = (
    '{"specversion":"1.0","id":"A-1","source":"/sensors/7","type":"com.example.measured","data":1.10}'
)


def followed(bridge: Bridge, topic: str, **headers: str) -> list[dict[str, Any]]:
    """What is kept for a topic, as a stream of CloudEvents has it: lines as objects."""
    answer = bridge.client.get(f"/v1/subscribe?topic={topic}&limit=1&format=cloudevents", headers=headers)
    assert 200 == answer.status_code
    if answer.headers["content-type"].startswith("text/event-stream"):
        texts = [each[6:] for each in answer.text.splitlines() if each.startswith("data: ")]
    else:
        texts = [each for each in answer.text.splitlines() if each]
    return [json.loads(each) for each in texts]
