from __future__ import annotations

from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort


def test_the_process_is_alive_without_a_broker() -> None:
    """Liveness never depends on the broker: restarting the bridge would not bring it back."""
    with (
        ReservedPort() as port,
        running_bridge(f"mqtt://127.0.0.1:{port.number}", wait_until_ready=False) as bridge,
    ):
        answer = bridge.client.get("/livez")
        assert (answer.status_code, answer.json()["status"]) == (200, "alive")


def test_a_bridge_without_a_broker_is_not_ready() -> None:
    """Readiness is 503 with the reason, and a time to ask again."""
    with (
        ReservedPort() as port,
        running_bridge(f"mqtt://127.0.0.1:{port.number}", wait_until_ready=False) as bridge,
    ):
        wait_until(lambda: "nothing listens" in bridge.client.get("/readyz").json()["detail"])
        answer = bridge.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["type"] == "urn:tidegate:problem:not-ready"


def test_readiness_follows_the_broker(fresh_mosquitto: Mosquitto) -> None:
    """Ready with the broker, not without it, and ready again when it is back."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        answer = bridge.client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ready", "warnings": []})
        fresh_mosquitto.kill()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        fresh_mosquitto.start()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)


def test_a_broker_that_hangs_is_noticed(fresh_mosquitto: Mosquitto) -> None:
    """A frozen broker keeps its connections open; readiness comes from round trips and tells."""
    with running_bridge(f"{fresh_mosquitto.url}?keepalive=2") as bridge:
        fresh_mosquitto.pause()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        assert bridge.client.get("/livez").status_code == 200
        fresh_mosquitto.resume()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)


def test_probes_are_not_cached(mosquitto: Mosquitto) -> None:
    """A cache between a probe and the bridge would tell yesterday's health."""
    with running_bridge(mosquitto.url) as bridge:
        for path in ("/livez", "/readyz"):
            assert bridge.client.get(path).headers["cache-control"] == "no-store"


def test_a_bridge_that_stops_is_not_ready_but_alive(mosquitto: Mosquitto) -> None:
    """From the first moment of the drain on no new work is sent its way; nothing restarts it."""
    with running_bridge(mosquitto.url) as bridge:
        bridge.app.state.hub.drain()
        answer = bridge.client.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "the bridge stops")
        assert bridge.client.get("/livez").status_code == 200
