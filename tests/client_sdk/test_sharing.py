from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    ConfigurationError,
    NotConnectedError,
    Publisher,
    Subscriber,
    publish,
    subscribe,
)
from tidegate.memory import MemoryBroker

SECONDS = 20.0


def connects(broker: Mosquitto) -> int:
    """How many connections the broker has seen."""
    return broker.log.count("New client connected")


def test_two_classes_with_one_client_identifier_share_a_connection(fresh_mosquitto: Mosquitto) -> None:
    """A publisher and a subscriber made from one configuration both work, and nobody is thrown off."""
    configuration: dict[str, Any] = {
        "host": fresh_mosquitto.host,
        "port": fresh_mosquitto.port,
        "client_id": "one",
    }
    got: list[Any] = []
    publisher, subscriber = Publisher(**configuration), Subscriber(**configuration)
    subscriber.subscribe("sharing", lambda topic, payload: got.append(payload))
    for number in range(20):
        publisher.publish("sharing", number)
    wait_until(lambda: got == list(range(20)))
    publisher.disconnect()
    with Publisher(fresh_mosquitto.url) as other:
        other.publish("sharing", "the subscriber stays")
    wait_until(lambda: got[-1] == "the subscriber stays")
    assert "Client one disconnected" not in fresh_mosquitto.log
    subscriber.disconnect()
    wait_until(lambda: "Client one disconnected." in fresh_mosquitto.log)
    assert "already connected" not in fresh_mosquitto.log
    assert connects(fresh_mosquitto) == 2


async def test_both_faces_and_decorators_share_it_too(fresh_mosquitto: Mosquitto) -> None:
    """Whatever the loop and however the identifier was told, there is one connection."""
    url = f"{fresh_mosquitto.url}?client_id=one"
    got: list[Any] = []
    arrived = asyncio.Event()

    @publish("sharing/all", url=url)
    def send(value: int) -> int:
        return value

    async def handle(topic: str, payload: Any) -> None:
        got.append((payload, threading.current_thread() is threading.main_thread()))
        if len(got) == 3:
            arrived.set()

    options: dict[str, Any] = {"url": fresh_mosquitto.url, "client_id": "one"}
    async with AsyncSubscriber(**options) as subscriber, AsyncPublisher(url) as publisher:
        await subscriber.subscribe("sharing/all", handle)
        assert (await publisher.publish("sharing/all", 1)).reason_code == 0
        send(2)
        with Publisher(**options) as blocking:
            blocking.publish("sharing/all", 3)
        async with asyncio.timeout(SECONDS):
            await arrived.wait()
    assert got == [(1, True), (2, True), (3, True)]
    assert connects(fresh_mosquitto) == 1


def test_who_leaves_takes_its_subscriptions_along() -> None:
    """The connection stays for the others, without what nobody follows any more."""
    broker = MemoryBroker()
    options: dict[str, Any] = {"client_id": "one", "connect": broker.connect}
    with Subscriber(**options) as stays:
        with Subscriber(**options) as leaves:
            stays.subscribe(["both", "mine"], print)
            leaves.subscribe(["both", "yours"], print)
            assert {each.filter for each in broker.subscriptions_of("one")} == {"both", "mine", "yours"}
        assert {each.filter for each in broker.subscriptions_of("one")} == {"both", "mine"}
    assert broker.client_ids == []


def test_without_a_client_identifier_each_has_a_connection() -> None:
    """Identifiers that the SDK makes up clash with nobody's."""
    broker = MemoryBroker()
    with Publisher(connect=broker.connect), Publisher(connect=broker.connect):
        assert len(set(broker.client_ids)) == 2


def test_one_identifier_with_other_options_is_an_error() -> None:
    """Two clients that cannot share would fight for ever, so the second is told."""
    broker = MemoryBroker()
    with Publisher(client_id="one", username="a", connect=broker.connect) as first:
        second = Publisher(client_id="one", username="b", connect=broker.connect)
        with pytest.raises(ConfigurationError, match="client_id='one' is in use"):
            second.publish("a", 1)
        first.publish("a", 1)
    second.publish("a", 2)
    assert len(broker.published) == 2
    second.disconnect()


def test_a_client_that_left_says_so() -> None:
    """Disconnecting is for good also where the connection stays."""
    broker = MemoryBroker()
    with Publisher(client_id="one", connect=broker.connect):
        leaver = Publisher(client_id="one", connect=broker.connect)
        leaver.publish("a", 1)
        leaver.disconnect()
        leaver.disconnect()
        with pytest.raises(NotConnectedError, match="make a new one"):
            leaver.publish("a", 1)
        assert broker.client_ids == ["one"]


def test_listening_with_a_client_identifier_comes_back_after_a_restart(fresh_mosquitto: Mosquitto) -> None:
    """The shared connection reconnects, with the subscriptions of all its clients."""
    got: list[Any] = []
    url = f"{fresh_mosquitto.url}?client_id=one"
    subscribe("sharing/again", url=url)(got.append)
    with Publisher(url) as publisher:

        def is_heard() -> bool:
            publisher.publish("sharing/again", 1)
            return bool(got)

        wait_until(is_heard)
        fresh_mosquitto.restart()
        got.clear()
        wait_until(is_heard)
