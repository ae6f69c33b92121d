"""What docs/schemas.md and docs/cloudevents.md show works as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from app.publishing.schema_file import load_schemas
from tests.support.bridge import running_bridge
from tests.support.command import ROOT, SECONDS
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish, retained
from tidegate.message import Message

ADDRESS = "http://127.0.0.1:8080"
CELSIUS = {"properties": {"celsius": {"type": "number"}}}


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of one language, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def example(directory: Path) -> Path:
    """The file of schemas that the page shows, with the schema that it names."""
    (directory / "temperature.json").write_text(json.dumps(CELSIUS))
    file = directory / "schemas.yaml"
    file.write_text(blocks("schemas.md", "yaml")[0])
    return file


def test_the_file_of_schemas(tmp_path: Path) -> None:
    """Both of its entries bind."""
    schemas = load_schemas(example(tmp_path))
    assert 2 == len(schemas)
    fault = schemas.judge(Message("sensors/7/temperature", b'{"celsius":"hot"}'))
    assert fault is not None
    assert fault.is_dropped
    assert schemas.judge(Message("commands/7", b'{"command":"start"}')) is None
    assert schemas.judge(Message("commands/7", b'{"command":"explode"}')) is not None


def test_what_is_answered_and_delivered(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The problem and the event that the page shows are those that the bridge gives, but for the time."""
    problem, envelope = (json.loads(each) for each in blocks("schemas.md", "json"))
    flagging = example(tmp_path)
    flagging.write_text(
        flagging.read_text().replace("invalid_from_broker: drop", "invalid_from_broker: deliver")
    )
    with running_bridge(mosquitto.url, schemas_file=flagging) as bridge:
        answer = bridge.client.post("/v1/topics/sensors/7/temperature", json={"celsius": "hot"})
        assert problem == answer.json()
        publish(mosquitto, "sensors/7/temperature", b'{"celsius":"hot"}', retain=True)
        found = bridge.client.get("/v1/topics/sensors/%2B/temperature").json()
        bridge.client.delete("/v1/topics/sensors/7/temperature").raise_for_status()
    expected = {**envelope, "time": found[0]["time"], "qos": 0, "retain": True}
    assert [expected] == found


def test_the_commands_that_publish_events(mosquitto: Mosquitto) -> None:
    """Each is taken; the one in binary mode has its attributes as user properties, the other its text."""
    binary, structured = blocks("cloudevents.md", "console")
    with running_bridge(mosquitto.url) as bridge:

        def run(command: str) -> None:
            kept = command.replace(ADDRESS, bridge.url).replace("curl", "curl --request PUT --fail --silent")
            subprocess.run(["bash", "-c", kept], check=True, capture_output=True, timeout=SECONDS)

        run(binary)
        users = retained(mosquitto, "sensors/7/temperature").user_properties
        assert [("specversion", "1.0"), ("id", "A-1")] == users[:2]
        run(structured)
        assert 21.5 == json.loads(retained(mosquitto, "sensors/7/temperature").payload)["data"]
        bridge.client.delete("/v1/topics/sensors/7/temperature").raise_for_status()
