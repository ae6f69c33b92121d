"""What leads to the pods and from them: Services, Ingress, route, policy, and who names whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.chart import objects, render
from tests.support.chart import EXAMPLES, merged, of_kind, rendered, settings_of


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


def egress(**values: Any) -> list[tuple[int, Any]]:
    """Each port that the policy lets pods reach, with whom."""
    [policy] = of_kind(merged(**values), "NetworkPolicy")
    rules = policy["spec"]["egress"]
    return [(port["port"], rule.get("to")) for rule in rules for port in rule["ports"]]


def test_the_policy_lets_the_bridge_reach_the_issuer_of_tokens() -> None:
    """Its keys are fetched from the URL in the settings, or no token would hold."""
    given: dict[str, Any] = {
        "access": {"insecure": False},
        "settings": {"TIDEGATE_JWT_JWKS_URL": "https://login.example:8443/keys"},
    }
    peers = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert (8443, None) == egress(networkPolicy={"enabled": True}, **given)[-1]
    assert (8443, peers) == egress(networkPolicy={"enabled": True, "issuers": peers}, **given)[-1]


def test_the_policy_lets_the_bridge_reach_redis() -> None:
    """At the port of the URL where the chart sees it, else at the one that is named; else not at all."""
    url = {"TIDEGATE_REDIS_URL": "rediss://me:word@redis.example:6380/0"}
    peers = [{"podSelector": {"matchLabels": {"app": "valkey"}}}]
    assert (6380, None) == egress(networkPolicy={"enabled": True}, secretSettings=url)[-1]
    named = {"enabled": True, "redisPort": 6390, "redis": peers}
    assert (6390, peers) == egress(networkPolicy=named)[-1]
    assert [53, 53, 1883] == [port for port, _ in egress(networkPolicy={"enabled": True})]


def test_a_url_in_a_setting_says_the_broker_s_port() -> None:
    """Wherever the URL stands, as long as the chart sees it."""
    for place in ("settings", "secretSettings"):
        given = {place: {"TIDEGATE_BROKER_URL": "mqtts://m:8899"}, "broker__url": ""}
        assert 8899 == egress(networkPolicy={"enabled": True}, **given)[-1][0]


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


@pytest.mark.parametrize(
    ("family", "host", "families"), [("IPv4", "0.0.0.0", set()), ("IPv6", "::", {"IPv6"})]
)
def test_pods_and_services_are_of_one_family(family: str, host: str, families: set[str]) -> None:
    """A socket takes one family alone, so probes and Services have to agree with it."""
    values = merged(ipFamily=family, broker__stableClientIds=True)
    given = settings_of(objects(render(values)))
    assert {host} == {given["TIDEGATE_HOST"], given["TIDEGATE_MANAGEMENT_HOST"]}
    services = of_kind(values, "Service")
    assert 3 == len(services)
    assert families == {each for service in services for each in service["spec"].get("ipFamilies", [])}
