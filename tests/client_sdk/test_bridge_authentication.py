"""The SDK through a bridge that asks who one is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from app.security.grants import Grant
from app.security.key_records import KeyRecord, make_key, rewritten_keys
from tests.support.bridge import Bridge, running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate import Message, NotAuthorizedError, Publisher, Subscriber

NAME = "sdk"


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the keys are."""
    return tmp_path_factory.mktemp("keys") / "keys.yaml"


@pytest.fixture(scope="module")
def key(keys_file: Path) -> str:
    """A key for topics below its name."""
    text, key_id, digest = make_key()
    grants = (Grant("auth/{sub}/#"),)
    record = KeyRecord(id=key_id, name=NAME, hash=digest)
    with rewritten_keys(keys_file) as records:
        records.append(record.model_copy(update={"publish": grants, "subscribe": grants}))
    return text


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto, keys_file: Path, key: str) -> Iterator[Bridge]:
    """A bridge with that key."""
    with running_bridge(mosquitto.url, api_keys_file=keys_file) as running:
        yield running


@pytest.mark.parametrize("is_from_environment", [False, True])
def test_the_sdk_publishes_and_subscribes_with_an_api_key(
    bridge: Bridge, key: str, is_from_environment: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an argument, or in TIDEGATE_TOKEN."""
    token = None if is_from_environment else key
    if is_from_environment:
        monkeypatch.setenv("TIDEGATE_TOKEN", key)
    received: Queue[int] = Queue()

    def keep(message: Message) -> None:
        received.put(message.json())

    with Subscriber(bridge.url, token=token) as subscriber, Publisher(bridge.url, token=token) as publisher:
        subscriber.subscribe(f"auth/{NAME}/+", keep)
        assert 1 == publisher.publish(f"auth/{NAME}/a", 5).qos
        assert 5 == received.get(timeout=20)
        with pytest.raises(NotAuthorizedError, match="no grant covers it"):
            publisher.publish("auth/other/a", 5)


@pytest.mark.parametrize("token", [None, make_key()[0]])
def test_without_a_good_key_the_sdk_says_so(bridge: Bridge, token: str | None) -> None:
    """Publishing and subscribing raise what the direct connection raises, too."""
    with Publisher(bridge.url, token=token) as publisher, pytest.raises(NotAuthorizedError):
        publisher.publish(f"auth/{NAME}/a", 5)
    with Subscriber(bridge.url, token=token) as subscriber, pytest.raises(NotAuthorizedError):
        subscriber.subscribe(f"auth/{NAME}/a", print)
