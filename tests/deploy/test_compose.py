"""deploy/compose.yaml, read by Compose itself, which needs no engine for that; and what it mounts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from tests.support.bridge import wait_until
from tests.support.chart import unknown_to_the_bridge
from tests.support.command import ROOT
from tests.support.mosquitto import Mosquitto
from tests.support.mosquitto_clients import publish, retained

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE = Path(sys.executable).parent / "docker-compose"
SECONDS = 60.0


def read_by_compose(file: Path) -> subprocess.CompletedProcess[str]:
    """What ``docker compose config`` says of a file."""
    return subprocess.run(
        [COMPOSE, "--file", file, "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@cache
def services() -> dict[str, Any]:
    """The services by name, as Compose understands them."""
    done = read_by_compose(FILE)
    assert (0, "") == (done.returncode, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def published() -> list[dict[str, Any]]:
    """Every port that the machine sees."""
    return [port for each in services().values() for port in each.get("ports", [])]


def test_compose_reads_it() -> None:
    """The bridge, its broker, and what watches them."""
    assert {"bridge", "mosquitto", "prometheus", "grafana"} == services().keys()


def test_a_slip_is_found(tmp_path: Path) -> None:
    """Compose refuses a key that it does not know, so that the test above means something."""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(
        FILE.read_text().replace("read_only: true\n    cap_drop", "read_onli: true\n    cap_drop")
    )
    done = read_by_compose(wrong)
    assert 0 != done.returncode
    assert "read_onli" in done.stderr


def test_images_are_of_one_release() -> None:
    """Registry and version are written out, so that tomorrow's is today's."""
    images = [each["image"] for name, each in services().items() if name != "bridge"]
    assert 3 == len(images)
    for image in images:
        assert re.fullmatch(r"docker\.io/[a-z-]+/[a-z-]+:v?\d+\.\d+\.\d+", image), image


def test_nothing_is_reached_from_elsewhere() -> None:
    """Nobody is asked who they are, so each port is one of loopback, and no two are the same."""
    assert {"127.0.0.1"} == {port["host_ip"] for port in published()}
    numbers = [port["published"] for port in published()]
    assert sorted(set(numbers)) == sorted(numbers)


def test_every_file_that_is_mounted_is_there() -> None:
    """An engine would make an empty directory of one that is not."""
    mounts = [each for service in services().values() for each in service.get("volumes", [])]
    sources = [Path(each["source"]) for each in mounts if each["type"] == "bind"]
    assert sources
    assert [] == [str(source) for source in sources if not source.exists()]
    assert (Path(services()["bridge"]["build"]["context"]) / "deploy" / "Dockerfile").is_file()


def test_the_bridge_knows_what_it_is_given() -> None:
    """No variable is one that it would refuse to start for, and the grace is longer than the drain."""
    bridge = services()["bridge"]
    given = bridge["environment"]
    assert [] == unknown_to_the_bridge(list(given))
    assert float(bridge["stop_grace_period"].removesuffix("s")) > float(given["TIDEGATE_DRAIN_SECONDS"])


def test_the_bridge_starts_with_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings can be used together."""
    for name, value in services()["bridge"]["environment"].items():
        monkeypatch.setenv(name, value)
    assert "mqtt://mosquitto:1883" == Settings().broker_url.get_secret_value()


def test_prometheus_reads_the_bridge_and_its_alerts() -> None:
    """The target is the bridge's management port, and the alerts are where they are mounted."""
    configuration = yaml.safe_load((FILE.parent / "compose" / "prometheus.yaml").read_text())
    [job] = configuration["scrape_configs"]
    assert ["bridge:" + services()["bridge"]["environment"]["TIDEGATE_MANAGEMENT_PORT"]] == (
        job["static_configs"][0]["targets"]
    )
    mounted = {each["target"] for each in services()["prometheus"]["volumes"]}
    assert set(configuration["rule_files"]) <= mounted


def test_grafana_is_told_of_prometheus_and_of_the_dashboards() -> None:
    """Both are provisioned from files, and the path of the dashboards is mounted."""
    provisioning = FILE.parent / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    port = next(each for each in services()["prometheus"]["ports"])["target"]
    assert f"http://prometheus:{port}" == source["url"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "tidegate.yaml").read_text())["providers"]
    assert provider["options"]["path"] in {each["target"] for each in services()["grafana"]["volumes"]}


def test_the_broker_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """With the settings of compose/mosquitto.conf a retained message outlives kill -9."""
    lines = (FILE.parent / "compose" / "mosquitto.conf").read_text().splitlines()
    own = {"listener", "allow_anonymous", "persistence_location", "log_dest", "#"}
    kept = [line for line in lines if line and line.split()[0] not in own]
    assert "autosave_on_changes true" in kept
    with Mosquitto(extra=[*kept, f"persistence_location {tmp_path}/"]) as broker:
        publish(broker, "kept", b"still here", retain=True)
        database = tmp_path / "mosquitto.db"
        wait_until(lambda: database.exists() and b"still here" in database.read_bytes())
        broker.kill()
        broker.start()
        assert "still here" == retained(broker, "kept").payload
