"""docs/operating.md, the alerts and the dashboard name the metrics and alerts that there are, and all."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app.problems import ProblemType
from app.settings import Settings
from app.settings.sources import variable
from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tests.support.valkey import Valkey

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/operating.md"
RULES: Final = ROOT / "deploy/prometheus/rules.yaml"
RULES_TEST: Final = ROOT / "deploy/prometheus/rules_test.yaml"
DASHBOARD: Final = ROOT / "deploy/grafana/tidegate.json"

METRIC: Final = re.compile(r"\b(?:tidegate|process)_[a-z_]+\b")
SELECTOR: Final = re.compile(r"\b((?:tidegate|process)_[a-z_]+)\{([^}]*)\}")
SCRAPED: Final = {"job", "instance"}
"""Labels that Prometheus adds."""

Exposed = dict[str, set[str]]


@pytest.fixture(scope="module")
def exposed(mosquitto: Mosquitto, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    """The series of a real bridge after traffic of every sort: names, each with its labels."""
    file = tmp_path_factory.mktemp("operating") / "schemas.yaml"
    file.write_text('schemas:\n  - topics: "operating/typed"\n    schema: {type: integer}\n')
    with running_bridge(mosquitto.url, schemas_file=file, redis_url=valkey.url) as bridge:
        bridge.app.state.collector.days_left = lambda: {"plant": 30.0}
        bridge.app.state.refusals.count("expired")
        bridge.app.state.collector._not_allowed = {"publish": 1}
        with RawStream(bridge.port, "operating/a", last_event_id="nobody-1"):
            bridge.client.post("/v1/topics/operating/a", content=b"1").raise_for_status()
            assert bridge.client.post("/v1/topics/operating/typed", content=b"x").status_code >= 400
            return series(bridge)


def series(bridge: Bridge) -> Exposed:
    """The names of all series, each with the labels that it has."""
    found: Exposed = {}
    for line in bridge.client.get("/metrics").text.splitlines():
        if line.startswith("# TYPE "):
            found.setdefault(line.split(" ")[2], set())
        elif not line.startswith("#"):
            name, _, labels = line.partition("{")
            keys = re.findall(r'(\w+)="', labels.rpartition("}")[0])
            found.setdefault(name.partition(" ")[0], set()).update(keys)
    return found


def families(exposed: Exposed) -> set[str]:
    """The metrics, a histogram as one."""
    histograms = {name.removesuffix("_bucket") for name in exposed if name.endswith("_bucket")}
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    return set(exposed) - parts


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    content = yaml.safe_load(RULES.read_text())
    return {rule["alert"]: rule for group in content["groups"] for rule in group["rules"]}


def expressions() -> Iterator[str]:
    """What the dashboard asks for."""
    content = json.loads(DASHBOARD.read_text())
    for panel in content["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for each in content["templating"]["list"]:
        if each["type"] == "query":
            yield each["definition"]


def test_the_page_names_each_metric_and_no_other(exposed: Exposed) -> None:
    """In its tables, and in its prose."""
    text = PAGE.read_text()
    tables = text.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    assert families(exposed) == set(re.findall(r"^\| `([a-z_]+)` \|", tables, re.MULTILINE))
    assert set(METRIC.findall(text)) <= set(exposed)


def test_the_page_says_what_to_do_about_each_alert() -> None:
    """Each has a section under its own name, and every section an alert."""
    text = PAGE.read_text()
    body = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    sections = dict(re.findall(r"^### (\w+)\n\n(.+?)(?=\n\n###|\Z)", body, re.MULTILINE | re.DOTALL))
    assert set(alerts()) == set(sections)
    assert set(re.findall(r"\bTidegate[A-Z]\w+", text)) <= set(alerts())


def test_the_page_names_settings_that_there_are() -> None:
    """By their whole names."""
    known = {variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"\bTIDEGATE_[A-Z_]+\b", PAGE.read_text())) <= known


def test_the_page_names_types_of_problems_that_there_are() -> None:
    """They are the reasons of publishes that fail."""
    slugs = {each.slug for each in ProblemType}
    body = (
        PAGE.read_text().partition("### TidegatePublishesFail")[2].partition("### TidegatePublishesSlow")[0]
    )
    named = set(re.findall(r"`([a-z]+-[a-z]+)`", body))
    assert named
    assert named <= slugs


def test_each_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    """Summary, description, and the section of the page."""
    for name, rule in alerts().items():
        assert {"summary", "description", "runbook"} == rule["annotations"].keys(), name
        assert f"docs/operating.md#{name.lower()}" == rule["annotations"]["runbook"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, name
        assert re.search(r"\{\{ \$labels\.(instance|credential) \}\}", rule["annotations"]["summary"]), name


@pytest.mark.parametrize("source", ["rules", "dashboard"])
def test_each_series_that_is_asked_for_is_exposed(exposed: Exposed, source: str) -> None:
    """With the labels that it is selected by."""
    asked = [rule["expr"] for rule in alerts().values()] if source == "rules" else list(expressions())
    assert asked
    for expression in asked:
        names = set(METRIC.findall(expression))
        assert names <= set(exposed), expression
        for name, matchers in SELECTOR.findall(expression):
            assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers)) <= exposed[name] | SCRAPED, expression
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            labels = {each.strip() for each in group.split(",")}
            assert labels <= set().union(SCRAPED, *(exposed[name] for name in names)), expression


def test_the_dashboard_asks_for_each_metric_of_the_bridge(exposed: Exposed) -> None:
    """What it does not show is looked for nowhere."""
    shown = set(METRIC.findall(" ".join(expressions())))
    left_out = {name for name in families(exposed) if name.startswith("tidegate_")} - {
        each.removesuffix("_bucket") for each in shown
    }
    assert {"tidegate_broker_waiting_limit_messages", "tidegate_draining"} == left_out


def test_the_panels_of_the_dashboard_have_names_and_do_not_overlap() -> None:
    """Each has an id and a place of its own."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len(panels) == len({each["id"] for each in panels}) == len({each["title"] for each in panels})
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def promtool(*arguments: str | Path) -> None:
    """Run promtool, and have it succeed."""
    outcome = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert 0 == outcome.returncode, outcome.stdout + outcome.stderr


def test_the_expressions_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    """Prometheus' own parser takes each of them."""
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "5m").replace("$job", ".*")}
        for number, each in enumerate(expressions())
        if not each.startswith("label_values(")
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    """What rules_test.yaml says, with a case of either sort for each."""
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULES_TEST)
    cases = yaml.safe_load(RULES_TEST.read_text())["tests"]
    names = {each["name"] for each in cases}
    assert {f"{name} {how}" for name in alerts() for how in ("fires", "keeps quiet")} == names
    for case in cases:
        ((expected,),) = (each["exp_alerts"] or [None] for each in case["alert_rule_test"])
        assert (expected is not None) is case["name"].endswith(" fires")
