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
        (
            merged(stopping={"graceSeconds": 25}),
            "is no longer than preStopSeconds and drainSeconds together, 25",
        ),
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
