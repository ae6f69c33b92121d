from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
import sys
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypedDict
from unittest.mock import Mock
from uuid import UUID

import pydantic
import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import wait_until
from tidegate import ConfigurationError, JSONFormatter, Message, Publisher, Subscriber, TopicError, subscribe
from tidegate import message as message_module
from tidegate.binding import Binding
from tidegate.levels import NamedFilter
from tidegate.typed import UnfitError


class Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


@dataclasses.dataclass
class Reading:
    value: float
    unit: Unit = Unit.CELSIUS
    at: datetime | None = None


class Alert(TypedDict):
    level: Literal["warning", "critical"]
    readings: list[Reading]


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    value: int
    at: datetime | None = None


@dataclasses.dataclass
class Mixed:
    model: Model


class Odd:
    def __init__(self, text: str) -> None:
        if not text.isdigit():
            raise ValueError("an Odd is a number")
        self.number = int(text)


class _Namesake:
    class Message:
        """Not the SDK's."""


def arguments(
    handler: Any, *, topic: str = "a", payload: bytes = b"1", filters: Any = ("a",), with_topic: bool = False
) -> Any:
    """What a handler is called with."""
    named = [NamedFilter(each) for each in filters]
    binding = Binding(handler, JSONFormatter(), named, with_topic=with_topic)
    return binding.arguments(Message(topic, payload))


MESSAGE = Message("a", b"1")


def _takes_message(message: Message) -> None: ...
def _takes_message_by_module(given: message_module.Message) -> None: ...
def _takes_namesake(note: _Namesake.Message) -> None: ...
def _takes_unknown(message: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _takes_unknown_after(message: Message, *rest: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _takes_payload(payload: dict[str, Any]) -> None: ...
def _takes_default(payload: Any, other: int = 7) -> None: ...
def _takes_any(*args: Any, **kwargs: Any) -> None: ...
def _takes_topic_and_payload(topic: str, payload: Any) -> None: ...
def _takes_topic_and_message(topic: str, message: Message) -> None: ...


class _Callable:
    async def __call__(self, message: Message) -> None: ...


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (_takes_message, [MESSAGE]),
        (_takes_message_by_module, [MESSAGE]),
        (_Callable(), [MESSAGE]),
        (functools.partial(_takes_topic_and_message, "a"), [MESSAGE]),
        (_takes_unknown_after, [MESSAGE]),
        (_takes_namesake, [1]),
        (_takes_unknown, [1]),
        (_takes_payload, [1]),
        (_takes_default, [1]),
        (_takes_any, [1]),
        (lambda message: None, [1]),
        (print, [1]),
        (dict, [1]),
        ([].append, [1]),
        (Mock(), [1]),
    ],
    ids=repr,
)
def test_a_decorated_handler_takes_the_payload_or_the_message(handler: Any, expected: list[Any]) -> None:
    """Its first parameter gets the payload; one that is annotated with the SDK's Message gets everything."""
    assert arguments(handler) == (expected, {})


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (_takes_topic_and_payload, ["a", 1]),
        (_takes_topic_and_message, ["a", MESSAGE]),
        (_takes_message, [MESSAGE]),
        (_takes_any, ["a", 1]),
        (lambda topic, *rest: None, ["a", 1]),
        (print, ["a", 1]),
    ],
    ids=repr,
)
def test_a_subscribers_handler_takes_the_topic_too(handler: Any, expected: list[Any]) -> None:
    """Topic and payload, or the message alone."""
    assert arguments(handler, with_topic=True) == (expected, {})


def test_an_annotation_for_type_checkers_alone_counts_by_its_name() -> None:
    """A name imported for type checkers alone is not there when the program runs."""
    namespace: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef handle(message: tidegate.Message): ...", namespace)
    assert arguments(namespace["handle"]) == ([MESSAGE], {})


def test_a_handler_that_cannot_be_called_is_refused_at_once() -> None:
    """A parameter that nothing fills, or none for the message, is found when the module is imported."""
    for handler in (_takes_topic_and_payload, lambda message, other: None):
        with pytest.raises(ConfigurationError, match="that nothing fills"):
            arguments(handler)
    with pytest.raises(ConfigurationError, match=r"takes no \(payload\)"):
        arguments(lambda: None)
    with pytest.raises(ConfigurationError, match=r"takes no \(topic, payload\)"):
        arguments(lambda payload: None, with_topic=True)
    with pytest.raises(ConfigurationError, match="'sensor'"):
        arguments(lambda message, sensor: None, filters=("a/{sensor}", "b/+"))


# Named levels.


def levels(handler: Any, topic: str, *filters: str, with_topic: bool = False) -> Any:
    """What a handler gets of a topic."""
    return arguments(handler, topic=topic, filters=filters, with_topic=with_topic)


def test_named_levels_come_in_any_place() -> None:
    """By name, before or after the payload; a handler need ask for none, and may ask for nothing else."""

    def first(sensor: str, message: Any) -> None: ...
    def last(message: Any, *, sensor: str) -> None: ...
    def alone(sensor: str) -> None: ...
    def rest(message: Any, **levels: str) -> None: ...
    def with_all(topic: str, payload: Any, sensor: str) -> None: ...

    named = "sensors/{sensor}/{kind}"
    assert levels(first, "sensors/a/b", named) == (["a", 1], {})
    assert levels(last, "sensors/a/b", named) == ([1], {"sensor": "a"})
    assert levels(alone, "sensors/a/b", named) == (["a"], {})
    assert levels(_takes_payload, "sensors/a/b", named) == ([1], {})
    assert levels(rest, "sensors/a/b", named) == ([1], {"sensor": "a", "kind": "b"})
    assert levels(with_all, "sensors/a/b", named, with_topic=True) == (["sensors/a/b", 1, "a"], {})


@pytest.mark.parametrize(
    ("annotation", "level", "expected"),
    [
        (int, "7", 7),
        (int, "-7", -7),
        (float, "2.5", 2.5),
        (str, "7", "7"),
        (Any, "7", "7"),
        (bool, "true", True),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (Decimal, "2.50", Decimal("2.50")),
        (Unit, "kelvin", Unit.KELVIN),
        (Literal["a", "b"], "b", "b"),
        (int | str, "x", "x"),
    ],
    ids=repr,
)
def test_a_level_is_read_into_its_type(annotation: Any, level: str, expected: Any) -> None:
    """What a URL's path could carry, a level can."""

    def handle(message: Any, value: Any) -> None: ...

    handle.__annotations__["value"] = annotation
    assert levels(handle, f"a/{level}", "a/{value}") == ([1, expected], {})


@pytest.mark.parametrize(
    ("annotation", "level"),
    [(int, "7.5"), (int, ""), (int, "1_000"), (UUID, "x"), (Unit, "rankine"), (Odd, "x")],
)
def test_a_level_that_does_not_fit_is_told_by_name(annotation: Any, level: str) -> None:
    """The handler is not called with something else than it asks for."""

    def handle(message: Any, value: Any) -> None: ...

    handle.__annotations__["value"] = annotation
    with pytest.raises(UnfitError, match=r"^value="):
        levels(handle, f"a/{level}", "a/{value}")


def test_the_filter_that_matches_gives_the_levels() -> None:
    """Of several filters, the first that matches the topic; one without the name leaves the default."""

    def handle(message: Any, sensor: int = -1) -> None: ...

    assert levels(handle, "a/7", "a/{sensor}", "b/+/{sensor}") == ([1, 7], {})
    assert levels(handle, "b/x/8", "a/{sensor}", "b/+/{sensor}") == ([1, 8], {})
    assert levels(handle, "c/9", "a/{sensor}", "c/+") == ([1], {})
    assert levels(handle, "a/9", "a/{sensor}", "c/+") == ([1], {"sensor": 9})


@pytest.mark.parametrize("text", ["a/{1}", "a/{}", "a/{class}", "{a}/{a}"])
def test_a_name_that_no_parameter_can_have_is_refused(text: str) -> None:
    """At decoration, in words."""
    with pytest.raises(TopicError):
        subscribe(text)


# Typed payloads.


def read(annotation: Any, payload: bytes) -> Any:
    """What a parameter with this annotation gets."""

    def handle(message: Any) -> None: ...

    handle.__annotations__["message"] = annotation
    positional, _ = arguments(handle, payload=payload)
    return positional[0]


@pytest.mark.parametrize(
    ("annotation", "payload", "expected"),
    [
        (Reading, b'{"value":21}', Reading(21.0)),
        (Reading, b'{"value":1,"unit":"kelvin","more":1}', Reading(1.0, Unit.KELVIN)),
        (Reading, b'{"value":1,"at":"2026-01-31T12:00:00"}', Reading(1.0, at=datetime(2026, 1, 31, 12))),  # noqa: DTZ001
        (list[Reading], b'[{"value":1}]', [Reading(1.0)]),
        (Reading | None, b"null", None),
        (
            Alert,
            b'{"level":"warning","readings":[{"value":1}]}',
            {"level": "warning", "readings": [Reading(1.0)]},
        ),
        (Model, b'{"value":7,"at":"2026-01-31T12:00:00"}', Model(value=7, at=datetime(2026, 1, 31, 12))),  # noqa: DTZ001
        (list[Model], b'[{"value":7}]', [Model(value=7)]),
        (Mixed, b'{"model":{"value":7}}', Mixed(Model(value=7))),
        (int, b'"text"', "text"),
        (dict[str, int], b"plain", "plain"),
    ],
    ids=repr,
)
def test_a_payload_is_read_into_the_shape_asked_for(annotation: Any, payload: bytes, expected: Any) -> None:
    """Models, dataclasses and TypedDicts are made, also within another type; plain types are not checked."""
    assert read(annotation, payload) == expected


@pytest.mark.parametrize(
    ("annotation", "payload", "where"),
    [
        (Reading, b'{"value":"warm"}', "$.value"),
        (Reading, b"{}", "value"),
        (Reading, b"plain text", "object"),
        (Reading, b"\xff", "object"),
        (Alert, b'{"level":"bad","readings":[]}', "$.level"),
        (Alert, b'{"level":"warning","readings":[{}]}', "$.readings[0]"),
        (Model, b'{"value":"7"}', "$.value"),
        (Model, b"plain text", "JSON"),
        (Mixed, b'{"model":{"value":"7"}}', "$.value"),
    ],
    ids=repr,
)
def test_a_payload_of_another_shape_says_where(annotation: Any, payload: bytes, where: str) -> None:
    """The error names the place, in one line."""
    with pytest.raises(UnfitError) as caught:
        read(annotation, payload)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_formatter_of_ones_own_comes_before_the_shape() -> None:
    """What it parses is what is validated."""

    class Pairs:
        def format(self, payload: Any) -> str:
            return str(payload)

        def parse(self, message: bytes) -> Any:
            name, _, value = message.decode().partition("=")
            return {name: int(value)}

    def handle_dataclass(message: Reading) -> None: ...
    def handle_model(message: Model) -> None: ...

    for handler, expected in ((handle_dataclass, Reading(7.0)), (handle_model, Model(value=7))):
        binding = Binding(handler, Pairs(), [NamedFilter("a")], with_topic=False)
        assert binding.arguments(Message("a", b"value=7")) == ([expected], {})


def test_pydantic_is_not_needed_for_a_dataclass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK does not depend on it."""
    assert importlib.util.find_spec("pydantic") is not None
    monkeypatch.setitem(sys.modules, "pydantic", None)
    assert read(Reading, b'{"value":1}') == Reading(1.0)
    assert read(Alert, b'{"level":"warning","readings":[]}') == {"level": "warning", "readings": []}


# Over every way.


def test_a_handler_is_called_with_what_fits_alone(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit is logged with its topic and place; the next message comes."""
    caplog.set_level(logging.WARNING, "tidegate")
    got: list[tuple[int, Reading]] = []
    also: list[tuple[str, Any, int]] = []

    @subscribe("binding/{sensor}/value", **way.options)
    def handle(reading: Reading, sensor: int) -> None:
        got.append((sensor, reading))

    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:

        def listen(topic: str, payload: Any, sensor: int) -> None:
            also.append((topic, payload, sensor))

        subscriber.subscribe("binding/{sensor}/value", listen)

        def is_heard() -> bool:
            publisher.publish("binding/0/value", {"value": 0})
            return bool(got)

        wait_until(is_heard)
        publisher.publish("binding/x/value", {"value": 1})
        publisher.publish("binding/2/value", {"value": "warm"})
        publisher.publish("binding/3/value", {"value": 3})
        wait_until(lambda: got[-1] == (3, Reading(3.0)) and bool(also) and also[-1][2] == 3)
    assert {sensor for sensor, _ in got} == {0, 3}
    assert ("binding/2/value", {"value": "warm"}, 2) in also  # its payload has no type to fit
    assert (
        "handler handle was not called: the message from 'binding/x/value' does not fit: sensor='x'"
        in caplog.text
    )
    assert "$.value" in caplog.text
