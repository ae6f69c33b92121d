"""The OpenAPI document is valid, its examples are what it says, and its words are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import jsonschema_rs
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import SecretStr

from app.contracts.openapi import COOKIE_SETTING
from app.main import create_app
from app.settings import Settings
from tests.support.asked import Requests
from tests.support.bridge import running_bridge
from tests.support.device import Device
from tests.support.mosquitto import Mosquitto
from tidegate import AsyncPublisher, AsyncSubscriber, Properties

SDK: Final = {
    "publish": "publish_topic",
    "publish, retained": "publish_topic",
    "publish, with properties": "publish_message",
    "publish, retained and empty": "clear_retained",
    "publish_many": "publish_batch",
    "request": "request_topic",
    "subscribe": "subscribe",
}
"""What the SDK calls for what it is asked, by the names of operations."""


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """An application with the defaults."""
    return create_app(Settings())


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    """Its document."""
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operations with their ids."""
    for item in document["paths"].values():
        for operation in item.values():
            yield operation["operationId"], operation


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What a call takes and what it answers where it succeeds: where, in which media type, what."""
    places = {"takes": operation.get("requestBody", {})}
    places |= {status: each for status, each in operation["responses"].items() if status < "4"}
    for where, place in places.items():
        for media, content in place.get("content", {}).items():
            yield where, media, content


def examples(described: dict[str, Any]) -> list[Any]:
    """The examples of a parameter or a content."""
    if "example" in described:
        return [described["example"]]
    return [each["value"] for each in described.get("examples", {}).values()]


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value by a schema of the document."""
    whole = {"allOf": [schema], "components": document["components"]}
    return [each.message for each in jsonschema_rs.Draft202012Validator(whole).iter_errors(value)]


def test_the_document_is_one_of_openapi(document: dict[str, Any]) -> None:
    """By the rules of OpenAPI 3.1, of its JSON Schemas and of their defaults; a wrong one is refused."""
    assert [] == [str(each) for each in OpenAPIV31SpecValidator(document).iter_errors()]
    assert not OpenAPIV31SpecValidator({**document, "chanels": {}}).is_valid()


def test_every_call_shows_what_it_takes_and_answers(document: dict[str, Any]) -> None:
    """Each body, each answer of a success and each parameter that is needed has an example that fits."""
    for name, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert not parameter.get("required") or examples(parameter), (name, parameter["name"])
            for each in examples(parameter):
                several = isinstance(each, list) or parameter["schema"].get("type") != "array"
                assert [] == faults(document, parameter["schema"], each if several else [each]), name
        for where, media, content in contents(operation):
            assert examples(content), (name, where, media)
            for each in examples(content):
                assert [] == faults(document, content["schema"], each), (name, where, media)


def test_every_schema_shows_what_it_is(document: dict[str, Any]) -> None:
    """The examples of schemas and of their members fit."""
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            assert [] == faults(document, schema, example), name
        for member, described in schema.get("properties", {}).items():
            for example in described.get("examples", ()):
                assert [] == faults(document, described, example), (name, member)


KEYWORDS: Final = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "contentEncoding",
    "default",
    "description",
    "enum",
    "examples",
    "exclusiveMinimum",
    "format",
    "items",
    "maximum",
    "maxItems",
    "maxLength",
    "minimum",
    "minItems",
    "minLength",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
}
"""Those of JSON Schema (2020-12) that the documents use."""


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema, and those within it."""
    if not isinstance(schema, dict):
        return
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    for each in (*inner, schema.get("items"), schema.get("additionalProperties")):
        yield from subschemas(each)


def test_schemas_say_what_json_schema_has_words_for(app: FastAPI, document: dict[str, Any]) -> None:
    """A word that is none would be passed over by every reader, and what it says with it."""
    schemas = [*document["components"]["schemas"].values()]
    schemas += app.state.describe_streams()["components"]["schemas"].values()
    for _, operation in operations(document):
        schemas += [each["schema"] for each in operation.get("parameters", ())]
        schemas += [content["schema"] for _, _, content in contents(operation)]
    unknown = {word for schema in schemas for each in subschemas(schema) for word in each.keys() - KEYWORDS}
    assert set() == unknown


def test_every_tag_is_described(document: dict[str, Any]) -> None:
    """Each call has one, and each that is described is of some call."""
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}
    assert used == {each["name"] for each in document["tags"]}
    assert all(each["description"] for each in document["tags"])


def test_every_way_to_show_who_one_is_is_described(document: dict[str, Any]) -> None:
    """A header or a cookie where a caller is asked for, a ticket where a browser opens a stream."""
    schemes = document["components"]["securitySchemes"]
    assert {"bearer", "cookie", "ticket"} == set(schemes)
    for name, operation in operations(document):
        ways = [next(iter(each)) for each in operation["security"]]
        with_ticket = ["bearer", "cookie", "ticket"]
        expected = with_ticket if name in ("subscribe", "open_websocket") else ["bearer", "cookie"]
        assert ways in ([], expected), name
    assert COOKIE_SETTING == schemes["cookie"]["name"]


def test_the_cookie_has_the_name_that_it_is_configured_with() -> None:
    """A client that is made from the document of a bridge sends that one."""
    app = create_app(Settings(jwt_cookie="session", jwt_key=SecretStr("x" * 32), jwt_algorithms=("HS256",)))
    assert "session" == app.openapi()["components"]["securitySchemes"]["cookie"]["name"]
    assert "session" == app.state.describe_streams()["components"]["securitySchemes"]["cookie"]["name"]


def test_the_names_of_calls_are_those_of_the_code(app: FastAPI, document: dict[str, Any]) -> None:
    """Of functions, where the framework calls them; each is in words with underscores, and there once."""
    names = [name for name, _ in operations(document)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in names)
    routers = [getattr(each, "original_router", None) for each in app.routes]
    routes = [route for each in routers if each is not None for route in each.routes]
    called = {each.name: each for each in routes if isinstance(each, APIRoute) and each.include_in_schema}
    assert {"get_livez", "get_readyz", "get_status", "get_principal"} <= set(called)
    assert [] == [name for name, route in called.items() if name != route.operation_id]


def named(document: dict[str, Any], method: str, path: str) -> str:
    """The operation that a request is one of."""
    for pattern, item in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", ".+", pattern), path) and method.lower() in item:
            name: str = item[method.lower()]["operationId"]
            return name
    raise AssertionError(f"{method} {path} is in no document")


async def test_the_words_of_calls_are_those_of_the_sdk(
    mosquitto: Mosquitto, document: dict[str, Any]
) -> None:
    """What the SDK asks of a bridge, by what its user asks of the SDK."""
    requests = Requests()
    properties = Properties(content_type="text/plain")
    made: dict[str, str] = {}

    def note(what: str) -> None:
        found = [each for each in requests.of("/v1/") if each.path != "/v1/subscribe" or what == "subscribe"]
        made[what] = named(document, found[-1].method, found[-1].path)

    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        async with (
            Device(mosquitto.port, "words/request"),
            AsyncPublisher(bridge.url) as publisher,
            AsyncSubscriber(bridge.url) as subscriber,
        ):
            await subscriber.subscribe("words/#", lambda topic, payload: None)
            note("subscribe")
            await publisher.publish("words/a", b"1")
            note("publish")
            await publisher.publish("words/a", b"1", retain=True)
            note("publish, retained")
            await publisher.publish("words/a", b"1", properties=properties)
            note("publish, with properties")
            await publisher.publish("words/a", b"", retain=True)
            note("publish, retained and empty")
            await publisher.request("words/request", b"1")
            note("request")
            await publisher.publish_many([("words/a", b"1"), ("words/b", b"1")])
            note("publish_many")
    assert SDK == made
    for asked, name in SDK.items():
        assert asked.startswith(name.partition("_")[0]) or name.startswith("clear"), asked
