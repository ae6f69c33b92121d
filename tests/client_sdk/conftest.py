"""The ways to a broker that the SDK is tested over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate import configure
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
