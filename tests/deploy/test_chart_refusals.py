"""What the chart refuses, and in which words."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from deploy.chart import render
from tests.support.chart import LEAST, merged


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"brokr": {}}, "'brokr' not allowed"),
        ({"image": {"tagg": "1"}}, "'tagg' not allowed"),
        ({"ingress": {"controller": "apache"}}, "'nginx', 'nginx-inc', 'traefik', 'other'"),
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
        (merged(secretSettings={"TIDEGATE_BROKER_URL": "mqtt://m"}), "keep one"),
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
        (merged(broker__url="tcp://m:1883"), '"tcp://m:1883" is no URL of a broker; write it as in mqtt://'),
        (merged(broker__url="mqtt://m?client_id=a"), "would throw each other out"),
        (
            merged(settings={"TIDEGATE_BROKER_URL": "mqtt://m"}, broker__url=""),
            "a URL without a password goes into broker.url",
        ),
        (merged(broker__clientIdPrefix="a"), "with broker.stableClientIds=true alone"),
        (
            merged(stopping={"graceSeconds": 25}),
            "is no longer than preStopSeconds and drainSeconds together, 25",
        ),
        (
            merged(credentials={"existingSecret": "a", "certificate": {"enabled": True}}),
            "both say where the broker's credential comes from",
        ),
        (
            merged(credentials={"existingSecret": "a", "existingClaim": "b"}),
            "the bridge takes one of the two",
        ),
        (merged(credentials={"existingClaim": "a"}), "make one by 'tidegate credentials key'"),
        (merged(secretSettings={"TIDEGATE_CREDENTIALS_KEY": "a"}), "name that claim"),
        (merged(secretSettings={"TIDEGATE_CREDENTIALS_PASSPHRASE": "a"}), "name that Secret"),
        (merged(credentials={"existingSecret": "a"}), "begin broker.url with mqtts://"),
        (
            merged(
                credentials={
                    "certificate": {
                        "enabled": True,
                        "issuerRef": {"name": "plant"},
                        "commonName": "bridge",
                        "duration": "720h",
                        "renewBefore": "719h60m",
                    }
                }
            ),
            "renewBefore: 719h60m before the end of a certificate of 720h",
        ),
        (merged(credentials={"certificate": {"enabled": True}}), "issuerRef.name"),
        (
            merged(credentials={"certificate": {"enabled": True, "issuerRef": {"name": "plant"}}}),
            "set commonName or dnsNames",
        ),
        (merged(autoscaling={"enabled": True, "minReplicas": 11}), "is more than autoscaling.maxReplicas"),
        (merged(autoscaling={"enabled": True, "cpuPercent": 0}), "nothing to scale by"),
        (
            merged(autoscaling={"enabled": True, "streamsPerPod": 10_001}),
            "a pod lets in 10000 streams (TIDEGATE_MAX_STREAMS)",
        ),
        (
            merged(
                settings={"TIDEGATE_MAX_STREAMS": 500}, autoscaling={"enabled": True, "streamsPerPod": 501}
            ),
            "a pod lets in 500 streams",
        ),
        (
            merged(autoscaling={"enabled": True}, resources={"requests": {"cpu": None}}),
            "autoscaling.cpuPercent is a share of resources.requests.cpu",
        ),
        (merged(podDisruptionBudget={"maxUnavailable": 0}), "no node with a pod of these"),
        (merged(management={"port": 8080}), "the pods serve clients at 8080"),
        (merged(podLabels={"app.kubernetes.io/name": "mine"}), "podLabels: the Services find the pods"),
        (merged(commonLabels={"app.kubernetes.io/instance": "mine"}), "commonLabels: the Services find"),
        (merged(environment={"TIDEGATE_LOG_LEVEL": "debug"}), "go into settings"),
        (merged(ingress={"enabled": True}), "ingress.hosts"),
        (
            merged(
                settings={"TIDEGATE_HEARTBEAT_SECONDS": 60},
                ingress={"enabled": True, "hosts": ["plant.example"], "streamSeconds": 60},
            ),
            "a quiet stream says nothing for 60 seconds",
        ),
        (
            merged(
                settings={"TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS": 600},
                httpRoute={"enabled": True, "parentRefs": [{"name": "public"}], "requestTimeout": "10m"},
            ),
            "10m would end requests that may wait for 600 seconds",
        ),
        (
            merged(serviceMonitor={"enabled": True}, networkPolicy={"enabled": True}),
            "networkPolicy.monitoring: Prometheus is to read the management port",
        ),
        (
            merged(
                management={"enabled": False},
                networkPolicy={"enabled": True, "monitoring": [{"podSelector": {}}]},
            ),
            "networkPolicy.monitoring opens the management port",
        ),
        (
            merged(networkPolicy={"enabled": True, "redis": [{"podSelector": {}}]}),
            "networkPolicy.redisPort: say which port",
        ),
        (
            merged(networkPolicy={"enabled": True, "issuers": [{"podSelector": {}}]}),
            "set that in settings",
        ),
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
