"""The ways to a broker that the SDK is tested over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate import Message, Publisher, Subscriber, configure
from tidegate.decorators import disconnect_all
from tidegate.memory import MemoryBroker


@dataclass(frozen=True)
class Way:
    """How a client is told where to connect: the arguments of its class or decorator."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def bridge_url(mosquitto: Mosquitto) -> Iterator[str]:
    """A bridge to the shared broker."""
    with running_bridge(mosquitto.url) as bridge:
        yield bridge.url


@pytest.fixture(params=["direct", "bridge", "memory"])
def way(request: pytest.FixtureRequest) -> Way:
    """One suite, three ways."""
    if request.param == "direct":
        return Way("direct", {"url": request.getfixturevalue("mosquitto").url})
    if request.param == "bridge":
        return Way("bridge", {"url": request.getfixturevalue("bridge_url")})
    return Way("memory", {"connect": MemoryBroker().connect})


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins unconfigured, and decorated functions share nothing with the next test."""
    for name in ("TIDEGATE_URL", "TIDEGATE_TOKEN", "TIDEGATE_TLS", "TIDEGATE_TLS_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    yield
    disconnect_all()
    configure()


@pytest.fixture(params=["direct", "bridge"])
def told_url(
    request: pytest.FixtureRequest, fresh_mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """What the environment says: a broker of the test's own, or a bridge to it."""
    if request.param == "direct":
        monkeypatch.setenv("TIDEGATE_URL", fresh_mosquitto.url)
        yield fresh_mosquitto.url
    else:
        with running_bridge(fresh_mosquitto.url) as bridge:
            monkeypatch.setenv("TIDEGATE_URL", bridge.url)
            yield bridge.url


@pytest.fixture
def device(fresh_mosquitto: Mosquitto) -> Iterator[Publisher]:
    """Somebody else who publishes at the test's own broker."""
    with Publisher(fresh_mosquitto.url) as publisher:
        yield publisher


@pytest.fixture
def seen(told_url: str, fresh_mosquitto: Mosquitto) -> Iterator[list[Message]]:
    """Every message that the test's own broker passes on."""
    got: list[Message] = []

    def keep(message: Message) -> None:
        got.append(message)

    with Subscriber(fresh_mosquitto.url) as witness:
        witness.subscribe("#", keep, qos=2)
        yield got
