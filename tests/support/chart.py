"""The chart's examples, and renderings of a few values, for the tests of the chart."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from app.settings import Settings
from app.settings.sources import variable
from deploy.chart import objects, render
from tests.support.command import ROOT
from tests.support.kubernetes import pod_specs

EXAMPLES: Final = sorted((ROOT / "deploy" / "helm" / "examples").glob("*.yaml"))
LEAST: Final[dict[str, Any]] = {"broker": {"url": "mqtt://mosquitto:1883"}, "access": {"insecure": True}}


def example(path: Path) -> dict[str, Any]:
    """The values of an example."""
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


@cache
def rendered(path: Path) -> dict[str, str]:
    """What an example gives."""
    return render(example(path))


def merged(**values: Any) -> dict[str, Any]:
    """The least values with others over them; a dotted name is written with two underscores."""
    result = copy.deepcopy(LEAST)
    for name, value in values.items():
        *parents, last = name.split("__")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return result


def of_kind(values: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The objects of a kind that these values give."""
    return [each for each in objects(render(values)) if each["kind"] == kind]


def pod(values: dict[str, Any]) -> dict[str, Any]:
    """The pod of the bridge."""
    [workload] = [each for kind in ("Deployment", "StatefulSet") for each in of_kind(values, kind)]
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def settings_of(made: list[dict[str, Any]]) -> dict[str, str]:
    """The TIDEGATE_* variables that the bridge's container gets of the chart."""
    found: dict[str, str] = {}
    for each in made:
        if each["kind"] == "ConfigMap":
            found |= {name: value for name, value in each["data"].items() if name.startswith("TIDEGATE_")}
    for spec in pod_specs(made):
        found |= {each["name"]: each.get("value", "") for each in spec["containers"][0].get("env", [])}
    found.pop("POD_NAME", None)
    return found


def unknown_to_the_bridge(names: list[str]) -> list[str]:
    """Those of these variables that the bridge would refuse to start for."""
    known = {variable(name) for name in Settings.model_fields}
    return [name for name in names if name not in known]
