"""What the chart makes of a value: the pod, its variables, its volumes, and what leads to it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart

from app.settings import Settings
from deploy.chart import CHART, objects, render
from tests.support.chart import (
    EXAMPLES,
    example,
    merged,
    of_kind,
    pod,
    rendered,
    settings_of,
    unknown_to_the_bridge,
)
from tests.support.kubernetes import pod_specs


@pytest.mark.parametrize(
    ("stopping", "grace"),
    [
        ({}, 30),
        ({"drainSeconds": 120}, 130),
        ({"drainSeconds": 2.5, "preStopSeconds": 0}, 8),
        ({"graceSeconds": 300}, 300),
    ],
)
def test_the_grace_is_longer_than_the_drain(stopping: dict[str, Any], grace: int) -> None:
    """Five seconds are left after preStop and drain, however they are set; more may be asked for."""
    assert grace == pod(merged(stopping=stopping))["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_bridge_knows_what_it_is_given(path: Path) -> None:
    """No variable has a name that the bridge would refuse to start for."""
    given = settings_of(objects(rendered(path)))
    secret = example(path).get("secretSettings", {})
    assert "TIDEGATE_DRAIN_SECONDS" in given
    assert [] == unknown_to_the_bridge([*given, *secret])


def test_the_bridge_reads_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers arrive as they were written, whole ones too: YAML and JSON make 1.34e+08 of them otherwise."""
    values = merged(
        settings={
            "TIDEGATE_JOURNAL_MAX_BYTES": 134217728,
            "TIDEGATE_PUBLISH_TIMEOUT_SECONDS": 2.5,
            "TIDEGATE_LOG_LEVEL": "debug",
        }
    )
    for name, value in settings_of(objects(render(values))).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (134217728, 2.5) == (settings.journal_max_bytes, settings.publish_timeout_seconds)
    assert ("debug", True, 20.0) == (settings.log_level, settings.insecure, settings.drain_seconds)
    assert ("0.0.0.0", 8080) == (settings.host, settings.port)


def test_stable_client_identifiers_are_the_pods_names() -> None:
    """A StatefulSet, so that no name is there twice, with the Service that it needs."""
    values = merged(broker__stableClientIds=True, broker__clientIdPrefix="plant-")
    [workload] = of_kind(values, "StatefulSet")
    assert [] == of_kind(values, "Deployment")
    env = {each["name"]: each for each in pod(values)["containers"][0]["env"]}
    assert "plant-$(POD_NAME)" == env["TIDEGATE_BROKER_CLIENT_ID"]["value"]
    assert "metadata.name" == env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
    headless = [
        each
        for each in of_kind(values, "Service")
        if each["metadata"]["name"] == workload["spec"]["serviceName"]
    ]
    assert ["None"] == [each["spec"]["clusterIP"] for each in headless]
    assert "RollingUpdate" == workload["spec"]["updateStrategy"]["type"]


@pytest.mark.parametrize("has_management", [True, False])
def test_probes_ask_the_port_that_answers(has_management: bool) -> None:
    """Liveness never depends on the broker; the Service of the clients does not show the management port."""
    values = merged(management={"enabled": has_management})
    container = pod(values)["containers"][0]
    asked = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")
    }
    assert {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"} == asked
    ports = {container[f"{name}Probe"]["httpGet"]["port"] for name in asked}
    assert {"management" if has_management else "http"} == ports
    assert ports <= {port["name"] for port in container["ports"]}
    clients = next(each for each in of_kind(values, "Service") if each["metadata"]["name"] == "tidegate")
    assert ["http"] == [port["name"] for port in clients["spec"]["ports"]]


def test_secrets_are_mounted_as_folders() -> None:
    """A file that is mounted by subPath never changes, and a renewed credential would not be seen."""
    for path in EXAMPLES:
        [spec] = [
            spec for spec in pod_specs(objects(rendered(path))) if spec["containers"][0]["name"] == "bridge"
        ]
        mounts = spec["containers"][0].get("volumeMounts", [])
        assert [] == [mount for mount in mounts if "subPath" in mount]
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in spec.get("volumes", [])}


def test_the_certificate_fills_the_secret_that_is_watched() -> None:
    """What cert-manager writes is what the bridge reads."""
    certificate = {"enabled": True, "issuerRef": {"name": "plant"}, "commonName": "bridge"}
    values = merged(broker__url="mqtts://broker", credentials={"certificate": certificate})
    [made] = of_kind(values, "Certificate")
    [volume] = [each for each in pod(values)["volumes"] if each["name"] == "credential"]
    assert made["spec"]["secretName"] == volume["secret"]["secretName"]
    [mount] = [each for each in pod(values)["containers"][0]["volumeMounts"] if each["name"] == "credential"]
    assert mount["mountPath"] == settings_of(objects(render(values)))["TIDEGATE_CREDENTIALS_MOUNT"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_selects_finds_the_pods(path: Path) -> None:
    """Services, policy, budget and spread mean the bridge's pods, and not the test's."""
    made = objects(rendered(path))
    [workload] = [each for each in made if each["kind"] in {"Deployment", "StatefulSet"}]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    [doctor] = [each["metadata"]["labels"] for each in made if each["kind"] == "Pod"]
    selectors = [each["spec"]["selector"] for each in made if each["kind"] == "Service"]
    selectors += [
        each["spec"]["selector"]["matchLabels"]
        for each in made
        if each["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}
    ]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"] for each in made if each["kind"] == "NetworkPolicy"
    ]
    spread = workload["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
    selectors += [each["labelSelector"]["matchLabels"] for each in spread]
    assert [] == [selector for selector in selectors if not selector.items() <= labels.items()]
    assert [] == [selector for selector in selectors if selector.items() <= doctor.items()]


def test_a_pod_serves_on_while_it_is_forgotten() -> None:
    """PreStop sleeps before the signal, and a new pod is ready before an old one goes."""
    values = merged(stopping={"preStopSeconds": 7})
    assert {"preStop": {"sleep": {"seconds": 7}}} == pod(values)["containers"][0]["lifecycle"]
    [deployment] = of_kind(values, "Deployment")
    assert {"maxUnavailable": 0, "maxSurge": 1} == deployment["spec"]["strategy"]["rollingUpdate"]


@pytest.mark.parametrize(
    "change",
    [
        {"nameOverride": "bridge"},
        {"commonLabels": {"team": "a"}},
        {"podLabels": {"tier": "edge"}},
        {"image": {"tag": "2.0.0"}},
        {"autoscaling": {"enabled": True}},
        {"management": {"enabled": False}},
        {"broker__url": "mqtts://other"},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("has_stable_ids", [True, False])
def test_an_upgrade_changes_nothing_that_cannot_be_changed(
    change: dict[str, Any], has_stable_ids: bool
) -> None:
    """A cluster refuses another selector, Service or way to manage pods in an object of the same name."""

    def unchangeable(values: dict[str, Any]) -> list[Any]:
        made = objects(render(values | {"fullnameOverride": "tidegate"}))
        names = ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")
        return [
            [each["kind"], each["metadata"]["name"], each["spec"].get(name)]
            for each in made
            if each["kind"] in {"Deployment", "StatefulSet"}
            for name in names
        ]

    base = {"broker__stableClientIds": has_stable_ids}
    assert unchangeable(merged(**base)) == unchangeable(merged(**base, **change))


@pytest.mark.parametrize(("live", "replicas"), [(7, 7), (0, 1)])
def test_switching_to_a_scaler_keeps_the_pods(tmp_path: Path, live: int, replicas: int) -> None:
    """As many as the cluster has; none would switch the scaler off."""
    shutil.copytree(CHART, tmp_path / "tidegate")
    workload = tmp_path / "tidegate" / "templates" / "workload.yaml"
    text, count = re.subn(
        r"lookup .*\) \}\}",
        f'dict "spec" (dict "replicas" {live}) }}}}',
        workload.read_text(encoding="utf-8"),
    )
    assert 1 == count
    workload.write_text(text, encoding="utf-8")
    chart = Chart.load(tmp_path / "tidegate")
    made = chart.render(values=merged(autoscaling={"enabled": True}), name="tidegate", namespace="tidegate")
    [deployment] = [each for name, each in made.items() if name.endswith("/workload.yaml")]
    assert replicas == yaml.safe_load(deployment)["spec"]["replicas"]


def test_a_changed_setting_starts_new_pods() -> None:
    """The bridge reads settings once, so the pod's annotations change with what the chart holds of them."""

    def annotations(values: dict[str, Any]) -> dict[str, str]:
        [deployment] = of_kind(values, "Deployment")
        found: dict[str, str] = deployment["spec"]["template"]["metadata"]["annotations"]
        return found

    seen = [
        annotations(merged(**change))
        for change in (
            {},
            {"settings": {"TIDEGATE_LOG_LEVEL": "debug"}},
            {"secretSettings": {"TIDEGATE_BROKER_PASSWORD": "a"}},
            {"secretSettings": {"TIDEGATE_BROKER_PASSWORD": "b"}},
            {"files": {"schemas.yaml": "schemas: []"}},
        )
    ]
    assert [] == [each for each in seen if seen.count(each) > 1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_a_setting_names_is_mounted(path: Path) -> None:
    """Each directory, and the directory of each file, that the bridge is told of is one that the pod has."""
    made = objects(rendered(path))
    given = settings_of(made)
    places = {given[name] for name in given if name.endswith(("_DIR", "_MOUNT"))}
    places |= {str(Path(given[name]).parent) for name in given if name.endswith("_FILE")}
    [spec] = [spec for spec in pod_specs(made) if spec["containers"][0]["name"] == "bridge"]
    mounted = {mount["mountPath"] for mount in spec["containers"][0].get("volumeMounts", [])}
    assert places
    assert set() == places - mounted
