"""Brokers and certificates for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.certificates import Certificates, make_certificates
from tests.support.mosquitto import Mosquitto
from tests.support.valkey import Valkey


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority with a server's and a client's certificate, the same for the whole run."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    """A broker that anybody may use, shared by the whole run: use topics of your own, leave it running."""
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def fresh_mosquitto() -> Iterator[Mosquitto]:
    """A broker for one test alone, to stop, kill, pause or fill."""
    with Mosquitto() as broker:
        yield broker


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server for what replicas share, shared by the whole run: use keys of your own, leave it running."""
    with Valkey() as server:
        yield server


@pytest.fixture
def fresh_valkey() -> Iterator[Valkey]:
    """A server for one test alone, with a password, to kill or pause."""
    with Valkey(password="hunter2") as server:
        yield server
