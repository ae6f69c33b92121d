"""What was published stays: the contract of this tree against that in ``openapi/published/``."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
import yaml

from app.commands.contract_names import names
from tests.support.bridge import running_bridge
from tests.support.command import ROOT
from tests.support.metrics import scrape
from tests.support.mosquitto import Mosquitto
from tests.support.promises import Contract, contract

PUBLISHED: Final = ROOT / "openapi/published"
NAMES: Final = ("openapi", "asyncapi", "names")

Documents = dict[str, dict[str, Any]]


def read(directory: Any) -> Documents:
    """The documents in a directory, by name."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    files = {name: directory / f"{name}.yaml" for name in NAMES}
    return {
        name: yaml.load(file.read_text(), Loader=loader) for name, file in files.items() if file.is_file()
    }


def contract_of(documents: Documents) -> Contract:
    """What they promise."""
    return contract(*(documents[name] for name in NAMES))


@pytest.fixture(scope="module")
def published() -> Documents:
    """The documents of the last release."""
    return read(PUBLISHED)


@pytest.fixture(scope="module")
def current() -> Documents:
    """The documents of this tree, which other tests hold against the code, and its names."""
    return {**read(ROOT / "openapi"), "names": names()}


def test_nothing_that_was_published_is_gone(published: Documents, current: Documents) -> None:
    """And nothing is needed of callers that was not; docs/releasing.md says how a thing goes on purpose."""
    assert [] == contract_of(published).broken_by(contract_of(current))


def test_the_names_are_those_of_a_running_bridge(mosquitto: Mosquitto, current: Documents) -> None:
    """The metrics that it exposes have the names and labels that are written down."""
    with running_bridge(mosquitto.url) as bridge:
        bridge.client.post("/v1/topics/contract", content=b"1").raise_for_status()
        found = scrape(bridge.url)
    metrics = current["names"]["metrics"]
    for name, samples in found.items():
        if name.startswith("tidegate_"):
            base = next(each for each in (name, name.rpartition("_")[0]) if each in metrics)
            for labels in samples:
                assert set(metrics[base]) == {label for label, _ in labels} - {"le"}, name


def test_the_names_can_be_written() -> None:
    """By the command that publishing uses."""
    written = subprocess.run(
        [sys.executable, "-m", "app.commands.contract_names"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert names() == yaml.safe_load(written)


PUBLISH: Final = ("openapi", "paths", "/v1/publish", "post")
QUERY: Final = ("openapi", "paths", "/v1/subscribe", "get")
SCHEMAS: Final = ("openapi", "components", "schemas")
EVENTS: Final = ("asyncapi", "components", "schemas")
NEEDED: Final = {"name": "tenant", "in": "query", "required": True, "schema": {"type": "string"}}
OPTIONAL: Final = {**NEEDED, "required": False}


def at(documents: Documents, *path: str | int) -> Any:
    """What stands at a place of the documents."""
    place: Any = documents
    for part in path:
        place = place[part]
    return place


def gone(*path: str | int) -> Callable[[Documents], None]:
    """Takes a member away."""
    return lambda documents: at(documents, *path[:-1]).pop(path[-1])


def put(value: Any, *path: str | int) -> Callable[[Documents], None]:
    """Sets a member."""
    return lambda documents: at(documents, *path[:-1]).__setitem__(path[-1], value)


def added(value: Any, *path: str | int) -> Callable[[Documents], None]:
    """Adds to a list."""
    return lambda documents: at(documents, *path).append(value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (gone(*PUBLISH), "gone: POST /v1/publish"),
        (put("publish", *PUBLISH, "operationId"), "gone: POST /v1/publish is publish_message"),
        (gone(*QUERY, "parameters", 0), "gone: GET /v1/subscribe takes query topic"),
        (added(NEEDED, *QUERY, "parameters"), "new: GET /v1/subscribe needs query tenant"),
        (gone(*PUBLISH, "responses", "202"), "gone: POST /v1/publish answers 202"),
        (gone(*PUBLISH, "responses", "503"), "gone: POST /v1/publish answers 503"),
        (
            gone(*SCHEMAS, "PublishAnswer", "properties", "reason"),
            "gone: POST /v1/publish answers 200 in application/json/reason",
        ),
        (
            put(["topic"], *SCHEMAS, "PublishAnswer", "required"),
            "gone: POST /v1/publish answers 200 in application/json always has /qos",
        ),
        (
            put("string", *SCHEMAS, "PublishAnswer", "properties", "reason_code", "type"),
            "new: POST /v1/publish answers 200 in application/json/reason_code as string",
        ),
        (
            gone(*SCHEMAS, "PublishRequest", "properties", "retain"),
            "gone: POST /v1/publish takes application/json/retain",
        ),
        (
            added("qos", *SCHEMAS, "PublishRequest", "required"),
            "new: POST /v1/publish takes application/json needs /qos",
        ),
        (
            put(["json"], *SCHEMAS, "PublishRequest", "properties", "encoding", "enum"),
            "gone: POST /v1/publish takes application/json/encoding may be 'text'",
        ),
        (
            put({}, *SCHEMAS, "PublishAnswer", "properties", "topic"),
            "new: POST /v1/publish answers 200 in application/json/topic as anything",
        ),
        (
            put({"type": "object"}, *SCHEMAS, "PublishRequest", "properties", "payload"),
            "gone: POST /v1/publish takes application/json/payload as anything",
        ),
        (gone(*EVENTS, "StreamMessage", "properties", "topic"), "gone: eventStream tells message/topic"),
        (gone(*EVENTS, "GapFrame", "properties", "filters"), "gone: webSocket tells gap/filters"),
        (gone(*EVENTS, "SubscribeFrame", "properties", "qos"), "gone: webSocket takes subscribe/qos"),
        (
            added("qos", *EVENTS, "SubscribeFrame", "required"),
            "new: webSocket takes subscribe needs /qos",
        ),
        (gone("asyncapi", "operations", "receivePing"), "gone: operation receivePing"),
        (
            gone("asyncapi", "channels", "webSocket", "x-close-codes", "4401"),
            "gone: channel webSocket ends with 4401",
        ),
        (gone("names", "settings", 0), "gone: setting TIDEGATE_"),
        (put([], "names", "problems"), "gone: problem invalid-topic"),
        (gone("names", "metrics", "tidegate_publishes_total"), "gone: metric tidegate_publishes_total"),
        (
            put(["outcome"], "names", "metrics", "tidegate_publishes_total"),
            "gone: metric tidegate_publishes_total has qos",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_that_breaks_is_found(
    current: Documents, change: Callable[[Documents], None], told: str
) -> None:
    """And is told by what breaks."""
    changed = copy.deepcopy(current)
    change(changed)
    broken = contract_of(current).broken_by(contract_of(changed))
    assert [each for each in broken if each.startswith(told)], broken


@pytest.mark.parametrize(
    "change",
    [
        added(OPTIONAL, *QUERY, "parameters"),
        put({"operationId": "new", "parameters": [NEEDED], "responses": {}}, *PUBLISH[:-1], "patch"),
        put({"description": "Too early."}, *PUBLISH, "responses", "425"),
        put({"type": "string"}, *SCHEMAS, "PublishAnswer", "properties", "new"),
        put({"type": "string"}, *SCHEMAS, "PublishRequest", "properties", "new"),
        put(
            {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            *SCHEMAS,
            "PublishRequest",
            "properties",
            "qos",
        ),
        put({"type": ["string", "null"]}, *EVENTS, "StreamMessage", "properties", "new"),
        added("TIDEGATE_NEW", "names", "settings"),
        put(["a"], "names", "metrics", "tidegate_new"),
    ],
)
def test_a_change_that_adds_breaks_nothing(current: Documents, change: Callable[[Documents], None]) -> None:
    """New calls, parameters that may be left out, members, types that are taken, and names."""
    changed = copy.deepcopy(current)
    change(changed)
    assert contract_of(changed).promises > contract_of(current).promises
    assert [] == contract_of(current).broken_by(contract_of(changed))
