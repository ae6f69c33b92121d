from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.api.input.query import ClearQuery, PublishQuery, RetainedQuery, TopicQuery
from app.api.input.request_options import RequestQuery
from app.api.input.stream_options import SubscribeRequest
from app.api.models import BatchAnswer, PublishAnswer, PublishRequest, RetainedMessage
from app.api.tickets import TicketAnswer, TicketRequest
from app.main import create_app
from app.problems import Problem, ProblemType
from app.server import make_server
from app.settings import Settings
from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto

OPERATIONS = {
    "publish_topic": ("post", "/v1/topics/{topic}"),
    "publish_retained": ("put", "/v1/topics/{topic}"),
    "get_retained": ("get", "/v1/topics/{topic}"),
    "clear_retained": ("delete", "/v1/topics/{topic}"),
    "publish_topic_by_query": ("post", "/v1/topics"),
    "publish_retained_by_query": ("put", "/v1/topics"),
    "get_retained_by_query": ("get", "/v1/topics"),
    "clear_retained_by_query": ("delete", "/v1/topics"),
    "publish_message": ("post", "/v1/publish"),
    "request_topic": ("post", "/v1/requests/{topic}"),
    "request_topic_by_query": ("post", "/v1/requests"),
    "publish_batch": ("post", "/v1/publish/batch"),
    "subscribe": ("get", "/v1/subscribe"),
    "subscribe_by_body": ("post", "/v1/subscribe"),
    "open_websocket": ("get", "/v1/ws"),
    "get_status": ("get", "/v1/status"),
    "list_credentials": ("get", "/v1/credentials"),
    "get_credential": ("get", "/v1/credentials/{name}"),
    "put_credential": ("put", "/v1/credentials/{name}"),
    "delete_credential": ("delete", "/v1/credentials/{name}"),
    "test_credential": ("post", "/v1/credentials/{name}/test"),
    "activate_credential": ("post", "/v1/credentials/{name}/activate"),
    "list_activations": ("get", "/v1/credentials/{name}/activations"),
    "get_principal": ("get", "/v1/principal"),
    "create_ticket": ("post", "/v1/tickets"),
    "get_livez": ("get", "/livez"),
    "get_readyz": ("get", "/readyz"),
    "get_metrics": ("get", "/metrics"),
}


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture(scope="module")
def document(bridge: Bridge) -> dict[str, Any]:
    """The document as it is served."""
    answer = bridge.client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations by their id."""
    return {
        operation["operationId"]: operation
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }


def problems(operation: dict[str, Any]) -> set[str]:
    """The problem types that an operation documents."""
    return {
        name
        for answer in operation["responses"].values()
        for name in answer.get("content", {}).get("application/problem+json", {}).get("examples", ())
    }


def test_every_call_has_its_name(document: dict[str, Any]) -> None:
    """The names are those of routes, SDK methods and tests; no call is left out."""
    assert document["openapi"].startswith("3.1")
    assert set(operations(document)) == set(OPERATIONS)
    for name, (method, path) in OPERATIONS.items():
        assert document["paths"][path][method]["operationId"] == name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No schema is referred to that is not there, and none is there for nothing."""
    schemas = document["components"]["schemas"]
    named = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert named == set(schemas)


def test_every_call_tells_what_it_is_and_answers(document: dict[str, Any]) -> None:
    """Each has a summary, a success, and only problem details for its errors, each with an example."""
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert any(status in ("101", "200", "204") for status in operation["responses"]), name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if status >= "4":
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
                for example in answer["content"]["application/problem+json"]["examples"].values():
                    assert Problem.model_validate(example["value"]).status == int(status)
            if status == "503":
                assert "Retry-After" in answer["headers"], name


@pytest.mark.parametrize(
    ("operation", "model"),
    [
        ("publish_topic_by_query", PublishQuery),
        ("publish_retained_by_query", RetainedQuery),
        ("get_retained_by_query", TopicQuery),
        ("clear_retained_by_query", ClearQuery),
        ("request_topic_by_query", RequestQuery),
    ],
)
def test_the_parameters_are_those_that_are_read(
    document: dict[str, Any], operation: str, model: type[TopicQuery]
) -> None:
    """The document has each query parameter of the model with its default, and no other."""
    described = {
        each["name"]: each for each in operations(document)[operation]["parameters"] if each["in"] == "query"
    }
    assert set(described) == set(model.model_fields)
    for name, field in model.model_fields.items():
        assert described[name]["description"] == field.description
        assert described[name]["schema"].get("default") == field.default


def test_the_topic_is_in_the_path_or_in_the_query(document: dict[str, Any]) -> None:
    """The two ways to name a topic are two paths, since together they are refused; all else is the same."""
    both = operations(document)
    for name in ("publish_topic", "publish_retained", "get_retained", "clear_retained", "request_topic"):
        in_path, *others = both[name]["parameters"]
        in_query, *same = both[f"{name}_by_query"]["parameters"]
        assert (in_path["in"], in_query["in"]) == ("path", "query")
        assert in_path["required"] is in_query["required"] is True
        assert others == same
        assert both[name]["responses"] == both[f"{name}_by_query"]["responses"]


@pytest.mark.parametrize(
    ("topic", "is_allowed"),
    [
        ("a/b", True),
        ("/", True),
        ("é", True),
        ("$SYS/a", False),
        ("a/+", False),
        ("#", False),
        ("a\nb", False),
    ],
)
def test_the_pattern_tells_what_a_topic_may_be(
    document: dict[str, Any], topic: str, is_allowed: bool
) -> None:
    """A client that checks by the document refuses what the bridge would."""
    pattern = operations(document)["publish_topic"]["parameters"][0]["schema"]["pattern"]
    assert (re.search(pattern, topic) is not None) is is_allowed


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("a=b", True),
        ("=", True),
        ("a==%3D", True),
        ("caf%C3%A9=1 2", True),
        ("0", False),
        ("a%3Db", False),
        ("a=%", False),
        ("%4=a", False),
        ("", False),
    ],
)
def test_the_pattern_tells_what_a_user_property_is(
    bridge: Bridge, document: dict[str, Any], value: str, is_one: bool
) -> None:
    """Every call that takes the header has it, and the calls take what it takes."""
    patterns = {
        name: each["schema"]["pattern"]
        for name, operation in operations(document).items()
        for each in operation.get("parameters", ())
        if each["name"] == "Mqtt-User-Property"
    }
    assert {"publish_topic", "publish_retained", "request_topic"} <= set(patterns)
    assert {is_one} == {re.search(pattern, value) is not None for pattern in patterns.values()}
    answer = bridge.client.post("/v1/topics/property", content=b"x", headers={"Mqtt-User-Property": value})
    assert (200 if is_one else 400) == answer.status_code


def test_the_examples_are_what_the_models_take(document: dict[str, Any]) -> None:
    """An example that a reader copies works."""
    schemas = document["components"]["schemas"]
    for model in (
        BatchAnswer,
        PublishRequest,
        PublishAnswer,
        RetainedMessage,
        SubscribeRequest,
        TicketAnswer,
        TicketRequest,
        Problem,
    ):
        examples = schemas[model.__name__]["examples"]
        assert examples
        for example in examples:
            TypeAdapter(model).validate_python(example)


def test_the_examples_can_be_sent(bridge: Bridge, document: dict[str, Any]) -> None:
    """The bridge takes its own examples."""
    for example in document["components"]["schemas"]["PublishRequest"]["examples"]:
        assert bridge.client.post("/v1/publish", json=example).status_code == 200
    for name in ("publish_topic", "publish_retained", "clear_retained"):
        method, path = OPERATIONS[name]
        operation = operations(document)[name]
        given = [each for each in operation["parameters"] if "example" in each]
        query = {each["name"]: each["example"] for each in given if each["in"] == "query"}
        headers = {each["name"]: each["example"] for each in given if each["in"] == "header"}
        headers["Idempotency-Key"] += name  # a key is one request's own
        topic = operation["parameters"][0]["example"]
        body = b"" if method == "delete" else b"21.5"
        answer = bridge.client.request(
            method, path.replace("{topic}", topic), params=query, headers=headers, content=body
        )
        assert answer.status_code == 200, answer.text


def test_every_problem_is_documented_where_it_happens(document: dict[str, Any]) -> None:
    """A type that no call documents is one that no version of the bridge may answer yet, or of any path."""
    found = set().union(*(problems(operation) for operation in operations(document).values()))
    of_any_path = {
        ProblemType.BAD_REQUEST,
        ProblemType.NOT_FOUND,
        ProblemType.METHOD_NOT_ALLOWED,
        ProblemType.HEADER_TIMEOUT,
        ProblemType.TARGET_TOO_LONG,
        ProblemType.HEADERS_TOO_LARGE,
        ProblemType.TOO_MANY_CONNECTIONS,
    }
    assert found == {kind.slug for kind in ProblemType if kind not in of_any_path}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_answered_is_documented(bridge: Bridge, document: dict[str, Any], name: str) -> None:
    """A call that is asked something foolish answers with a status and a type that its document has."""
    method, path = OPERATIONS[name]
    answer = bridge.client.request(method, path.replace("{topic}", "a%00"), params={"nothing": "1"})
    assert answer.status_code == 400
    slug = answer.json()["type"].removeprefix("urn:tidegate:problem:")
    assert slug in problems(operations(document)[name])


def test_the_document_is_the_same_each_time(bridge: Bridge) -> None:
    """It is made once and kept."""
    assert bridge.app.openapi() is bridge.app.openapi()


def test_the_docs_load_nothing_from_another_host(bridge: Bridge) -> None:
    """The page and all that it loads come from the bridge, and no outside validator is asked."""
    page = bridge.client.get("/docs")
    assert page.status_code == 200
    assert "//" not in re.sub(r"<!--.*?-->", "", re.sub(r"https?://www\.w3\.org", "", page.text))
    assert '"validatorUrl": null' in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) >= 3
    for path in loaded:
        assert path.startswith("/")
        assert bridge.client.get(path).status_code == 200, path
    assert "/openapi.json" in page.text


def test_there_is_no_second_page_of_docs(bridge: Bridge) -> None:
    """One page is enough: ReDoc is not served."""
    assert bridge.client.get("/redoc").status_code == 404


def test_no_request_has_to_wait_until_the_document_is_made() -> None:
    """The server has it before it listens: a first path that is not known stops no stream."""
    app = create_app(Settings())
    assert app.openapi_schema is None

    make_server(app, Settings())

    assert app.openapi_schema is not None
