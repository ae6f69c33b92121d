"""The Helm chart: rendered in this process and judged as an API server would."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from app.settings import Settings
from app.settings.sources import variable
from deploy.__main__ import PAGE
from deploy.chart import CHART, NOTES, chart, objects, render
from deploy.values_page import default, leaves, render_page
from tests.support.command import ROOT
from tests.support.kubernetes import faults, pod_specs, unrestricted
from tests.test_lock_files import SERVICE, project

EXAMPLES = sorted((ROOT / "deploy" / "helm" / "examples").glob("*.yaml"))
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
LEAST: dict[str, Any] = {"broker": {"url": "mqtt://mosquitto:1883"}, "access": {"insecure": True}}

ELSEWHERE = ("TIDEGATE_API_KEYS_", "TIDEGATE_CREDENTIALS_", "TIDEGATE_JWT_", "TIDEGATE_MANAGEMENT_")
"""Settings of parts that are built beside the chart."""


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


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_gives_what_clusters_take(path: Path) -> None:
    """Every object, in four minor versions of Kubernetes, strictly; custom resources by their own models."""
    made = objects(rendered(path))
    assert {"ConfigMap", "Service", "Pod"} <= {each["kind"] for each in made}
    assert [] == [(each["kind"], fault) for each in made for fault in faults(each)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pods_fit_the_restricted_level(path: Path) -> None:
    """The bridge's and the test's; and neither has a token, writes to its root, or sees other Services' variables."""
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


PATHS = [path for path, _ in leaves(json.loads((CHART / "values.schema.json").read_text())) if path != "global"]


@pytest.mark.parametrize("path", PATHS)
def test_every_value_changes_something(path: str) -> None:
    """Some example sets it to another value than the default, and gives something else for it, or is refused without."""
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
        found = set(values)
        for name, inner in part["properties"].items():
            assert inner["description"].endswith((".", "bridge")), name
            if "properties" in inner:
                assert inner["additionalProperties"] is False
                found |= named(values[name], inner)
        return found

    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert {"image", "drainSeconds"} <= named(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"brokr": {}}, "'brokr' not allowed"),
        ({"image": {"tagg": "1"}}, "'tagg' not allowed"),
        ({"ingress": {"controller": "apache"}}, "'nginx', 'nginx-inc', 'traefik', 'other'"),
        ({"settings": {"LOG_LEVEL": "debug"}}, "'LOG_LEVEL'"),
        ({"broker": {"url": "tcp://mosquitto:1883"}}, "'tcp://mosquitto:1883' does not match"),
        ({"image": {"digest": "sha256:12"}}, "'sha256:12' does not match"),
        ({"service": {"port": 70000}}, "at '/service/port'"),
        ({"stopping": {"drainSeconds": 0}}, "at '/stopping/drainSeconds'"),
    ],
)
def test_the_schema_refuses_in_words(values: dict[str, Any], words: str) -> None:
    """A wrong value is named before anything is made."""
    with pytest.raises(helm_python.HelmValuesError) as caught:
        render(LEAST | values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"access": {"insecure": True}}, "no broker: set broker.url"),
        ({"broker": {"url": "mqtt://m"}}, "nobody would be asked who they are"),
        (merged(access__apiKeys={"existingSecret": "keys"}), "choose one"),
        (merged(broker__url="mqtt://me:secret@m"), "broker.url holds a user"),
        (merged(settings={"TIDEGATE_BROKER_URL": "mqtt://m"}), "keep one"),
        (merged(settings={"TIDEGATE_DRAIN_SECONDS": 9}), "use stopping.drainSeconds"),
        (merged(settings={"TIDEGATE_BROKER_CLIENT_ID": "a"}), "would throw each other out"),
        (merged(settings={"TIDEGATE_BROKER_PASSWORD": "a"}), "is a secret, and settings end in a ConfigMap"),
        (
            merged(settings={"TIDEGATE_LOG_LEVEL": "info"}, secretSettings={"TIDEGATE_LOG_LEVEL": "info"}),
            "stands in settings and in secretSettings",
        ),
        (
            merged(settings={"TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS": 60}),
            "set broker.stableClientIds=true",
        ),
        (merged(broker__clientIdPrefix="a"), "with broker.stableClientIds=true alone"),
        (merged(stopping={"graceSeconds": 25}), "is no longer than preStopSeconds and drainSeconds together, 25"),
        (
            merged(credentials={"existingSecret": "a", "certificate": {"enabled": True}}),
            "both say where the broker's credential comes from",
        ),
        (merged(credentials={"certificate": {"enabled": True}}), "issuerRef.name"),
        (
            merged(credentials={"certificate": {"enabled": True, "issuerRef": {"name": "plant"}}}),
            "set commonName or dnsNames",
        ),
        (merged(autoscaling={"enabled": True, "minReplicas": 11}), "is more than autoscaling.maxReplicas"),
        (merged(autoscaling={"enabled": True, "cpuPercent": 0}), "nothing to scale by"),
        (merged(ingress={"enabled": True}), "ingress.hosts"),
        (merged(httpRoute={"enabled": True}), "httpRoute.parentRefs"),
        (
            merged(serviceMonitor={"enabled": True}, management={"enabled": False}),
            "set management.enabled=true",
        ),
        (
            {
                "access": {"insecure": True},
                "existingSecrets": ["with-the-url"],
                "networkPolicy": {"enabled": True},
            },
            "networkPolicy.brokerPort",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_words(values: dict[str, Any], words: str) -> None:
    """The refusal names the value and says what to do."""
    with pytest.raises(helm_python.HelmRenderError) as caught:
        render(values)
    assert words in str(caught.value)


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
    """Five seconds are left after preStop and drain, however they are set; a longer grace may be asked for."""
    assert grace == pod(merged(stopping=stopping))["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_bridge_knows_what_it_is_given(path: Path) -> None:
    """No variable has a name that the bridge would refuse to start for."""
    known = {variable(name) for name in Settings.model_fields}
    given = settings_of(objects(rendered(path)))
    secret = example(path).get("secretSettings", {})
    assert "TIDEGATE_DRAIN_SECONDS" in given
    assert [] == [
        name for name in [*given, *secret] if name not in known and not name.startswith(ELSEWHERE)
    ]


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
        if not name.startswith(ELSEWHERE):
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
    headless = [each for each in of_kind(values, "Service") if each["metadata"]["name"] == workload["spec"]["serviceName"]]
    assert ["None"] == [each["spec"]["clusterIP"] for each in headless]


@pytest.mark.parametrize("has_management", [True, False])
def test_probes_ask_the_port_that_answers(has_management: bool) -> None:
    """Liveness never depends on the broker; the management port has a Service that is not that of the clients."""
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
        [spec] = [spec for spec in pod_specs(objects(rendered(path))) if spec["containers"][0]["name"] == "bridge"]
        mounts = spec["containers"][0].get("volumeMounts", [])
        assert [] == [mount for mount in mounts if "subPath" in mount]
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in spec.get("volumes", [])}


def test_the_certificate_fills_the_secret_that_is_watched() -> None:
    """What cert-manager writes is what the bridge reads."""
    values = merged(
        credentials={
            "certificate": {"enabled": True, "issuerRef": {"name": "plant"}, "commonName": "bridge"}
        }
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


def test_notes_say_what_to_do_next() -> None:
    """How to try it; and what is not safe, or not shared, is said loudly."""
    notes = render(merged(replicas=2))[NOTES]
    assert "helm -n tidegate test tidegate" in notes
    assert "WARNING: access.insecure is set" in notes
    assert "no TIDEGATE_REDIS_URL" in notes
    [nginx] = [path for path in EXAMPLES if path.stem == "nginx"]
    assert "https://mqtt.plant.example" in rendered(nginx)[NOTES]
    assert "WARNING" not in rendered(nginx)[NOTES]
    assert "Authorization: Bearer" in rendered(nginx)[NOTES]


def test_the_linter_finds_no_fault() -> None:
    """helm lint, strictly."""
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


def test_alerts_are_those_of_the_repository() -> None:
    """Helm reads no file outside the chart, so it has a copy of deploy/prometheus/rules.yaml, where that is there."""
    copied = (CHART / "files" / "rules.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(copied)["groups"]
    if RULES.exists():
        assert RULES.read_text(encoding="utf-8") == copied
