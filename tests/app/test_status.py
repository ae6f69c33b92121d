"""``/v1/status`` against a real broker that comes and goes."""

from __future__ import annotations

from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.sse import following


def test_the_status_tells_the_broker_the_streams_and_the_filters(mosquitto: Mosquitto) -> None:
    """Address, version, limits; open streams and those that ended; filters with QoS and listeners."""
    with running_bridge(mosquitto.url) as bridge:
        with following(bridge, "status/#", "status/a", qos="2"), following(bridge, "status/a"):
            found = bridge.client.get("/v1/status").json()
        assert found["broker"]["state"] == "connected"
        assert found["broker"]["address"] == f"127.0.0.1:{mosquitto.port}"
        assert found["broker"]["last_error"] is None
        assert found["broker"]["last_round_trip_seconds_ago"] >= 0
        assert found["broker"]["limits"]["mqtt_version"] == "5"
        assert found["broker"]["limits"]["receive_maximum"] == 20
        assert found["broker"]["profile"] == "generic"
        assert found["broker"]["limits"]["maximum_payload_bytes"] is None
        assert found["streams"]["open"] == 2
        assert found["requests"] == dict.fromkeys(
            ("waiting", "answered", "timed_out", "late_replies", "unmatched_replies"), 0
        )
        assert found["subscriptions_total"] == 2
        assert sorted(found["subscriptions"], key=lambda each: str(each["filter"])) == [
            {"filter": "status/#", "qos": 2, "listeners": 1},
            {"filter": "status/a", "qos": 2, "listeners": 2},
        ]
        wait_until(lambda: bridge.client.get("/v1/status").json()["streams"]["ended"] == {"client_left": 2})


def test_the_status_answers_without_a_broker(fresh_mosquitto: Mosquitto) -> None:
    """The reason stands in words, and no password with it."""
    with running_bridge(fresh_mosquitto.url.replace("//", "//user:secret@")) as bridge:
        fresh_mosquitto.kill()
        wait_until(lambda: bridge.client.get("/v1/status").json()["broker"]["state"] == "disconnected")
        answer = bridge.client.get("/v1/status")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        broker = answer.json()["broker"]
        assert broker["limits"] is None
        assert broker["last_round_trip_seconds_ago"] is None
        assert broker["last_error"]
        assert "secret" not in answer.text


def test_the_profile_and_its_limits_are_told_and_kept_to(mosquitto: Mosquitto) -> None:
    """Each refusal names the limit; nothing of the message is sent."""
    with running_bridge(mosquitto.url, broker_profile="aws-iot") as bridge:
        broker = bridge.client.get("/v1/status").json()["broker"]
        assert broker["profile"] == "aws-iot"
        limits = broker["limits"]
        assert (limits["maximum_qos"], limits["maximum_payload_bytes"]) == (1, 131_072)
        assert (limits["maximum_topic_slashes"], limits["maximum_topic_bytes"]) == (7, 256)
        assert (limits["maximum_filters"], limits["subscription_identifiers_available"]) == (8, False)
        refused = {
            "/v1/topics/a?qos=2": (b"", 400, "unsupported", "at most QoS 1"),
            "/v1/topics/a": (b"x" * 131_073, 413, "packet-too-large", "at most 131072"),
            "/v1/topics/1/2/3/4/5/6/7/8/9": (b"", 400, "invalid-topic", "at most 7"),
            f"/v1/topics/{'x' * 257}": (b"", 400, "invalid-topic", "at most 256"),
        }
        for target, (body, status, slug, words) in refused.items():
            answer = bridge.client.post(target, content=body)
            assert (answer.status_code, answer.json()["type"]) == (status, f"urn:tidegate:problem:{slug}")
            assert words in answer.json()["detail"]
        answer = bridge.client.get("/v1/subscribe", params={"topic": "1/2/3/4/5/6/7/8/#"})
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:tidegate:problem:invalid-topic")


def test_an_unknown_parameter_is_refused(mosquitto: Mosquitto) -> None:
    """Like everywhere else."""
    with running_bridge(mosquitto.url) as bridge:
        assert bridge.client.get("/v1/status?verbose=1").status_code == 400
