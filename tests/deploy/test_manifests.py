"""The plain manifests and the Kustomize overlay, as kubectl puts them together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.__main__ import MANIFESTS
from deploy.manifests import render_manifests
from tests.support.command import ROOT
from tests.support.kubernetes import faults, pod_specs, unrestricted

KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = Path(sys.executable).parent / "kubectl"
SECONDS = 60.0


def kustomize(directory: Path) -> list[dict[str, Any]]:
    """What ``kubectl kustomize`` makes of a directory; no cluster is asked."""
    done = subprocess.run(
        [KUBECTL, "kustomize", directory], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    return list(yaml.safe_load_all(done.stdout))


def found(made: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of a kind and name."""
    [each] = [each for each in made if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return each


def test_manifests_are_what_the_chart_says() -> None:
    """They are made anew by make manifests."""
    assert render_manifests() == MANIFESTS.read_text(encoding="utf-8")


def test_manifests_have_nothing_of_helm() -> None:
    """No label, checksum or hook that means nothing without it."""
    text = MANIFESTS.read_text(encoding="utf-8")
    assert [] == [word for word in ("helm.sh", "managed-by", "checksum") if word in text]


@pytest.mark.parametrize("name", ["base", "overlays/production"])
def test_what_kustomize_makes_is_what_clusters_take(name: str) -> None:
    """Every object, strictly; and pods fit the level that the namespace enforces."""
    made = kustomize(KUBERNETES / name)
    assert [] == [(each["kind"], fault) for each in made for fault in faults(each)]
    [namespace] = [each for each in made if each["kind"] == "Namespace"]
    assert "restricted" == namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert [[]] == [unrestricted(spec) for spec in pod_specs(made)]
    others = [each for each in made if each["kind"] != "Namespace"]
    assert {namespace["metadata"]["name"]} == {each["metadata"]["namespace"] for each in others}


def test_the_overlay_changes_what_it_says() -> None:
    """Image, replicas, broker, policy and a Secret of settings; the base's own settings stay."""
    made = kustomize(KUBERNETES / "overlays" / "production")
    deployment = found(made, "Deployment", "tidegate")["spec"]
    [container] = deployment["template"]["spec"]["containers"]
    assert (3, "registry.example/tidegate:0.1.0") == (deployment["replicas"], container["image"])
    settings = found(made, "ConfigMap", "tidegate")["data"]
    assert "mqtts://broker.example:8883" == settings["TIDEGATE_BROKER_URL"]
    assert "20" == settings["TIDEGATE_DRAIN_SECONDS"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "settings"]
    assert settings["TIDEGATE_SECRETS_DIR"] == mount["mountPath"]
    [broker] = found(made, "NetworkPolicy", "tidegate")["spec"]["egress"][1]["ports"]
    assert 8883 == broker["port"]


def test_a_slip_in_an_overlay_is_found(tmp_path: Path) -> None:
    """Kubectl refuses a patch for an object that is not there, so that the tests above mean something."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "production"
    settings = overlay / "settings.yaml"
    settings.write_text(settings.read_text().replace("name: tidegate", "name: tidegat"))
    done = subprocess.run(
        [KUBECTL, "kustomize", overlay], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert 0 != done.returncode
    assert "tidegat" in done.stderr
