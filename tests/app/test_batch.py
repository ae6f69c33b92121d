from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.output.batch_answer import brief_body
from app.problems import ProblemError, ProblemType
from app.publishing.outcomes import Outcomes
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.brokers import Client
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK
from tidegate.connection import ConnectOptions, Subscription
from tidegate.connections.aiomqtt_connection import connect

PATH = "/v1/publish/batch"
NDJSON = {"Content-Type": "application/x-ndjson"}
BAD = [
    {"topic": "batch/+", "payload": 1},
    {"topic": "$SYS/a", "payload": 1},
    {"topic": "batch/a"},
    {"topic": "batch/a", "payload": 1, "qos": False},
    {"topic": "batch/a", "payload": 1, "qso": 1},
    {"topic": "batch/a", "payload": "", "encoding": "text", "retain": True},
    {"topic": "batch/a", "payload": "?", "encoding": "base64"},
    {"topic": "batch/a", "payload": 1, "properties": {"message_expiry": -1}},
    17,
]


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share; it takes bodies, and lines, of 1,000 bytes."""
    with running_bridge(mosquitto.url, max_body_bytes=1000) as running:
        yield running


@pytest.fixture
async def follower(mosquitto: Mosquitto) -> AsyncIterator[Client]:
    """An MQTT client that follows batch/# with QoS 2."""
    client = Client()
    options = ConnectOptions(LOOPBACK, mosquitto.port, client_id="batch-follower", protocol_version=5)
    client.connection = await connect(options, client)
    await client.subscribe(Subscription("batch/#", qos=2, retain_handling=2))
    yield client
    await client.connection.close()


def lines(*messages: Any) -> bytes:
    """Messages as NDJSON; what is bytes stays as it is."""
    return b"".join(
        each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in messages
    )


def kind(found: Any) -> str:
    """The name of a problem's type."""
    name: str = found["type"]
    return name.removeprefix("urn:tidegate:problem:")


@pytest.mark.parametrize(
    ("levels", "status"), [((0,), 202), ((0, 0), 202), ((1,), 200), ((0, 1), 200), ((2, 0, 1), 200)]
)
@pytest.mark.parametrize("is_array", [True, False])
def test_all_accepted(bridge: Bridge, levels: tuple[int, ...], status: int, is_array: bool) -> None:
    """202 where nobody acknowledges any of it, else 200; a result for each, in order."""
    messages = [{"topic": "nobody/listens", "payload": 1, "qos": qos} for qos in levels]
    if is_array:
        answer = bridge.client.post(PATH, json=messages)
    else:
        answer = bridge.client.post(PATH, content=lines(*messages), headers=NDJSON)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    told = {0: (0, "Success"), 1: (16, "No matching subscribers"), 2: (0, "Success")}
    results = [
        {"index": index, "qos": qos, "reason_code": told[qos][0], "reason": told[qos][1]}
        for index, qos in enumerate(levels)
    ]
    assert answer.json() == {"accepted": len(levels), "failed": 0, "results": results}


@pytest.mark.parametrize("is_array", [True, False])
async def test_a_message_that_fails_fails_alone(bridge: Bridge, follower: Client, is_array: bool) -> None:
    """The others are published; the problem is the one that the message gets by itself."""
    messages: list[Any] = [{"topic": "batch/a", "payload": "first"}]
    for bad in BAD:
        messages += [bad, {"topic": "batch/a", "payload": len(messages)}]
    headers = {"Content-Type": "application/json"} if is_array else NDJSON
    body = json.dumps(messages, separators=(",", ":")).encode() if is_array else lines(*messages)
    answer = bridge.client.post(PATH, content=body, headers=headers)
    assert answer.status_code == 207
    found = answer.json()
    assert (found["accepted"], found["failed"]) == (len(BAD) + 1, len(BAD))
    assert [each["index"] for each in found["results"]] == list(range(len(messages)))
    failures = {each["index"]: each["problem"] for each in found["results"] if "problem" in each}
    assert failures == {
        index: bridge.client.post("/v1/publish", json=message).json()
        for index, message in enumerate(messages)
        if index % 2
    }
    arrived = [json.loads((await follower.message()).payload) for _ in range(len(BAD) + 1)]
    assert arrived == [message["payload"] for message in messages[::2]]


async def test_order_is_kept_and_so_is_every_digit(bridge: Bridge, follower: Client) -> None:
    """Messages arrive in the order of the batch, their payloads as they were written."""
    payloads = ["1.10", "12345678901234567890123456789", '{"a": 1, "a":2}', "[1 , 2]", '"\\u00e9"', "1e400"]
    body = "".join(f'{{"topic":"batch/o","payload":{each} ,"qos":1}}\n' for each in payloads)
    answer = bridge.client.post(PATH, content=body, headers=NDJSON)
    assert answer.status_code == 200
    assert payloads == [(await follower.message()).text for _ in payloads]


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"", 400, "malformed-body"),
        (b"nope", 400, "malformed-body"),
        (b'[{"topic":"batch/n","payload":1}', 400, "malformed-body"),
        (b'[{"topic":"batch/n","payload":1},]', 400, "malformed-body"),
        (b'[{"topic":"batch/n","payload":1}] x', 400, "malformed-body"),
        (b'[{"topic":"batch/n","payload":1},{"topic":"batch/n","payload":NaN}]', 400, "malformed-body"),
        (b'[{"topic":"batch/n","payload":1},' + b"[" * 900, 400, "malformed-body"),
        (b'{"topic":"batch/n","payload":1}', 422, "invalid-body"),
        (b'{"topic":"batch/n","payload":1}\n{"topic":"batch/n","payload":1}', 422, "invalid-body"),
        (b"[]", 422, "invalid-body"),
        (b"[" + b" " * 1000 + b"]", 413, "body-too-large"),
    ],
)
async def test_a_body_that_is_no_array_sends_nothing(
    bridge: Bridge, follower: Client, body: bytes, status: int, name: str
) -> None:
    """An array is read whole before the first message is sent."""
    answer = bridge.client.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, kind(answer.json())) == (status, name)
    assert bridge.client.post("/v1/topics/batch/after", content=b"x").status_code == 200
    assert (await follower.message()).topic == "batch/after"


def test_none_accepted(bridge: Bridge) -> None:
    """The answer is the first one's problem, and still has the counts and the results (RFC 9457 §3.2)."""
    answer = bridge.client.post(PATH, json=[{"topic": "a/#", "payload": 1}, {"topic": "a"}])
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    found = answer.json()
    assert (kind(found), found["status"], found["accepted"], found["failed"]) == ("invalid-topic", 400, 0, 2)
    assert "none of 2 messages" in found["detail"]
    assert [kind(each["problem"]) for each in found["results"]] == ["invalid-topic", "invalid-body"]


@pytest.mark.parametrize(
    "body",
    [
        lines({"topic": "a", "payload": 1}, b"{nope\n", {"topic": "a", "payload": 1}),
        lines({"topic": "a", "payload": 1}, b"\n\r\n \n{nope\n\n", {"topic": "a", "payload": 1})[:-1],
        lines({"topic": "a", "payload": 1}, b"{nope\n", {"topic": "a", "payload": 1}).replace(b"\n", b"\r\n"),
        lines({"topic": "a", "payload": 1}, b'{"topic":"\xff"}\n', {"topic": "a", "payload": 1}),
        lines({"topic": "a", "payload": 1}, b"[" * 990 + b"\n", {"topic": "a", "payload": 1}),
    ],
)
def test_a_broken_line_fails_alone(bridge: Bridge, body: bytes) -> None:
    """Empty lines do not count, and the last one needs no end."""
    answer = bridge.client.post(PATH, content=body, headers=NDJSON)
    assert (answer.status_code, answer.json()["accepted"]) == (207, 2)
    failed = answer.json()["results"][1]
    assert (failed["index"], kind(failed["problem"])) == (1, "malformed-body")


@pytest.mark.parametrize("cut", [b"", b"\n"])
def test_a_line_that_is_too_long_fails_alone(bridge: Bridge, cut: bytes) -> None:
    """A line has the bound of a body; the body of lines has none."""
    message = {"topic": "a", "payload": "x" * 900}
    body = lines(message, {**message, "payload": "x" * 1000}, *[message] * 5, b'"' + b"x" * 5000 + cut)
    answer = bridge.client.post(PATH, content=body, headers=NDJSON)
    failed = [each for each in answer.json()["results"] if "problem" in each]
    assert (answer.status_code, answer.json()["accepted"]) == (207, 6)
    assert [(each["index"], kind(each["problem"])) for each in failed] == [
        (1, "body-too-large"),
        (7, "body-too-large"),
    ]


def test_a_refusal_by_the_broker_is_told() -> None:
    """A reason code of 0x80 and above is a failure with that code."""
    with Mosquitto(acl="topic readwrite open/#") as broker, running_bridge(broker.url) as bridge:
        answer = bridge.client.post(
            PATH, json=[{"topic": t, "payload": 1} for t in ("open/a", "shut", "open/b")]
        )
        assert answer.status_code == 207
        results = answer.json()["results"]
        assert [each["index"] for each in results if "problem" in each] == [1]
        single = bridge.client.post("/v1/publish", json={"topic": "shut", "payload": 1})
        assert (single.status_code, single.json()) == (403, results[1]["problem"])


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_the_successes_may_be_left_out(bridge: Bridge, accept: str) -> None:
    """``results=failed`` lists what failed, at the index that it has."""
    body = lines(*[{"topic": "a", "payload": 1}] * 3, b"{\n", {"topic": "a", "payload": 1})
    answer = bridge.client.post(
        PATH, content=body, headers={**NDJSON, "Accept": accept}, params={"results": "failed"}
    )
    if accept == "application/json":
        found = answer.json()
        assert ([3], 4, 1) == (
            [each["index"] for each in found["results"]],
            found["accepted"],
            found["failed"],
        )
    else:
        first, last = map(json.loads, answer.text.splitlines())
        assert (3, {"accepted": 4, "failed": 1}) == (first["index"], last)


@pytest.mark.parametrize(
    ("query", "headers", "status", "name"),
    [
        ("?result=all", {}, 400, "unknown-parameter"),
        ("?results=none", {}, 400, "invalid-parameter"),
        ("?results=all&results=all", {}, 400, "repeated-parameter"),
        ("", {"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
        ("", {"Accept": "text/html"}, 406, "not-acceptable"),
        ("", {"Mqtt-User-Property": "a=b"}, 400, "invalid-header"),
        ("", {"Idempotency-Key": "a"}, 400, "unsupported-header"),
    ],
)
def test_a_request_that_cannot_be_taken(
    bridge: Bridge, query: str, headers: dict[str, str], status: int, name: str
) -> None:
    """Everything that is wrong with a request itself is told before a message is sent."""
    body = lines({"topic": "a", "payload": 1})
    answer = bridge.client.post(PATH + query, content=body, headers={**NDJSON, **headers})
    assert (answer.status_code, kind(answer.json())) == (status, name)


def test_lines_without_a_message(bridge: Bridge) -> None:
    """A body that was lost on the way is no success."""
    answer = bridge.client.post(PATH, content=b"\n\n", headers=NDJSON)
    assert (answer.status_code, kind(answer.json())) == (422, "invalid-body")


def test_another_method_is_refused(bridge: Bridge) -> None:
    """The path takes POST alone."""
    answer = bridge.client.get(PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_properties_need_mqtt_5(mosquitto: Mosquitto) -> None:
    """On a connection that speaks 3.1.1 a message with properties fails, and one without does not."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1") as old:
        messages = [
            {"topic": "a", "payload": 1, "properties": {"content_type": "x"}},
            {"topic": "a", "payload": 1},
        ]
        answer = old.client.post(PATH, json=messages)
        assert (answer.status_code, kind(answer.json()["results"][0]["problem"])) == (207, "unsupported")


@pytest.mark.parametrize(
    "arguments",
    [
        "--data-binary @FILE",
        "--data-binary @FILE -H Accept:application/x-ndjson",
        "-X POST -T FILE -H Transfer-Encoding:chunked",
    ],
)
def test_curl_sends_a_file(bridge: Bridge, tmp_path: Path, arguments: str) -> None:
    """Two megabytes with ``Expect: 100-continue``, or in chunks; and the answer in either form."""
    count = 20_000
    file = tmp_path / "readings.ndjson"
    file.write_bytes(lines(*({"topic": f"a/{i % 7}", "payload": "x" * 60, "qos": 0} for i in range(count))))
    command = ["curl", "-sS", "--max-time", "60", "-w", "%{stderr}%{http_code}"]
    command += arguments.replace("FILE", str(file)).split()
    command += ["-H", "Content-Type: application/x-ndjson", "-H", "Expect: 100-continue", bridge.url + PATH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    if "Accept" in arguments:
        *results, last = map(json.loads, done.stdout.splitlines())
        assert (done.stderr, last) == ("200", {"accepted": count, "failed": 0})
    else:
        found = json.loads(done.stdout)
        results = found["results"]
        assert (done.stderr, found["accepted"], found["failed"]) == ("202", count, 0)
    assert list(range(count)) == [each["index"] for each in results]


async def test_an_array_with_a_key_is_published_once(bridge: Bridge, follower: Client) -> None:
    """The whole answer is that of the first, also where some failed; other bytes are another request."""
    messages = [{"topic": "batch/once", "payload": 1}, {"topic": "batch/+", "payload": 2}]
    key = {"Idempotency-Key": "batch-once"}
    first, second = (bridge.client.post(PATH, json=messages, headers=key) for _ in range(2))
    assert (207, 207) == (first.status_code, second.status_code)
    assert first.json() == second.json()
    assert (None, "true") == tuple(each.headers.get("idempotency-replayed") for each in (first, second))
    other = bridge.client.post(PATH, json=messages[:1], headers=key)
    assert (422, "idempotency-key-reused") == (other.status_code, kind(other.json()))
    end = bridge.client.post("/v1/topics/batch/end", content=b"end")
    assert end.is_success
    assert [b"1", b"end"] == [(await follower.message()).payload for _ in range(2)]


async def test_an_answer_that_is_too_large_to_keep(mosquitto: Mosquitto, follower: Client) -> None:
    """It is kept in brief: nothing is published twice, and the keys of others hold too."""
    with running_bridge(mosquitto.url, idempotency_max_bytes=65_536) as bridge:
        topic, other = "/v1/topics/batch/other", {"Idempotency-Key": "other"}
        assert bridge.client.post(topic, content=b"other", headers=other).is_success
        messages = [{"topic": "batch/large", "payload": 1}, *[0] * 1000]
        key = {"Idempotency-Key": "large"}
        first, second = (bridge.client.post(PATH, json=messages, headers=key) for _ in range(2))
        assert 1001 == len(first.json()["results"])
        assert {"accepted": 1, "failed": 1000, "results_kept": False, "results": []} == second.json()
        assert (207, "true") == (second.status_code, second.headers["idempotency-replayed"])
        assert (
            "true"
            == bridge.client.post(topic, content=b"other", headers=other).headers["idempotency-replayed"]
        )
        assert bridge.client.post("/v1/topics/batch/end", content=b"end").is_success
    assert [b"other", b"1", b"end"] == [(await follower.message()).payload for _ in range(3)]


def test_an_answer_in_brief_is_still_a_problem() -> None:
    """Where none was accepted and something may have been sent, the first problem is in it."""
    outcomes = Outcomes()
    for _ in range(2):
        outcomes.fail(ProblemError(ProblemType.OUTCOME_UNKNOWN, "lost"))
    found = json.loads(brief_body(outcomes))
    assert ("outcome-unknown", 504) == (kind(found), found["status"])
    assert (0, 2, False) == tuple(found[name] for name in ("accepted", "failed", "results_kept"))


def test_a_key_is_free_where_nothing_of_an_array_was_sent(fresh_mosquitto: Mosquitto) -> None:
    """With the broker away all fail with 503; with it back the same request is published."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=0.3) as bridge:
        fresh_mosquitto.stop()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 503)
        messages = [{"topic": "batch/freed", "payload": number} for number in range(3)]
        key = {"Idempotency-Key": "batch-freed"}
        away = bridge.client.post(PATH, json=messages, headers=key)
        assert (503, 3) == (away.status_code, away.json()["failed"])
        fresh_mosquitto.start()
        wait_until(lambda: bridge.client.get("/readyz").status_code == 200)
        back = bridge.client.post(PATH, json=messages, headers=key)
        assert (200, 3) == (back.status_code, back.json()["accepted"])
        assert "idempotency-replayed" not in back.headers


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_lines_honour_no_key(bridge: Bridge, accept: str) -> None:
    """They are published as they come, and not kept: the header is refused, and nothing is sent."""
    headers = NDJSON | {"Idempotency-Key": "lines", "Accept": accept}
    answer = bridge.client.post(PATH, content=lines({"topic": "batch/a", "payload": 1}), headers=headers)
    assert (400, "unsupported-header") == (answer.status_code, kind(answer.json()))
