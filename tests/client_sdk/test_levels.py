from __future__ import annotations

from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import wait_until
from tidegate import ConfigurationError, Subscriber, TopicError, configure, publish, subscribe
from tidegate.decorators import disconnect_all
from tidegate.memory import MemoryBroker


class Kind(Enum):
    TEMPERATURE = "temperature"


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory that every decorator uses by default."""
    made = MemoryBroker()
    configure(connect=made.connect)
    return made


def topics(broker: MemoryBroker) -> list[str]:
    """Where was published."""
    return [each.topic for each in broker.published]


def test_a_named_level_is_filled_from_the_arguments(broker: MemoryBroker) -> None:
    """By position, by keyword or by default; what the function returns is the payload."""

    @publish("sensors/{sensor_id}/{kind}")
    def read(sensor_id: object, *, kind: object = "temperature") -> int:
        return 21

    assert read("a") == 21
    read(sensor_id="b", kind=Kind.TEMPERATURE)
    read(7, kind="grün")
    read(UUID(int=1), kind=True)
    assert topics(broker) == [
        "sensors/a/temperature",
        "sensors/b/temperature",
        "sensors/7/grün",
        "sensors/00000000-0000-0000-0000-000000000001/true",
    ]


async def test_methods_and_coroutine_functions_fill_levels_too(broker: MemoryBroker) -> None:
    """``self`` is an argument like others, and needs no level."""

    class Sensor:
        @publish("sensors/{sensor_id}/value")
        async def read(self, sensor_id: int) -> int:
            return sensor_id

    assert await Sensor().read(3) == 3
    assert topics(broker) == ["sensors/3/value"]


@pytest.mark.parametrize("value", [None, "", "a/b", "+", "#", "a\x00", Kind])
def test_what_cannot_be_one_level_is_refused(broker: MemoryBroker, value: Any) -> None:
    """No argument reaches another topic than the pattern says."""

    @publish("sensors/{sensor_id}/value")
    def read(sensor_id: Any) -> int:
        return 1

    if value is Kind:
        read(value.TEMPERATURE)
        return
    with pytest.raises(TopicError):
        read(value)
    assert topics(broker) == []


def test_a_name_that_is_no_parameter_is_told_at_decoration(broker: MemoryBroker) -> None:
    """A typing error in a name is found when the module is imported."""
    for function in (lambda sensor: 1, lambda *sensor_id: 1, lambda **sensor_id: 1):
        with pytest.raises(ConfigurationError, match="sensor_id"):
            publish("sensors/{sensor_id}")(function)
    for topic in ("a/{1}", "{a}/{a}", "a/{b}/+", "a/{b}/#"):
        with pytest.raises(TopicError):
            publish(topic)


def test_braces_within_a_level_are_themselves(broker: MemoryBroker) -> None:
    """Only a whole level is a name."""
    publish("a/x{y}")(lambda: 1)()
    assert topics(broker) == ["a/x{y}"]


def test_the_same_pattern_serves_both_sides(way: Way) -> None:
    """What one function publishes with a level, another gets with it, as a number again."""
    got: list[tuple[int, Any]] = []

    @subscribe("levels/{sensor_id}/value", **way.options)
    def handle(message: Any, sensor_id: int) -> None:
        got.append((sensor_id, message))

    @publish("levels/{sensor_id}/value", **way.options)
    def read(sensor_id: int) -> dict[str, int]:
        return {"n": 10 * sensor_id}

    wait_until(lambda: bool(read(0) and got))
    read(7)
    wait_until(lambda: (7, {"n": 70}) in got)


# Decorators on decorators.


def test_publish_above_subscribe_publishes_what_the_handler_returns(way: Way) -> None:
    """The message makes the handler run, and its result goes on to the next topic, levels and all."""
    got: list[tuple[str, Any]] = []

    @publish("stack/{number}/out", **way.options)
    @subscribe("stack/{number}/in", **way.options)
    def double(message: int, number: int) -> int:
        return 2 * message + number

    send = publish("stack/1/in", **way.options)(lambda: 10)
    with Subscriber(**way.options) as subscriber:
        subscriber.subscribe("stack/1/out", lambda topic, payload: got.append((topic, payload)))
        wait_until(lambda: bool(send() and got))
        assert got[0] == ("stack/1/out", 21)
        got.clear()
        assert double(5, 1) == 11
        wait_until(lambda: ("stack/1/out", 11) in got)


def test_subscribe_above_publish_does_the_same(way: Way) -> None:
    """Whichever stands first, coroutine function or not."""
    got: list[Any] = []

    @subscribe("stack/second/in", **way.options)
    @publish("stack/second/out", **way.options)
    async def negate(message: int) -> int:
        return -message

    send = publish("stack/second/in", **way.options)(lambda: 10)
    with Subscriber(**way.options) as subscriber:
        subscriber.subscribe("stack/second/out", lambda _, payload: got.append(payload))
        wait_until(lambda: bool(send() and got))
    assert got[0] == -10


def test_several_of_each_stack(broker: MemoryBroker) -> None:
    """Every subscription makes the function run, and every publication is made of each run."""

    @publish("out/1")
    @publish("out/2")
    @subscribe("in/1")
    @subscribe("in/2")
    def handle(message: int) -> int:
        return 2 * message

    wait_until(
        lambda: (
            {"in/1", "in/2"}
            == {each.filter for client in broker.client_ids for each in broker.subscriptions_of(client)}
        )
    )
    for number in (1, 2):
        publish(f"in/{number}")(lambda: number)()  # noqa: B023 - called at once
    wait_until(lambda: len(broker.published) == 6)
    assert sorted((each.topic, each.json()) for each in broker.published if each.topic.startswith("out")) == [
        ("out/1", 2),
        ("out/1", 4),
        ("out/2", 2),
        ("out/2", 4),
    ]
    disconnect_all()
