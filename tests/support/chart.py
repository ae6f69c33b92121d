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
        found |= {
            each["name"]: each["value"]
            for each in spec["containers"][0].get("env", [])
            if each["name"].startswith("TIDEGATE_")
        }
    return found


def variables_in_a_pod(
    made: list[dict[str, Any]], secrets: dict[str, dict[str, str]], root: Path
) -> dict[str, str]:
    """The TIDEGATE_* variables as a pod has them, with all volumes mounted under a directory of this machine.

    Args:
        made: the objects, the workload and its ConfigMaps among them.
        secrets: what stands in Secrets that are made by others, by their names.
        root: where the pod's file system begins.
    """
    contents = {("Secret", name): held for name, held in secrets.items()}
    contents |= {
        (each["kind"], each["metadata"]["name"]): each.get("data", each.get("stringData", {}))
        for each in made
        if each["kind"] in {"ConfigMap", "Secret"}
    }
    [workload] = [each for each in made if each["kind"] in {"Deployment", "StatefulSet"}]
    spec = workload["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    places: dict[str, Path] = {}
    for mount in spec["containers"][0].get("volumeMounts", []):
        place = root / mount["mountPath"].lstrip("/")
        place.mkdir(parents=True)
        for source in _sources(volumes[mount["name"]]):
            for name, text in contents[source].items():
                (place / name).write_text(text, encoding="utf-8")
        places[mount["mountPath"]] = place
    return {
        name: _moved(value, places).replace("$(POD_NAME)", "tidegate-0")
        for name, value in settings_of(made).items()
    }


def _sources(volume: dict[str, Any]) -> list[tuple[str, str]]:
    if "projected" in volume:
        return [("Secret", each["secret"]["name"]) for each in volume["projected"]["sources"]]
    if "configMap" in volume:
        return [("ConfigMap", volume["configMap"]["name"])]
    return [("Secret", volume["secret"]["secretName"])] if "secret" in volume else []


def _moved(value: str, places: dict[str, Path]) -> str:
    for mount, place in places.items():
        if f"{value}/".startswith(f"{mount}/"):
            return f"{place}{value.removeprefix(mount)}"
    return value


def unknown_to_the_bridge(names: list[str]) -> list[str]:
    """Those of these variables that the bridge would refuse to start for."""
    known = {variable(name) for name in Settings.model_fields}
    return [name for name in names if name not in known]
