"""What the chart makes of a value: the pod, its variables, its volumes, and what leads to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from deploy.chart import objects, render
from tests.support.chart import (
    EXAMPLES,
    example,
    is_elsewhere,
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
        if not is_elsewhere(name):
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
    values = merged(
        credentials={"certificate": {"enabled": True, "issuerRef": {"name": "plant"}, "commonName": "bridge"}}
    )
    [certificate] = of_kind(values, "Certificate")
    [volume] = [each for each in pod(values)["volumes"] if each["name"] == "credential"]
    assert certificate["spec"]["secretName"] == volume["secret"]["secretName"]
    [mount] = [each for each in pod(values)["containers"][0]["volumeMounts"] if each["name"] == "credential"]
    assert mount["mountPath"] == settings_of(objects(render(values)))["TIDEGATE_CREDENTIALS_MOUNT"]


@pytest.mark.parametrize(
    ("controller", "name", "value"),
    [
        ("nginx", "nginx.ingress.kubernetes.io/proxy-buffering", "off"),
        ("nginx", "nginx.ingress.kubernetes.io/proxy-request-buffering", "off"),
        ("nginx", "nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
        ("nginx-inc", "nginx.org/proxy-buffering", "false"),
        ("nginx-inc", "nginx.org/websocket-services", "tidegate"),
        ("traefik", "traefik.ingress.kubernetes.io/router.entrypoints", "web"),
    ],
)
def test_an_ingress_lets_streams_through(controller: str, name: str, value: str) -> None:
    """Nothing is buffered, and silence between two heartbeats ends nothing."""
    ingress = {"enabled": True, "controller": controller, "hosts": ["plant.example"]}
    [made] = of_kind(merged(ingress=ingress), "Ingress")
    assert value == made["metadata"]["annotations"][name]
    own = ingress | {"annotations": {name: "mine"}}
    [made] = of_kind(merged(ingress=own), "Ingress")
    assert "mine" == made["metadata"]["annotations"][name]


def test_an_ingress_of_another_controller_has_no_annotations() -> None:
    """``other`` leaves them to the user."""
    [made] = of_kind(
        merged(ingress={"enabled": True, "controller": "other", "hosts": ["plant.example"]}), "Ingress"
    )
    assert "annotations" not in made["metadata"]


@pytest.mark.parametrize(
    ("url", "port"),
    [("mqtt://m", 1883), ("mqtts://m", 8883), ("wss://m/mqtt", 443), ("mqtt://m:1999", 1999)],
)
def test_the_policy_lets_the_bridge_reach_its_broker(url: str, port: int) -> None:
    """The port is that of the URL, or of its scheme."""
    [policy] = of_kind(merged(broker__url=url, networkPolicy={"enabled": True}), "NetworkPolicy")
    assert [53, 53, port] == [each["port"] for rule in policy["spec"]["egress"] for each in rule["ports"]]
    management = [rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == "management"]
    assert [] == management
