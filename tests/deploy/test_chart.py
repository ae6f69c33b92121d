"""The Helm chart: rendered in this process and judged as an API server would."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from app.settings import Settings
from deploy.__main__ import COPIES, PAGE
from deploy.chart import CHART, NOTES, chart, objects, render
from deploy.values_page import default, leaves, render_page
from tests.support.chart import EXAMPLES, LEAST, example, merged, of_kind, rendered
from tests.support.command import ROOT
from tests.support.kubernetes import faults, pod_specs, unrestricted
from tests.test_lock_files import SERVICE, project

DASHBOARD = ROOT / "deploy" / "grafana" / "tidegate.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_gives_what_clusters_take(path: Path) -> None:
    """Every object, in four minor versions of Kubernetes, strictly; custom resources by their own models."""
    made = objects(rendered(path))
    assert {"ConfigMap", "Service", "Pod"} <= {each["kind"] for each in made}
    assert [] == [(each["kind"], fault) for each in made for fault in faults(each)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pods_fit_the_restricted_level(path: Path) -> None:
    """The bridge's and the test's; neither has a token, writes to its root or sees variables of Services."""
    specs = list(pod_specs(objects(rendered(path))))
    assert 2 == len(specs)
    for spec in specs:
        assert [] == unrestricted(spec)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"spec": {"replicaz": 1}}, "Deployment"),
        ({"spec": {"secretNam": "x"}}, "Certificate"),
        ({"spec": {"endpoints": [{"port": "management", "pat": "/metrics"}]}}, "ServiceMonitor"),
        ({"spec": {"rules": [{"timeout": {}}]}}, "HTTPRoute"),
    ],
)
def test_a_field_that_nobody_knows_is_found(change: dict[str, Any], kind: str) -> None:
    """The judges see a slip of the pen, in objects of Kubernetes and of others."""
    [each] = [each for path in EXAMPLES for each in objects(rendered(path)) if each["kind"] == kind][:1]
    wrong = copy.deepcopy(each)
    wrong["spec"] |= change["spec"]
    assert faults(wrong)


def test_every_kind_is_made_by_some_example() -> None:
    """Nothing in the chart is judged by nobody."""
    made = {each["kind"] for path in EXAMPLES for each in objects(rendered(path))}
    assert {
        "Certificate",
        "ConfigMap",
        "Deployment",
        "HTTPRoute",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    } == made


PATHS = [
    path for path, _ in leaves(json.loads((CHART / "values.schema.json").read_text())) if path != "global"
]


@pytest.mark.parametrize("path", PATHS)
def test_every_value_changes_something(path: str) -> None:
    """Some example sets it to another than the default, and gives something else without, or is refused."""
    *parents, last = path.split(".")
    for file in EXAMPLES:
        values = example(file)
        place: Any = values
        for parent in parents:
            place = place.get(parent, {})
        if last not in place or place[last] == default(path):
            continue
        place[last] = default(path)
        try:
            without = render(values)
        except helm_python.HelmRenderError:
            return
        if without != rendered(file):
            return
    pytest.fail(f"no example shows what {path} does")


def test_values_and_schema_name_the_same() -> None:
    """Each default stands in values.yaml, and each value has a description."""

    def named(values: dict[str, Any], part: dict[str, Any]) -> set[str]:
        assert values.keys() | {"global"} == part["properties"].keys() | {"global"}
        assert [name for name in part["properties"] if name != "global"] == part["required"]
        found = set(values)
        for name, inner in part["properties"].items():
            assert inner["description"].endswith((".", "bridge")), name
            if "properties" in inner:
                assert inner["additionalProperties"] is False
                found |= named(values[name], inner)
        return found

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert {"image", "drainSeconds"} <= named(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_notes_say_what_to_do_next() -> None:
    """How to try it; and what is not safe, or not shared, is said loudly."""
    notes = render(merged(replicas=2))[NOTES]
    assert "helm -n tidegate test tidegate" in notes
    assert "WARNING: access.insecure is set" in notes
    assert "no TIDEGATE_REDIS_URL" in notes
    assert "names no registry" in notes
    [nginx] = [path for path in EXAMPLES if path.stem == "nginx"]
    assert "https://mqtt.plant.example" in rendered(nginx)[NOTES]
    assert "WARNING" not in rendered(nginx)[NOTES]
    assert "names no registry" not in rendered(nginx)[NOTES]
    assert "Authorization: Bearer" in rendered(nginx)[NOTES]
    [gateway] = [path for path in EXAMPLES if path.stem == "gateway"]
    assert "https://mqtt.plant.example" in rendered(gateway)[NOTES]


def test_notes_say_which_key_to_try_with() -> None:
    """Only where callers show who they are, and that its grants decide."""
    asking = {"broker": LEAST["broker"], "access": {"apiKeys": {"existingSecret": "keys"}}}
    assert "KEY=" in render(asking)[NOTES]
    assert "KEY" not in render(LEAST)[NOTES]


def test_notes_say_when_few_callers_are_refused_before_a_pod_is_added() -> None:
    """The numbers without a setting are the bridge's own."""
    most = Settings.model_fields["max_streams"].default
    own = Settings.model_fields["max_streams_per_principal"].default

    def notes(streams: int, **settings: int) -> str:
        return render(
            {
                "broker": LEAST["broker"],
                "access": {"apiKeys": {"existingSecret": "keys"}},
                "settings": settings,
                "autoscaling": {"enabled": True, "streamsPerPod": streams},
            }
        )[NOTES]

    assert f"of one caller a pod takes {own} streams" in notes(most)
    assert "of one caller" not in notes(own)
    assert "of one caller" not in notes(most, TIDEGATE_MAX_STREAMS_PER_PRINCIPAL=most)


def test_notes_say_what_the_policy_may_lock_out() -> None:
    """Whether a Secret of others names a Redis is not seen."""
    values = merged(existingSecrets=["settings"], networkPolicy={"enabled": True})
    assert "networkPolicy.redisPort" in render(values)[NOTES]
    assert "networkPolicy.redisPort" not in render(merged(networkPolicy={"enabled": True}))[NOTES]


def test_the_linter_finds_no_fault() -> None:
    """Helm lint, strictly."""
    report = helm_python.lint(CHART, LEAST, strict=True)
    assert [] == report["errors"]
    assert [] == [each for each in report["messages"] if each["severity"] > 1]


def test_the_version_is_that_of_the_service() -> None:
    """Chart, service and image are released together."""
    version = project(SERVICE)["project"]["version"]
    assert (version, version) == (chart().version, chart().metadata["appVersion"])


def test_the_page_is_what_the_chart_says() -> None:
    """README.md is made anew by make manifests."""
    assert render_page() == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("copied", COPIES, ids=lambda path: path.name)
def test_what_is_copied_into_the_chart_is_the_original(copied: Path) -> None:
    """Helm reads no file outside the chart: alerts and dashboard are there twice; make manifests copies."""
    assert COPIES[copied].read_text(encoding="utf-8") == copied.read_text(encoding="utf-8")


def test_the_dashboard_is_where_a_sidecar_looks() -> None:
    """Off by default; else the JSON as it is, with the label that Grafana's own chart looks for."""
    assert [] == [each for each in of_kind(LEAST, "ConfigMap") if "-dashboard" in each["metadata"]["name"]]
    made = of_kind(merged(grafanaDashboard={"enabled": True}), "ConfigMap")
    [each] = [each for each in made if each["metadata"]["name"] == "tidegate-dashboard"]
    assert "1" == each["metadata"]["labels"]["grafana_dashboard"]
    assert "annotations" not in each["metadata"]
    assert "tidegate" == each["metadata"]["namespace"]
    assert json.loads(DASHBOARD.read_text(encoding="utf-8")) == json.loads(each["data"]["tidegate.json"])


def test_a_dashboard_goes_into_the_folder_and_namespace_that_are_named() -> None:
    """And Grafana's own placeholders reach it untouched by Helm."""
    values = merged(grafanaDashboard={"enabled": True, "folder": "Plant", "namespace": "monitoring"})
    [each] = [each for each in of_kind(values, "ConfigMap") if each["metadata"]["namespace"] == "monitoring"]
    assert {"grafana_folder": "Plant"} == each["metadata"]["annotations"]
    assert "{{reason}}" in each["data"]["tidegate.json"]
