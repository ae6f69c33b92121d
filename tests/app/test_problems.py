from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Query

from app.problem_types import page
from app.problems import Problem, ProblemError, ProblemType, did_you_mean, documented, problem_of
from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate.errors import (
    MQTTConnectionError,
    MQTTError,
    MQTTTimeoutError,
    NotConnectedError,
    OutcomeUnknownError,
    PayloadError,
    QueueFullError,
    TLSError,
    TopicError,
    UnsupportedError,
    refusal,
)
from tidegate.reason_codes import NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


def test_the_page_tells_what_the_table_does() -> None:
    """docs/problems.md is written from the table: python -m app.problem_types > docs/problems.md."""
    assert (DOCS / "problems.md").read_text() == page()


def test_each_type_has_a_name_of_its_own() -> None:
    """A client tells problems apart by ``type``."""
    names = [kind.slug for kind in ProblemType]
    assert sorted(set(names)) == sorted(names)
    assert all(kind.uri == f"urn:tidegate:problem:{kind.slug}" for kind in ProblemType)
    assert all(400 <= kind.status < 600 for kind in ProblemType)


@pytest.mark.parametrize("kind", ProblemType)
def test_a_problem_is_of_the_documented_model(kind: ProblemType) -> None:
    """What is sent is what the document describes, and empty members are left out."""
    error = ProblemError(kind, "why", field="f", hint="do", reason_code=0x97)
    assert Problem.model_validate_json(error.body()).model_dump() == error.members()
    assert set(ProblemError(kind, "why").members()) == {"type", "title", "status", "detail"}
    assert ("Retry-After" in error.headers) is (kind.status == 503)


def test_a_detail_may_quote_any_text() -> None:
    """A lone surrogate of somebody's input does not become a failure of ours."""
    error = ProblemError(ProblemType.INVALID_TOPIC, "a\ud800", field="\ud800", hint="\ud800")
    assert Problem.model_validate_json(error.body()).detail == "a?"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TopicError("no", topic="a"), ProblemType.INVALID_TOPIC),
        (UnsupportedError("no"), ProblemType.UNSUPPORTED),
        (UnsupportedError("no", reason_code=0x95), ProblemType.PACKET_TOO_LARGE),
        (PayloadError("no"), ProblemType.INVALID_PAYLOAD),
        (NotConnectedError("no"), ProblemType.BROKER_UNAVAILABLE),
        (MQTTConnectionError("no"), ProblemType.BROKER_UNAVAILABLE),
        (TLSError("no"), ProblemType.BROKER_UNAVAILABLE),
        (QueueFullError("no"), ProblemType.QUEUE_FULL),
        (OutcomeUnknownError("no"), ProblemType.OUTCOME_UNKNOWN),
        (MQTTTimeoutError("no"), ProblemType.BROKER_TIMEOUT),
        (refusal("publish", 0x87, topic="a"), ProblemType.NOT_AUTHORIZED),
        (refusal("publish", 0x80, topic="a"), ProblemType.REFUSED_BY_BROKER),
        (refusal("publish", 0x83, topic="a"), ProblemType.REFUSED_BY_BROKER),
        (refusal("publish", 0x90, topic="a"), ProblemType.INVALID_TOPIC),
        (refusal("publish", 0x95, topic="a"), ProblemType.PACKET_TOO_LARGE),
        (refusal("publish", 0x96, topic="a"), ProblemType.QUOTA_EXCEEDED),
        (refusal("publish", 0x97, topic="a"), ProblemType.QUOTA_EXCEEDED),
        (refusal("publish", 0x99, topic="a"), ProblemType.INVALID_PAYLOAD),
        (refusal("publish", 0xFE, topic="a"), ProblemType.REFUSED_BY_BROKER),
    ],
)
def test_an_error_of_the_sdk_becomes_a_problem(error: MQTTError, kind: ProblemType) -> None:
    """Each has its type, and a reason code of the broker is told with its name."""
    problem = problem_of(error)
    assert problem.kind is kind
    assert problem.reason_code == error.reason_code
    if error.reason_code is not None:
        assert problem.members()["reason"] == NAMES.get(error.reason_code, "reason code unknown to MQTT 5")


def test_no_error_of_the_sdk_is_forgotten() -> None:
    """Every class of the tree has a status, and none is an internal error."""
    kinds = [MQTTError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert len(kinds) > 10
    for kind in kinds:
        error = kind.__new__(kind)
        MQTTError.__init__(error, "no")
        assert problem_of(error).kind is not ProblemType.INTERNAL_ERROR


def test_whose_fault_it_is_shows_in_the_status() -> None:
    """The caller's faults are 4xx; what the network or the broker did is 5xx."""
    for error in (TopicError("no"), UnsupportedError("no"), PayloadError("no")):
        assert (error.fault, problem_of(error).kind.status // 100) == ("caller", 4)
    for away in (NotConnectedError("no"), OutcomeUnknownError("no"), QueueFullError("no")):
        assert (away.fault, problem_of(away).kind.status // 100) == ("network", 5)


def test_the_nearest_name_is_told() -> None:
    """A hint names what was probably meant, or all that there is."""
    assert did_you_mean("qso", ["retain", "qos"]) == "did you mean 'qos'?"
    assert did_you_mean("MQTT-QOS", ["mqtt-qos"]) == "did you mean 'mqtt-qos'?"
    assert did_you_mean("zzz", ["retain", "qos"]) == "known are qos, retain"
    assert did_you_mean("zzz", []) == "there are none here"


def test_documented_answers_are_grouped_by_status() -> None:
    """Two types of one status are two examples of one answer."""
    answers = documented(ProblemType.NOT_READY, ProblemType.INVALID_TOPIC, ProblemType.INVALID_HEADER)
    assert list(answers) == [400, 503]
    content = answers[400]["content"]["application/problem+json"]
    assert sorted(content["examples"]) == ["invalid-header", "invalid-topic"]
    assert "Retry-After" in answers[503]["headers"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/topic/a/b", "/v1/topics/{topic}"),
        ("/v1/topics-a/b", "/v1/topics/{topic}"),
        ("/v1/publsih", "/v1/publish"),
        ("/v1/publish/", "/v1/publish"),
        ("/v1/suscribe", "/v1/subscribe"),
        ("/livezz", "/livez"),
        ("/health", "/docs"),
        ("/", "/docs"),
    ],
)
def test_an_unknown_path_names_the_nearest(bridge: Bridge, path: str, hint: str) -> None:
    """404 tells what was probably meant, or where to look."""
    answer = bridge.client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:tidegate:problem:not-found")
    assert hint in answer.json()["hint"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_an_unknown_parameter_is_refused_by_every_call(bridge: Bridge, path: str) -> None:
    """The framework's own routes are as strict as the others."""
    answer = bridge.client.get(f"{path}?verbose=1")
    assert (answer.status_code, answer.json()["field"]) == (400, "verbose")
    assert answer.json()["type"] == "urn:tidegate:problem:unknown-parameter"


def test_a_fault_of_ours_tells_nothing_of_the_inside(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """500 has no stack trace and no text of the exception; the log has both."""

    def add_routes(app: FastAPI) -> None:
        @app.get("/fault")
        async def fault() -> None:
            raise RuntimeError("secret")

        @app.get("/numbered/{number}")
        async def numbered(number: int, other: int = Query(1)) -> int:
            return number + other

    with caplog.at_level(logging.ERROR), running_bridge(mosquitto.url, prepare=add_routes) as bridge:
        answer = bridge.client.get("/fault")
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:tidegate:problem:internal-error")
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert "secret" in caplog.text
        for target, field in (("/numbered/x", "number"), ("/numbered/1?other=x", "other")):
            refused = bridge.client.get(target)
            assert (refused.status_code, refused.json()["field"]) == (400, field)
            assert refused.json()["type"] == "urn:tidegate:problem:invalid-parameter"
