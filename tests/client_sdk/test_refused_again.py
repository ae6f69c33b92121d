from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tidegate import NotConnectedError, Publisher, Subscriber
from tidegate.memory import MemoryBroker


def test_a_filter_refused_after_a_reconnect_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    """Rules that a broker loads late silence nobody for good; the other filters go on meanwhile."""
    denied: set[str] = set()
    broker = MemoryBroker(authorize=lambda action, topic, options: 0x87 if topic in denied else 0)
    got: list[Any] = []
    others: list[Any] = []
    with Subscriber(connect=broker.connect) as subscriber, Publisher(connect=broker.connect) as publisher:
        subscriber.subscribe("late", lambda _, payload: got.append(payload), qos=2)
        subscriber.subscribe("other", lambda _, payload: others.append(payload))
        denied.add("late")
        broker.stop(forget=True)
        broker.start()
        wait_until(lambda: "no longer grants late" in caplog.text)

        def is_heard(topic: str, by: list[Any]) -> bool:
            with contextlib.suppress(NotConnectedError):  # the connection ends this very moment
                publisher.publish(topic, 1)
            return bool(by)

        denied.discard("late")
        wait_until(lambda: is_heard("other", others))
        wait_until(lambda: is_heard("late", got))
        assert "grants late again" in caplog.text
        found = [each for client in broker.client_ids for each in broker.subscriptions_of(client)]
        assert {each.filter: each.qos for each in found} == {"late": 2, "other": 1}
        broker.stop(forget=True)
        broker.start()
        got.clear()
        wait_until(lambda: is_heard("late", got))


def test_what_nobody_follows_any_more_is_not_asked_for() -> None:
    """Disconnecting ends the asking."""
    denied: set[str] = set()
    broker = MemoryBroker(authorize=lambda action, topic, options: 0x87 if topic in denied else 0)
    subscriber = Subscriber(connect=broker.connect)
    subscriber.subscribe("late", print)
    transport: Any = subscriber._asynchronous._transport
    denied.add("late")
    broker.stop(forget=True)
    broker.start()
    wait_until(lambda: "late" in transport._asking)
    subscriber.disconnect()
    wait_until(lambda: not transport._asking)
