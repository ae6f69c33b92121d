"""A bridge that runs with what the chart gives a pod, asked as the kubelet, Prometheus and helm test do."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from deploy.chart import objects, render
from tests.support.bridge import wait_until
from tests.support.chart import merged, of_kind, pod, variables_in_a_pod
from tests.support.command import Command, run_command
from tests.support.metrics import scrape
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort


def test_a_pod_answers_whoever_asks_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Probes, scrape and test find what they look for, and SIGTERM ends it well within the grace."""
    values = merged(
        broker__url=mosquitto.url,
        access={"insecure": False, "apiKeys": {"existingSecret": "keys"}},
        files={"schemas.yaml": "schemas:\n  - topics: a/b\n    schema: {type: integer}\n"},
        settings={"TIDEGATE_SCHEMAS_FILE": "/etc/tidegate/schemas.yaml"},
        secretSettings={"TIDEGATE_BROKER_USERNAME": "bridge"},
    )
    made = objects(render(values))
    variables = variables_in_a_pod(made, {"keys": {"api-keys": "keys: []\n"}}, tmp_path)
    container = pod(values)["containers"][0]
    with ReservedPort() as http, ReservedPort() as management:
        ports = {"http": http.number, "management": management.number}
        here = {
            "TIDEGATE_HOST": LOOPBACK,
            "TIDEGATE_PORT": str(http.number),
            "TIDEGATE_MANAGEMENT_HOST": LOOPBACK,
            "TIDEGATE_MANAGEMENT_PORT": str(management.number),
        }
        assert here.keys() <= variables.keys()

        def status(probe: str) -> int:
            asked = container[f"{probe}Probe"]["httpGet"]
            url = f"http://{LOOPBACK}:{ports[asked['port']]}{asked['path']}"
            return httpx.get(url, trust_env=False).status_code

        with Command("serve", settings=variables | here) as bridge:
            bridge.wait_for(f":{ports['http']}")
            assert 200 == status("startup")
            assert 200 == status("liveness")
            wait_until(lambda: status("readiness") == 200)
            assert "tidegate_streams" in scrape(f"http://{LOOPBACK}:{ports['management']}")
            [doctor] = of_kind(values, "Pod")
            command, url = doctor["spec"]["containers"][0]["args"]
            assert "http://tidegate.tidegate:80" == url
            done = run_command(command, f"http://{LOOPBACK}:{ports['http']}")
            assert 0 == done.returncode, done.stdout
            assert 0 == bridge.interrupt(signal.SIGTERM)
