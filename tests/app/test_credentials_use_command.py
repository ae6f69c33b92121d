"""``tidegate credentials test`` and ``activate``, beside a bridge that runs on the same store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tests.support.bridge import running_bridge, wait_until
from tests.support.command import run_command
from tests.support.issued import issue
from tests.support.mosquitto import Mosquitto
from tests.support.tls_brokers import Plant, make_plant, strict_broker

KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """An authority and its broker's certificate."""
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def broker(plant: Plant) -> Iterator[Mosquitto]:
    """A broker that wants client certificates."""
    with strict_broker(plant) as running:
        yield running


def test_tried_and_taken_into_use(broker: Mosquitto, plant: Plant, tmp_path: Path) -> None:
    """A bridge on the store goes over to what the command activates; what fails the test is not activated."""
    store = tmp_path / "store"
    settings = {
        "TIDEGATE_CREDENTIALS_DIR": str(store),
        "TIDEGATE_CREDENTIALS_KEY": KEY,
        "TIDEGATE_BROKER_URL": broker.url,
        "TIDEGATE_BROKER_CA_FILE": str(plant.files.ca),
    }
    good, wrong = plant.device("by-command"), issue("stranger", issue("Other", is_authority=True))
    for name, device in (("good", good), ("wrong", wrong)):
        file = tmp_path / name
        file.write_bytes(device.key() + device.pem + plant.root.pem)
        added = run_command("credentials", "add", name, str(file), settings=settings)
        assert 0 == added.returncode, added.stderr
    with running_bridge(
        broker.url,
        broker_ca_file=plant.files.ca,
        broker_certificate_file=plant.files.client_certificate,
        broker_key_file=plant.files.client_key,
        credentials_dir=store,
        credentials_key=KEY,
    ) as bridge:
        tried = run_command("credentials", "test", "wrong", settings=settings)
        assert 1 == tried.returncode
        assert "client certificate refused" in tried.stdout
        assert "Failed at: CONNECT." in tried.stdout
        failed = run_command("credentials", "activate", "wrong", settings=settings)
        assert (1, "tidegate: wrong is not taken into use\n") == (failed.returncode, failed.stderr)
        assert [] == bridge.client.get("/v1/credentials/-/activations").json()["activations"]
        tried = run_command("credentials", "test", "good", "--url", broker.url, settings=settings)
        assert (0, "All is well.") == (tried.returncode, tried.stdout.splitlines()[-1])
        done = run_command("credentials", "activate", "good", settings=settings)
        assert 0 == done.returncode, done.stderr
        wait_until(lambda: bridge.client.get("/v1/status").json()["tls"]["credential"] == "good", 20)
        (record,) = bridge.client.get("/v1/credentials/-/activations").json()["activations"]
        assert ("good", "active", "command line") == (record["name"], record["outcome"], record["by"])


def test_what_cannot_be_done(plant: Plant, tmp_path: Path) -> None:
    """Without TLS, without a store, on a mount, and with a name that is not there: each is told in words."""
    folder = {"TIDEGATE_CREDENTIALS_DIR": str(tmp_path / "store"), "TIDEGATE_CREDENTIALS_KEY": KEY}
    tls = {"TIDEGATE_BROKER_URL": "mqtts://localhost"}
    mount = {"TIDEGATE_CREDENTIALS_MOUNT": str(plant.files.ca.parent)}
    for command, settings, words in (
        ("test", folder, "begin TIDEGATE_BROKER_URL with mqtts"),
        ("test", tls, "set TIDEGATE_CREDENTIALS_DIR"),
        ("activate", tls | mount, "in use without being asked"),
        ("activate", tls | folder, "nobody"),
    ):
        done = run_command("credentials", command, "nobody", settings=settings)
        assert 0 != done.returncode
        assert words in done.stderr
