"""Every call has a rule, and keeps it: a table of who may, walked over the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from app.api.access import ACCESS, GRANTS, PUBLIC, Rule
from app.security.authentication import Authentication
from app.security.grants import Grant
from app.security.principal import Permission
from tests.support.bridge import Bridge, running_bridge
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient

STATUS: Final = Rule(permission=Permission.STATUS_READ)

READS_CREDENTIALS: Final = Rule(permission=Permission.CREDENTIALS_READ)
CHANGES_CREDENTIALS: Final = Rule(permission=Permission.CREDENTIALS_WRITE)

RULES: Final = {
    "publish_topic": GRANTS,
    "publish_topic_by_query": GRANTS,
    "publish_retained": GRANTS,
    "publish_retained_by_query": GRANTS,
    "get_retained": GRANTS,
    "get_retained_by_query": GRANTS,
    "clear_retained": GRANTS,
    "clear_retained_by_query": GRANTS,
    "publish_message": GRANTS,
    "publish_batch": GRANTS,
    "request_topic": GRANTS,
    "request_topic_by_query": GRANTS,
    "subscribe": GRANTS,
    "subscribe_by_body": GRANTS,
    "open_websocket": GRANTS,
    "get_principal": GRANTS,
    "create_ticket": GRANTS,
    "get_status": STATUS,
    "get_metrics": Rule(permission=Permission.METRICS_READ),
    "list_credentials": READS_CREDENTIALS,
    "get_credential": READS_CREDENTIALS,
    "list_activations": READS_CREDENTIALS,
    "put_credential": CHANGES_CREDENTIALS,
    "delete_credential": CHANGES_CREDENTIALS,
    "test_credential": CHANGES_CREDENTIALS,
    "activate_credential": CHANGES_CREDENTIALS,
    "get_livez": PUBLIC,
    "get_readyz": PUBLIC,
}
"""What each operation of the document asks for; one that is not here fails the test below."""

FOREIGN: Final = "access/others/x"
"""A topic that nobody here is granted."""

READER: Final = principal("reader", subscribe=("access/own/#",))
WRITER: Final = principal("writer", publish=(Grant("access/own/#", max_qos=1, may_retain=False),))


@pytest.fixture(scope="module")
def tokens() -> FixedTokens:
    """Who is who."""
    return FixedTokens(
        nobody=principal("nobody"),
        reader=READER,
        writer=WRITER,
        operator=principal("operator", scopes=("status:read", "metrics:read")),
    )


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto, tokens: FixedTokens) -> Iterator[Bridge]:
    """A bridge that asks who one is."""
    with running_bridge(mosquitto.url, authentication=Authentication([tokens])) as running:
        yield running


@pytest.fixture(scope="module")
def operations(bridge: Bridge) -> dict[str, tuple[str, str]]:
    """Method and path of every operation of the document."""
    document = bridge.client.get("/openapi.json").json()
    return {
        operation["operationId"]: (method.upper(), path)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_every_operation_has_a_rule(operations: dict[str, tuple[str, str]]) -> None:
    """An operation that nobody thought of fails here."""
    assert set(RULES) == set(operations)
    for name, (method, path) in operations.items():
        assert RULES[name] == ACCESS.rule(method, path.replace("{topic}", "a/b")), name


def test_every_operation_that_is_not_public_refuses_a_stranger(
    bridge: Bridge, operations: dict[str, tuple[str, str]]
) -> None:
    """401 without a token and with one that is not known, before anything else is looked at."""
    for name, (method, path) in operations.items():
        for headers in ({}, bearer("made-up"), {"Authorization": "Basic eDp5"}):
            answer = bridge.client.request(
                method, path.replace("{topic}", "a%00"), headers=headers, params={"nonsense": "1"}
            )
            if RULES[name] == PUBLIC:
                assert answer.status_code == 400, name
                continue
            assert answer.status_code == 401, name
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["type"] == "urn:tidegate:problem:unauthenticated"


def test_the_document_says_what_each_operation_asks_for(bridge: Bridge) -> None:
    """Operations that need a principal name the scheme and the refusals; public ones do not."""
    document = bridge.client.get("/openapi.json").json()
    for item in document["paths"].values():
        for operation in item.values():
            rule = RULES[operation["operationId"]]
            assert (rule != PUBLIC) == bool(operation["security"])
            assert (rule != PUBLIC) == ("401" in operation["responses"])
            if rule.permission is not None:
                assert rule.permission.value in operation["description"]
                assert "403" in operation["responses"]


def test_paths_of_no_operation_need_a_principal_too(bridge: Bridge) -> None:
    """A stranger does not learn what there is and what not."""
    for path in ("/", "/v1", "/v1/nothing", "/v1/status/", "/v1/credentials/x%0A", "/livez/", "/%2Flivez"):
        assert bridge.client.get(path).status_code == 401, path
    assert bridge.client.get("/v1/nothing", headers=bearer("reader")).status_code == 404


def test_encoding_a_path_otherwise_does_not_lead_around_its_rule(bridge: Bridge) -> None:
    """What the router takes for a path, the guard does."""
    for target in (b"/v1/%73tatus", b"/%761/status", b"/v1/status?", b"/v1/status#x", b"/livez/../v1/status"):
        answer = bridge.raw("GET", target)
        assert answer.status == 401, target
    assert bridge.raw("GET", b"/v1/%73tatus", headers=bearer("reader")).status == 403
    assert bridge.raw("GET", b"/console/..%2f..%2fv1/status", headers={}).status in (401, 404)


def test_a_line_break_behind_a_path_does_not_lead_around_its_scope(bridge: Bridge) -> None:
    """The router takes ``/v1/status%0A`` for ``/v1/status``; so does the guard."""
    assert bridge.raw("GET", b"/v1/status%0A", headers=bearer("operator")).status == 200
    assert bridge.raw("GET", b"/v1/status%0A", headers=bearer("reader")).status == 403
    for method, path in (("GET", "/metrics"), ("GET", "/v1/credentials"), ("PUT", "/v1/credentials/x")):
        assert ACCESS.rule(method, f"{path}\n") == ACCESS.rule(method, path) != GRANTS


WRITES: Final = [
    ("POST", "/v1/topics/{topic}", b"x"),
    ("PUT", "/v1/topics/{topic}", b"x"),
    ("DELETE", "/v1/topics/{topic}", b""),
    ("POST", "/v1/topics?topic={topic}", b"x"),
    ("POST", "/v1/publish", b'{"topic": "{topic}", "payload": 1}'),
    ("POST", "/v1/requests/{topic}?timeout=1", b"x"),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=lambda each: str(each)[:24])
@pytest.mark.parametrize("token", ["nobody", "reader", "writer", "operator"])
def test_nobody_publishes_where_no_grant_says_so(
    bridge: Bridge, token: str, method: str, path: str, body: bytes
) -> None:
    """403, whatever the call; and the answer tells nothing of others."""
    headers = bearer(token)
    if path == "/v1/publish":
        headers["Content-Type"] = "application/json"
    answer = bridge.client.request(
        method,
        path.replace("{topic}", FOREIGN),
        headers=headers,
        content=body.replace(b"{topic}", FOREIGN.encode()),
    )
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"] == "urn:tidegate:problem:not-granted"
    assert "access/own" not in answer.text


def test_each_message_of_a_batch_needs_its_grant(bridge: Bridge) -> None:
    """Those that are granted are published, the others fail alone; lines as well as arrays."""
    items = [
        {"topic": "access/own/1", "payload": 1},
        {"topic": FOREIGN, "payload": 2},
        {"topic": "access/own/2", "payload": 3, "qos": 2},
        {"topic": "access/own/3", "payload": 4, "retain": True},
        {"topic": "$SYS/x", "payload": 5},
    ]
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in items)
    for content, kind in ((json.dumps(items).encode(), "application/json"), (lines, "application/x-ndjson")):
        headers = {**bearer("writer"), "Content-Type": kind}
        answer = bridge.client.post("/v1/publish/batch", content=content, headers=headers)
        found = answer.json()
        assert (found["accepted"], found["failed"]) == (1, 4), found
        kinds = [each.get("problem", {}).get("type", "").rpartition(":")[2] for each in found["results"]]
        assert kinds == ["", "not-granted", "not-granted", "not-granted", "reserved-topic"]


def test_a_grants_qos_and_retain_flag_bound_what_is_published(bridge: Bridge) -> None:
    """The refusal says which of them it is."""
    url = "/v1/topics/access/own/t"
    assert bridge.client.post(url, content=b"x", headers=bearer("writer")).status_code == 200
    high = bridge.client.post(url, content=b"x", params={"qos": 2}, headers=bearer("writer"))
    assert (high.status_code, "QoS 1 is the highest" in high.json()["detail"]) == (403, True)
    for answer in (
        bridge.client.put(url, content=b"x", headers=bearer("writer")),
        bridge.client.delete(url, headers=bearer("writer")),
    ):
        assert (answer.status_code, "retained" in answer.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    "topic_filter", ["#", "access/#", "access/+/x", "$share/g/access/#", "access/own", "$SYS/#", "+/own/#"]
)
def test_nobody_follows_or_reads_where_no_grant_says_so(bridge: Bridge, topic_filter: str) -> None:
    """By stream, by body, and of what is retained: refused before the first byte."""
    own = "access/own/#"
    headers = bearer("reader")
    if topic_filter != "access/own":  # which access/own/# covers
        answers = [
            bridge.client.get("/v1/subscribe", params={"topic": [own, topic_filter]}, headers=headers),
            bridge.client.post("/v1/subscribe", json={"topics": [own, topic_filter]}, headers=headers),
        ]
        if not topic_filter.startswith("$share"):
            answers.append(bridge.client.get("/v1/topics", params={"topic": topic_filter}, headers=headers))
        for answer in answers:
            assert answer.status_code == 403, answer.text
            assert answer.json()["type"] == "urn:tidegate:problem:not-granted"
        assert answers[1].json()["field"] == "/topics/1"
    for token in ("nobody", "writer", "operator"):
        answer = bridge.client.get("/v1/subscribe", params={"topic": own}, headers=bearer(token))
        assert answer.status_code == 403


def test_a_response_topic_of_ones_own_choice_is_followed_only_where_granted(bridge: Bridge) -> None:
    """Else a request would read what others are answered."""
    answer = bridge.client.post(
        "/v1/requests/access/own/ask",
        params={"response_topic": FOREIGN, "timeout": 1},
        content=b"x",
        headers=bearer("writer"),
    )
    assert (answer.status_code, answer.json()["field"]) == (403, "response_topic")


def test_every_operation_of_a_websocket_needs_its_grant(bridge: Bridge) -> None:
    """A refusal is an answer to the frame, and the socket lives on."""
    with SocketClient(bridge.port, headers=bearer("reader")) as reader:
        refused: dict[str, Any] = reader.refusal("subscribe", id="s", topics=["access/#"])
        assert refused["type"] == "urn:tidegate:problem:not-granted"
        refused = reader.refusal("publish", id="p", topic="access/own/x", payload=1)
        assert refused["type"] == "urn:tidegate:problem:not-granted"
        subscription = reader.subscribe("access/own/ws")
        with SocketClient(bridge.port, headers=bearer("writer")) as writer:
            assert "ack" == writer.publish("access/own/ws", 7)["op"]
        assert [7] == reader.read_messages(subscription, 1)


def test_a_websocket_without_a_token_is_refused_before_it_is_accepted(bridge: Bridge) -> None:
    """The handshake's answer is the problem."""
    for headers in ({}, bearer("made-up")):
        with SocketClient(bridge.port, headers=headers, is_open=False) as client:
            assert (client.status, client.problem["status"]) == (401, 401)


def test_a_scope_opens_what_it_names_and_no_topic(bridge: Bridge) -> None:
    """Status needs its scope, and grants of topics do not give it."""
    assert bridge.client.get("/v1/status", headers=bearer("operator")).status_code == 200
    refused = bridge.client.get("/v1/status", headers=bearer("writer"))
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:tidegate:problem:forbidden")
    assert "status:read" in refused.json()["detail"]


def test_a_principal_learns_who_it_is(bridge: Bridge) -> None:
    """Its own name, grants and scopes."""
    answer = bridge.client.get("/v1/principal", headers=bearer("writer"))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {
        "subject": "writer",
        "source": "api_key",
        "scopes": [],
        "expires_at": None,
        "publish": [{"filter": "access/own/#", "qos": 1, "retain": False}],
        "subscribe": [],
    }


def test_an_idempotency_key_is_its_principals_own(bridge: Bridge, tokens: FixedTokens) -> None:
    """The same key of another caller is another request, and shows nobody what another was answered."""
    tokens.principals["twin"] = principal("twin", publish=("access/own/#",))
    for token in ("writer", "twin"):
        for replayed in (None, "true"):
            answer = bridge.client.post(
                "/v1/topics/access/own/key",
                content=token.encode(),
                headers={**bearer(token), "Idempotency-Key": "0d7b9c1e-access"},
            )
            assert (answer.status_code, answer.headers.get("Idempotency-Replayed")) == (200, replayed)
