"""Credentials are swapped back and forth under 200 publishes a second and 50 streams, over HTTP."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.bridge import Bridge, wait_until
from tests.support.issued import issue
from tests.support.sse import Stream, following
from tests.support.tls_brokers import Plant, bridge_with_store, make_plant, strict_broker

STREAMS = 50
RATE = 200
PUBLISHERS = 4
SWAPS = 4


class Publisher(threading.Thread):
    """Publishes numbers, a part of the rate, with QoS 0 and 1 in turn, until it is stopped.

    Attributes:
        sent: what was accepted, by topic; each level of quality has a topic of its own.
        refused: the answers of what was not.
    """

    def __init__(self, bridge: Bridge, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.sent: dict[str, list[int]] = {f"load/{name}/0": [], f"load/{name}/1": []}
        self.refused: list[str] = []
        self._bridge = bridge
        self._is_over = threading.Event()

    def run(self) -> None:
        """Publish."""
        begins_at = time.monotonic()
        with httpx.Client(base_url=self._bridge.url, timeout=30, trust_env=False) as client:
            for number in itertools.count():
                due = begins_at + number * PUBLISHERS / RATE
                if self._is_over.wait(max(0.0, due - time.monotonic())):
                    return
                topic = f"load/{self.name}/{number % 2}"
                answer = client.post(f"/v1/topics/{topic}", params={"qos": number % 2}, content=str(number))
                if answer.status_code in (200, 202):
                    self.sent[topic].append(number)
                else:
                    self.refused.append(answer.text)

    def stop(self) -> None:
        """Publish nothing more."""
        self._is_over.set()
        self.join(30)


def received(stream: Stream) -> dict[str, list[int]]:
    """The numbers that a stream had, by topic, in order."""
    found: dict[str, list[int]] = {}
    for topic, payload, _ in stream.messages:
        found.setdefault(topic, []).append(payload)
    return found


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """An authority and its broker's certificate."""
    return make_plant(tmp_path / "plant")


def test_a_swap_loses_and_doubles_nothing(plant: Plant, tmp_path: Path) -> None:
    """Four swaps, and a failed one between: each stream has every message once, in order, and no more."""
    with ExitStack() as stack:
        broker = stack.enter_context(strict_broker(plant))
        bridge = stack.enter_context(bridge_with_store(broker.url, plant, tmp_path / "store"))
        for name in ("one", "two"):
            answer = bridge.client.put(f"/v1/credentials/{name}", json=plant.parts(plant.device(name)))
            assert 201 == answer.status_code
        stranger = issue("stranger", issue("Other Root", is_authority=True))
        bridge.client.put("/v1/credentials/wrong", json=plant.parts(stranger))
        streams = [stack.enter_context(following(bridge, "load/#", qos="1")) for _ in range(STREAMS)]
        publishers = [Publisher(bridge, str(number)) for number in range(PUBLISHERS)]
        for each in publishers:
            each.start()

        def count() -> int:
            return sum(len(numbers) for each in publishers for numbers in each.sent.values())

        try:
            for number in range(SWAPS):
                goal = count() + RATE // 2
                wait_until(lambda goal=goal: count() > goal, 30)  # type: ignore[misc]
                name = ("one", "two")[number % 2]
                assert 200 == bridge.client.post(f"/v1/credentials/{name}/activate").status_code
                if number == 1:
                    assert 502 == bridge.client.post("/v1/credentials/wrong/activate").status_code
        finally:
            for each in publishers:
                each.stop()
        assert [] == [text for each in publishers for text in each.refused]
        sent = {topic: numbers for each in publishers for topic, numbers in each.sent.items()}
        total = sum(map(len, sent.values()))
        for stream in streams:
            stream.wait_for_messages(total)
        for stream in streams:
            assert sent == received(stream)
            assert Counter({"message": total}) == Counter(event.name for event in stream.events)
        log = broker.log
    assert SWAPS + 1 <= log.count("New client connected")
