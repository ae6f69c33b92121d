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


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_names_another_object_finds_it(path: Path) -> None:
    """Ingress and route lead to the Service, the monitor to that of management, the scaler to the pods."""
    made = objects(rendered(path))
    services = {each["metadata"]["name"]: each for each in made if each["kind"] == "Service"}
    ports = {
        name: {port["name"]: port["port"] for port in each["spec"]["ports"]}
        for name, each in services.items()
    }
    workloads = {(each["kind"], each["metadata"]["name"]) for each in made}
    for each in made:
        spec = each.get("spec", {})
        if each["kind"] == "Ingress":
            backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
            assert backend["port"]["name"] in ports[backend["name"]]
        elif each["kind"] == "HTTPRoute":
            for backend in [backend for rule in spec["rules"] for backend in rule["backendRefs"]]:
                assert backend["port"] in ports[backend["name"]].values()
        elif each["kind"] == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            [found] = [name for name in services if wanted <= services[name]["metadata"]["labels"].items()]
            assert spec["endpoints"][0]["port"] in ports[found]
            assert "tidegate" == services[found]["metadata"]["labels"][spec["jobLabel"]]
        elif each["kind"] == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in workloads
        elif each["kind"] == "Pod":
            host, _, port = spec["containers"][0]["args"][1].removeprefix("http://").partition(":")
            assert int(port) in ports[host.partition(".")[0]].values()


def test_a_pod_serves_on_while_it_is_forgotten() -> None:
    """PreStop sleeps before the signal, and a new pod is ready before an old one goes."""
    values = merged(stopping={"preStopSeconds": 7})
    assert {"preStop": {"sleep": {"seconds": 7}}} == pod(values)["containers"][0]["lifecycle"]
    [deployment] = of_kind(values, "Deployment")
    assert {"maxUnavailable": 0, "maxSurge": 1} == deployment["spec"]["strategy"]["rollingUpdate"]


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


def test_streams_have_no_time_out_behind_a_gateway() -> None:
    """The rules of streams, WebSockets and batches stand apart; all else ends after a while."""
    route = {"enabled": True, "parentRefs": [{"name": "public"}]}
    [made] = of_kind(merged(httpRoute=route), "HTTPRoute")
    lasting, others = made["spec"]["rules"]
    paths = [match["path"]["value"] for match in lasting["matches"]]
    assert ["/v1/subscribe", "/v1/ws", "/v1/publish/batch"] == paths
    assert {"request": "0s", "backendRequest": "0s"} == lasting["timeouts"]
    assert "150s" == others["timeouts"]["request"]


def test_the_test_passes_a_policy_that_names_clients() -> None:
    """Else helm test would fail where the bridge is well."""
    clients = [{"podSelector": {"matchLabels": {"app": "panel"}}}]
    values = merged(networkPolicy={"enabled": True, "clients": clients})
    [policy] = of_kind(values, "NetworkPolicy")
    peers = policy["spec"]["ingress"][0]["from"]
    [doctor] = [each["metadata"]["labels"] for each in of_kind(values, "Pod")]
    assert clients[0] in peers
    assert [True] == [
        peer["podSelector"]["matchLabels"].items() <= doctor.items() for peer in peers if peer != clients[0]
    ]


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
