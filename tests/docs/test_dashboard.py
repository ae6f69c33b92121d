"""Each query of the dashboard and each alert is asked of a real Prometheus that scrapes a real bridge."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.support.bridge import wait_until
from tests.support.mixed_load import MONITOR, loaded_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.prometheus import Prometheus, Sample

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/operating.md"
RULES: Final = ROOT / "deploy/prometheus/rules.yaml"
DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "deploy/grafana/tidegate.json").read_text())

VARIABLES: Final[list[dict[str, Any]]] = DASHBOARD["templating"]["list"]
RATE_INTERVAL: Final = "10m"
"""What Grafana makes of ``$__rate_interval``; here it spans the whole test, however slow the machine."""

LABEL_VALUES: Final = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


class Query(NamedTuple):
    """What one line of a panel asks for."""

    panel: str
    expression: str


def panels() -> list[dict[str, Any]]:
    """All but the rows."""
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


QUERIES: Final = {
    f"{panel['title']} {target['refId']}": Query(panel["title"], target["expr"])
    for panel in panels()
    for target in panel["targets"]
}
NOW: Final = [
    f"{panel['title']} {target['refId']}"
    for panel in panels()
    if panel["type"] == "stat"
    for target in panel["targets"]
]
"""What is looked at first."""


EMPTY_ON_A_GOOD_DAY: Final = {
    "Share of requests that fail A": "the routes at which some did",
    "Why publishes are not accepted A": "the reasons that there were",
    "Why streams end A": "the reasons for which some did lately",
    "Callers refused A": "the reasons that there were",
    "Callers refused B": "the actions that somebody was refused",
}
"""What a query shows nothing for, and what it waits for; a bridge that refuses nobody has none of it."""


class Watched(NamedTuple):
    """A Prometheus, and the moments that were worth a look.

    Attributes:
        prometheus: the server.
        variables: those of the dashboard, with what stands for all that there is.
        calm: after a few publishes, none of which failed.
        busy: in the midst of everything.
    """

    prometheus: Prometheus
    variables: dict[str, str]
    calm: float
    busy: float

    def ask(self, name: str, at: float) -> list[Sample]:
        """What a query of the dashboard gave at a moment."""
        return self.prometheus.query(filled(QUERIES[name].expression, self.variables), at)


def filled(text: str, variables: dict[str, str]) -> str:
    """A query as Grafana sends it."""
    for name, each in variables.items():
        text = re.sub(rf"\${name}\b", lambda _, each=each: each, text)  # type: ignore[misc]
    assert "$" not in text, text
    return text


def all_values(prometheus: Prometheus) -> dict[str, str]:
    """The variables of the dashboard as Grafana fills them in where ``All`` is chosen."""
    variables = {"__rate_interval": RATE_INTERVAL}
    for each in VARIABLES:
        if each["type"] == "query":
            asked = LABEL_VALUES.fullmatch(filled(each["definition"], variables))
            assert asked is not None
            values = prometheus.label_values(asked["series"], asked["label"])
            assert values, each["name"]
            variables[each["name"]] = "|".join(re.escape(value) for value in values).replace("\\", "\\\\")
    return variables


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Everything twice, since a counter that Prometheus sees for the first time has not risen yet."""
    folder = tmp_path_factory.mktemp("dashboard")
    with (
        Mosquitto() as broker,
        loaded_bridge(broker, folder) as load,
        Prometheus(load.bridge.port, token=MONITOR, rules=(RULES,)) as prometheus,
    ):
        load.begin()
        prometheus.wait_for_scrape()
        load.begin()
        calm = prometheus.wait_for_scrape()
        load.go_on()
        prometheus.wait_for_scrape()
        load.go_on()
        load.suffer()
        load.hold()
        busy = prometheus.wait_for_scrape()
        yield Watched(prometheus, all_values(prometheus), calm, busy)


@pytest.mark.parametrize("name", QUERIES)
def test_each_query_shows_something_when_there_is_something(watched: Watched, name: str) -> None:
    """At least one series, and one that is not zero."""
    found = watched.ask(name, watched.busy)
    assert found
    assert any(each.value > 0 for each in found), found


def test_what_is_empty_on_a_good_day_has_nothing_to_tell(watched: Watched) -> None:
    """All else shows at least that it is zero."""
    empty = {name for name in QUERIES if not watched.ask(name, watched.calm)}
    assert EMPTY_ON_A_GOOD_DAY.keys() == empty


@pytest.mark.parametrize("name", NOW)
def test_what_is_looked_at_first_is_there_on_a_good_day(watched: Watched, name: str) -> None:
    """A number and not a blank, also where nothing has failed yet."""
    (found,) = watched.ask(name, watched.calm)
    assert math.isfinite(found.value)


def test_each_status_that_was_answered_is_shown(watched: Watched) -> None:
    """The load is what it says: things taken, refused, refused for coming too often, and failed."""
    statuses = {each.labels["status"] for each in watched.ask("Requests by status A", watched.busy)}
    assert {"101", "200", "202", "400", "401", "403", "404", "422", "429", "503", "504"} <= statuses


def test_each_series_of_a_panel_has_the_labels_that_its_legend_names(watched: Watched) -> None:
    """Else the legend would be blank."""
    for panel in panels():
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for each in watched.ask(f"{panel['title']} {target['refId']}", watched.busy):
                assert named <= each.labels.keys(), panel["title"]


def test_each_alert_is_evaluated_without_an_error(watched: Watched) -> None:
    """By the very file that is handed out."""
    expected = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    found = watched.prometheus.alerts
    wait_until(lambda: all(each["health"] != "unknown" for each in found().values()))
    assert expected == found().keys()
    assert dict.fromkeys(expected, ("ok", "")) == {
        name: (each["health"], each.get("lastError", "")) for name, each in found().items()
    }


def test_each_alert_has_something_to_judge(watched: Watched) -> None:
    """Whether it holds or not: an alert whose series do not match one another would keep quiet for ever."""
    for name, rule in watched.prometheus.alerts().items():
        judged = re.sub(r"(==|<|>)(?= \d)", r"\1 bool", rule["query"])
        assert judged != rule["query"], name
        assert watched.prometheus.query(judged, watched.busy), name


@pytest.mark.parametrize("name", ["TidegateFaults", "TidegateGaps"])
def test_what_happens_for_the_first_time_is_told(watched: Watched, name: str) -> None:
    """A count that began with the event itself would never have risen."""
    wait_until(lambda: watched.prometheus.alerts()[name]["state"] == "firing")


def test_each_panel_says_what_it_shows_and_in_which_unit() -> None:
    """And asks the data source that is chosen at the top; no two lines of a panel have the same name."""
    for panel in panels():
        title = panel["title"]
        assert panel["description"].endswith("."), title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        sources = [panel["datasource"], *(each["datasource"] for each in panel["targets"])]
        assert [{"type": "prometheus", "uid": "${datasource}"}] * len(sources) == sources, title
        assert len(panel["targets"]) == len({each["refId"] for each in panel["targets"]}), title
    assert ["datasource"] == [each["name"] for each in VARIABLES if each["type"] == "datasource"]


def test_the_page_says_what_each_row_of_the_dashboard_is_for() -> None:
    """A line for each row, in order, which names the panels in it, in order."""
    text = PAGE.read_text().partition("\n## The dashboard\n")[2].partition("\n## ")[0]
    told = {
        row: re.findall(r"\*([^*]+)\*", shown)
        for row, shown in re.findall(r"^\| ([A-Z][^|]+) \| ([^|]*\*[^|]*) \|", text, re.MULTILINE)
    }
    rows: dict[str, list[str]] = {}
    for each in DASHBOARD["panels"]:
        if each["type"] == "row":
            rows[each["title"]] = []
        else:
            rows[list(rows)[-1]].append(each["title"])
    assert list(rows.items()) == list(told.items())
