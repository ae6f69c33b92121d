"""The plain manifests and the Kustomize overlay, as kubectl puts them together."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from deploy.__main__ import MANIFESTS
from deploy.manifests import render_manifests
from tests.support.chart import merged, of_kind, variables_in_a_pod
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
    egress = found(made, "NetworkPolicy", "tidegate")["spec"]["egress"]
    assert [53, 53, 8883, 6379] == [port["port"] for rule in egress for port in rule["ports"]]


@pytest.mark.parametrize("name", ["base", "overlays/production"])
def test_the_bridge_starts_with_what_kustomize_makes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings, those in Secrets among them, can be used together."""
    secrets = {
        "tidegate-api-keys": {"api-keys": "keys: []\n"},
        "tidegate-settings": {
            "TIDEGATE_BROKER_USERNAME": "bridge",
            "TIDEGATE_BROKER_PASSWORD": "not a real one",
            "TIDEGATE_REDIS_URL": "redis://redis.example:6379/0",
        },
    }
    for variable, value in variables_in_a_pod(kustomize(KUBERNETES / name), secrets, tmp_path).items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert settings.has_authentication
    assert (name != "base") == bool(settings.redis_url.get_secret_value())


def test_the_overlay_has_the_ingress_of_the_chart() -> None:
    """What streams need of ingress-nginx is written twice, and is the same."""
    ingress = {
        "enabled": True,
        "className": "nginx",
        "hosts": ["mqtt.plant.example"],
        "tls": {"secretName": "tidegate-tls"},
        "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
    }
    [of_the_chart] = of_kind(merged(ingress=ingress), "Ingress")
    overlay = found(kustomize(KUBERNETES / "overlays" / "production"), "Ingress", "tidegate")
    assert of_the_chart["spec"] == overlay["spec"]
    assert of_the_chart["metadata"]["annotations"] == overlay["metadata"]["annotations"]


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
