"""The examples that specify the SDK, run with the hosts, passwords and certificates that they name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import seed
from tests.support.bridge import wait_until
from tests.support.certificates import Certificates, make_certificates
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tests.support.seed import covers, run
from tidegate import Publisher, Subscriber, TLSError, UnsupportedQoSWarning

SECURE_HOST = "secure-mqtt.example.com"
AWS_HOST = "your-endpoint.iot.region.amazonaws.com"
TLS_PORT = 8883


@pytest.fixture(params=["nothing", "a bridge"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says, which the host in a block wins over."""
    if request.param == "a bridge":
        monkeypatch.setenv("TIDEGATE_URL", request.getfixturevalue("bridge_url"))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for the hosts that the blocks name."""
    return make_certificates(tmp_path_factory.mktemp("named"), SECURE_HOST, AWS_HOST)


@pytest.fixture
def secure(named: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mosquitto]:
    """A broker that asks for a client certificate, at both hosts."""
    with Mosquitto(tls=named, require_certificate=True) as broker:
        seed.lead(monkeypatch, {(host, TLS_PORT): broker.port for host in (SECURE_HOST, AWS_HOST)})
        yield broker


@pytest.fixture
def directory(named: Certificates, tmp_path: Path) -> Path:
    """The certificate files under the names that the blocks give them."""
    for name, file in {
        "ca.pem": named.ca,
        "client.crt": named.client_certificate,
        "client.key": named.client_key,
        "AmazonRootCA1.pem": named.ca,
        "device.pem.crt": named.client_certificate,
        "private.pem.key": named.client_key,
    }.items():
        (tmp_path / name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def seen(secure: Mosquitto, named: Certificates) -> Iterator[list[tuple[str, Any]]]:
    """What the secure broker passes on."""
    got: list[tuple[str, Any]] = []
    with Subscriber(secure.url, tls=named.client_context(with_certificate=True)) as witness:
        witness.subscribe("#", lambda topic, payload: got.append((topic, payload)), qos=2)
        yield got


@covers("Connection Settings")
def test_connection_settings(elsewhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher and a subscriber with one identifier and one password share a connection to the host."""
    got: list[Any] = []
    with Mosquitto(passwords={"mqtt_user": "mqtt_pass"}) as broker:
        seed.lead(monkeypatch, {("mqtt.example.com", 1883): broker.port})
        names = run("Connection Settings")
        names["subscriber"].subscribe("settings", lambda _, payload: got.append(payload))
        assert names["publisher"].publish("settings", {"n": 1}).reason_code == 0
        wait_until(lambda: got == [{"n": 1}])
        names["publisher"].disconnect()
        names["subscriber"].disconnect()
        assert broker.log.count("as pycarta_client (") == 1
        assert "u'mqtt_user'" in broker.log


@covers("TLS/SSL Configuration")
def test_tls_configuration(elsewhere: None, directory: Path, seen: list[tuple[str, Any]]) -> None:
    """The host's certificate is verified by the authority in the file, and the broker gets the client's."""
    publisher = run("TLS/SSL Configuration", certificates=directory)["publisher"]
    publisher.publish("secured", {"n": 1})
    wait_until(lambda: seen == [("secured", {"n": 1})])
    publisher.disconnect()


@covers("TLS/SSL Configuration")
def test_tls_configuration_without_the_files(tmp_path: Path) -> None:
    """A file that is not there is an error at once, which names it."""
    with pytest.raises(TLSError, match=r"ca\.pem"):
        run("TLS/SSL Configuration", certificates=tmp_path)


@covers("AWS IoT Core Integration")
def test_aws_iot_core_integration(elsewhere: None, directory: Path, seen: list[tuple[str, Any]]) -> None:
    """The device's certificate opens the connection; QoS 2 becomes 1 with a warning."""
    publisher = run("AWS IoT Core Integration", certificates=directory)["publisher"]
    publisher.publish("aws/device", {"n": 1})
    with pytest.warns(UnsupportedQoSWarning):
        assert publisher.publish("aws/device", {"n": 2}, qos=2).qos == 1
    wait_until(lambda: seen == [("aws/device", {"n": 1}), ("aws/device", {"n": 2})])
    publisher.disconnect()


@pytest.mark.parametrize("way", ["direct", "bridge"])
@covers("Connection Errors")
def test_connection_errors(
    way: str,
    request: pytest.FixtureRequest,
    mosquitto: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a broker answers the message is published; where none does it is an MQTTError, and is handled."""
    handled: list[Any] = []
    got: list[Any] = []
    url = mosquitto.url if way == "direct" else request.getfixturevalue("bridge_url")
    monkeypatch.setenv("TIDEGATE_URL", url)
    with Subscriber(mosquitto.url) as witness:
        witness.subscribe("test/topic", lambda _, payload: got.append(payload))
        run("Connection Errors", retry_connection=handled.append)["publisher"].disconnect()
        wait_until(lambda: got == [{"message": "Hello"}])
    assert (handled, capsys.readouterr().out) == ([], "")
    with ReservedPort() as nobody:
        monkeypatch.setenv("TIDEGATE_URL", f"{url.partition(':')[0]}://127.0.0.1:{nobody.number}")
        names = run("Connection Errors", retry_connection=handled.append)
        assert handled == [names["publisher"]]
        assert capsys.readouterr().out.startswith("MQTT Error: ")
        names["publisher"].disconnect()


@pytest.mark.parametrize("way", ["direct", "bridge"])
@covers("Connection Monitoring")
def test_connection_monitoring(
    way: str,
    request: pytest.FixtureRequest,
    mosquitto: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The overridden methods are called with each event, and print it."""
    monkeypatch.setenv(
        "TIDEGATE_URL", mosquitto.url if way == "direct" else request.getfixturevalue("bridge_url")
    )
    publisher: Publisher = run("Connection Monitoring")["publisher"]
    publisher.publish("monitored", 1)
    publisher.publish("monitored", 2)
    publisher.disconnect()
    printed = ""

    def has_printed() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed.count("\n") == 4

    wait_until(has_printed)
    assert printed.splitlines() == [
        "Connected with result code 0",
        "Message 1 published successfully",
        "Message 2 published successfully",
        "Disconnected with result code 0",
    ]
