from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Publisher,
    Subscriber,
    UnsupportedQoSWarning,
    configure,
    publish,
    subscribe,
)
from tidegate.memory import MemoryBroker

HOST = "a1b2c3-ats.iot.eu-central-1.amazonaws.com"


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory behind the name of an AWS IoT endpoint."""
    made = MemoryBroker()
    configure(host=HOST, connect=made.connect)
    return made


def sent(broker: MemoryBroker) -> list[int]:
    """The QoS of each message."""
    return [each.qos for each in broker.published]


def granted(broker: MemoryBroker) -> set[int]:
    """The QoS that was asked for in each subscription."""
    return {each.qos for client in broker.client_ids for each in broker.subscriptions_of(client)}


def test_the_classes_warn_and_send_qos_1(broker: MemoryBroker) -> None:
    """The warning points at the caller's line; QoS 0 and 1 are quiet."""
    with Publisher() as publisher:
        for qos in (0, 1):
            publisher.publish("a", 1, qos=qos)
        with pytest.warns(UnsupportedQoSWarning, match="QoS 1 is used instead") as caught:
            assert publisher.publish("a", 1, qos=2).qos == 1
    assert caught[0].filename == __file__
    wait_until(lambda: sent(broker) == [0, 1, 1])


async def test_the_asynchronous_classes_do_so_too(broker: MemoryBroker) -> None:
    """Publishing and subscribing."""
    async with AsyncPublisher() as publisher, AsyncSubscriber() as subscriber:
        with pytest.warns(UnsupportedQoSWarning):
            assert (await publisher.publish("a", 1, qos=2)).qos == 1
        with pytest.warns(UnsupportedQoSWarning):
            await subscriber.subscribe("a", print, qos=2)
        with pytest.warns(UnsupportedQoSWarning):
            await subscriber.subscribe_multiple([("b", 2), ("c", 1)], print)
        assert granted(broker) == {1}
    assert sent(broker) == [1]


def test_the_decorators_warn_where_they_stand(broker: MemoryBroker) -> None:
    """At decoration, once; the calls are quiet."""
    with pytest.warns(UnsupportedQoSWarning) as caught:

        @publish("a", qos=2)
        def read() -> int:
            return 1

    assert [each.filename for each in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read() == 1
        assert read() == 1
    with pytest.warns(UnsupportedQoSWarning) as caught:
        subscribe("a", qos=2)(print)
    assert [each.filename for each in caught] == [__file__]
    wait_until(lambda: granted(broker) == {1})
    assert sent(broker) == [1, 1]


def test_a_decorator_that_learns_it_later_warns_then() -> None:
    """``configure`` may come after the decoration; the first call warns, and only the first."""
    broker = MemoryBroker()

    @publish("a", qos=2)
    def read() -> int:
        return 1

    configure(f"mqtts://{HOST}", connect=broker.connect)
    with pytest.warns(UnsupportedQoSWarning) as caught:
        read()
    assert [each.filename for each in caught] == [__file__]
    read()
    assert sent(broker) == [1, 1]


def test_a_blocking_subscriber_warns(broker: MemoryBroker) -> None:
    """With the line of the caller."""
    with Subscriber() as subscriber:
        with pytest.warns(UnsupportedQoSWarning) as caught:
            subscriber.subscribe_multiple([("a", 2)], print)
        assert [each.filename for each in caught] == [__file__]
        assert granted(broker) == {1}


@pytest.mark.parametrize(
    "options", [{"host": "broker.example"}, {"url": "mqtt://localhost"}, {"url": f"http://{HOST}"}], ids=repr
)
def test_other_places_are_left_alone(options: dict[str, Any]) -> None:
    """Another broker has QoS 2, and a bridge knows its own broker."""
    publish("a", qos=2, **options)(lambda: 1)
    assert not AsyncPublisher(**options).is_on_aws_iot


def test_it_is_a_warning_that_users_see_by_default() -> None:
    """Python hides some kinds of warnings; not this one."""
    assert issubclass(UnsupportedQoSWarning, UserWarning)
