"""What people who run clusters get wrong in values: each is refused with what to do, or works."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from deploy.chart import objects, render
from tests.support.chart import merged, of_kind
from tests.support.kubernetes import faults

HOST = {"enabled": True, "hosts": ["plant.example"]}
CERTIFICATE = {"enabled": True, "issuerRef": {"name": "plant"}, "commonName": "bridge", "duration": "90d"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(merged(replicas="3"), "'/replicas': got string, want integer", id="number as text"),
        pytest.param(merged(replicas=-1), "'/replicas': minimum: got -1, want 0", id="fewer than no pods"),
        pytest.param(merged(replicaCount=3), "'replicaCount' not allowed", id="the key of other charts"),
        pytest.param(
            merged(settings={"TIDEGATE_LOG_LEVL": "debug"}),
            "TIDEGATE_LOG_LEVL is no setting of Tidegate",
            id="typo in a setting",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_PUBLISH_TIMEOUT_SECONDS": "5m"}),
            'TIDEGATE_PUBLISH_TIMEOUT_SECONDS: "5m" is not allowed; write a number above 0, up to 3600',
            id="duration with a unit in a setting",
        ),
        pytest.param(
            merged(stopping={"drainSeconds": "20s"}),
            "'/stopping/drainSeconds': got string, want number",
            id="duration with a unit in a value",
        ),
        pytest.param(
            merged(broker__url="mqtts://m", credentials={"certificate": CERTIFICATE}),
            'duration: "90d" is no duration; write hours, minutes or seconds',
            id="days, which neither Go nor cert-manager has",
        ),
        pytest.param(
            merged(serviceMonitor={"enabled": True, "interval": 30}),
            "'/serviceMonitor/interval': got number, want string",
            id="interval as a number",
        ),
        pytest.param(
            merged(serviceMonitor={"enabled": True, "interval": "30"}),
            'serviceMonitor.interval: "30" is no duration; write hours, minutes or seconds, as in',
            id="interval without a unit",
        ),
        pytest.param(
            merged(settings={"LOG_LEVEL": "debug"}),
            "LOG_LEVEL is no setting; write TIDEGATE_LOG_LEVEL",
            id="setting without its prefix",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_MAX_BODY_BYTES": "1Mi"}),
            '"1Mi" is not allowed; write a whole number from 1 to 268435455',
            id="size with a unit",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_MAX_STREAMS": 0}),
            '"0" is not allowed; write a whole number from 1 up',
            id="none at all",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_AUDIT_PUBLISH_SAMPLE": 50}),
            '"50" is not allowed; write a number from 0 to 1',
            id="percent for a share",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_ACCESS_LOG": "enabled"}),
            '"enabled" is not allowed; write true or false, 1 or 0',
            id="another word for true",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_LOG_LEVEL": "trace"}),
            '"trace" is not allowed; write one of debug, info, warning, error',
            id="a level of other programs",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_RATE_LIMIT_REQUESTS": 100}),
            '"100" is not allowed; write a rate, as in `100/second`',
            id="rate without a time",
        ),
        pytest.param(
            merged(secretSettings={"TIDEGATE_BROKER_KEEPALIVE_SECONDS": "unspeakable"}),
            "its value is not allowed; write a whole number from 1 to 65535",
            id="a value that is not shown",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_SCHEMAS_FILE": "/etc/tidegate/schemas.yaml"}),
            "there is no schemas.yaml in files",
            id="file that nobody gives",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_PORT": 9000}), "use service.port", id="port of the pod changed"
        ),
        pytest.param(merged(service={"port": 0}), "'/service/port': minimum", id="port 0"),
        pytest.param(merged(service={"port": "http"}), "'/service/port': got string", id="port by name"),
        pytest.param(
            merged(broker__url="m:1883"),
            '"m:1883" is no URL of a broker; write it as in mqtt://mosquitto:1883',
            id="broker without a scheme",
        ),
        pytest.param(
            merged(broker__url="mqtt://m", broker__existingSecret="m"),
            "'existingSecret' not allowed",
            id="Secret of the broker in the wrong place",
        ),
        pytest.param(
            merged(access={"insecure": False}, settings={"TIDEGATE_JWT_ISSUER": "https://login.example"}),
            "nobody would be asked who they are",
            id="issuer of tokens without its keys",
        ),
        pytest.param(
            merged(settings={"TIDEGATE_JWT_JWKS_URL": "https://login.example/keys"}),
            "access.insecure asks nobody who they are, and TIDEGATE_JWT_JWKS_URL does",
            id="tokens and insecure",
        ),
        pytest.param(
            merged(ingress={"enabled": True}), "ingress.hosts: name the host", id="ingress without a host"
        ),
        pytest.param(
            merged(ingress={"enabled": True, "hosts": ["https://plant.example"]}),
            '"https://plant.example" is no host name; write it alone',
            id="URL for a host",
        ),
        pytest.param(
            merged(ingress=HOST | {"annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"}}),
            "ingress.tls.secretName: cert-manager.io/cluster-issuer asks cert-manager",
            id="issuer without a Secret",
        ),
        pytest.param(
            merged(ingress=HOST | {"tls": [{"secretName": "tls"}]}),
            "'/ingress/tls': got array, want object",
            id="TLS as a list, as in an Ingress",
        ),
        pytest.param(
            merged(podDisruptionBudget={"maxUnavailable": "1"}),
            "'/podDisruptionBudget/maxUnavailable'",
            id="number of pods as text",
        ),
        pytest.param(
            merged(image={"tag": 1.0}), "'/image/tag': got number, want string", id="tag without quotes"
        ),
        pytest.param(
            merged(podAnnotations={"example.org/scrape": True}),
            "'/podAnnotations/example.org~1scrape': got boolean, want string",
            id="annotation without quotes",
        ),
        pytest.param(
            merged(existingSecrets="tidegate-settings"),
            "'/existingSecrets': got string, want array",
            id="one for a list",
        ),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(values: dict[str, Any], words: str) -> None:
    """Before anything is made; and no secret is in the words."""
    with pytest.raises((helm_python.HelmValuesError, helm_python.HelmRenderError)) as caught:
        render(values)
    assert words in str(caught.value)
    assert "unspeakable" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(merged(replicas=0), id="switched off for a while"),
        pytest.param(merged(replicas=0, autoscaling={"enabled": True}), id="no replicas, and a scaler"),
        pytest.param(
            merged(broker__stableClientIds=True, autoscaling={"enabled": True}), id="stable ids and a scaler"
        ),
        pytest.param(
            merged(settings={"TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS": 0}), id="what is the default anyway"
        ),
        pytest.param(merged(settings={"TIDEGATE_BROKER_PROTOCOL": 5}), id="number for a word"),
        pytest.param(merged(settings={"TIDEGATE_LOG_LEVEL": "DEBUG"}), id="capital letters"),
        pytest.param(merged(settings={"TIDEGATE_ACCESS_LOG": True}), id="truth as YAML has it"),
        pytest.param(merged(settings={"TIDEGATE_JWT_ISSUER": ""}), id="empty, which is not there"),
        pytest.param(merged(ingress=HOST | {"hosts": ["*.plant.example"]}), id="any host of a domain"),
        pytest.param(merged(serviceMonitor={"enabled": True, "interval": "1m30s"}), id="long interval"),
        pytest.param(merged(resources={"requests": {"cpu": None}}), id="no CPU asked for"),
        pytest.param(merged(podDisruptionBudget={"maxUnavailable": "50%"}), id="share of the pods"),
        pytest.param(merged(**{"global": {"region": "eu"}}), id="values that charts share"),
    ],
)
def test_what_looks_odd_and_is_none_works(values: dict[str, Any]) -> None:
    """It gives what clusters take."""
    made = objects(render(values))
    assert [] == [(each["kind"], fault) for each in made for fault in faults(each)]


def test_a_scaler_alone_says_how_many_pods() -> None:
    """An upgrade that set the number would undo what the scaler did."""
    [deployment] = of_kind(merged(replicas=5, autoscaling={"enabled": True}), "Deployment")
    assert "replicas" not in deployment["spec"]
