"""A credential is tried at a broker: each way in which that fails is provoked, and told in words."""

from __future__ import annotations

import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from app.diagnosis.credential import examine_credential
from app.diagnosis.steps import Report, Step
from tests.support.issued import NOW, Issued, issue
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tests.support.tls_brokers import HERE, Plant, make_plant, strict_broker
from tidegate.bundles import Bundle, bundle_of_parts
from tidegate.connection import ConnectOptions

STEPS = ["credential", "DNS", "TCP", "TLS", "CONNECT"]
OLD: Any = {"starts": NOW - timedelta(days=9), "ends": NOW - timedelta(days=2)}
FUTURE: Any = {"starts": NOW + timedelta(days=2), "ends": NOW + timedelta(days=9)}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    """An authority and its broker's certificate."""
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def broker(plant: Plant) -> Iterator[Mosquitto]:
    """A broker that wants client certificates."""
    with strict_broker(plant) as running:
        yield running


def bundle(plant: Plant, device: Issued | None = None, *, ca: Issued | None = None) -> Bundle:
    """A credential."""
    return bundle_of_parts(**plant.parts(device, ca=ca), validity="warn")


async def examine(
    found: Bundle,
    port: int,
    host: str = LOOPBACK,
    *,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    **options: object,
) -> Report:
    """Try a credential at a port of this machine."""
    context = found.context()
    context.maximum_version = newest
    to = ConnectOptions(host, port, tls=context, **options)  # type: ignore[arg-type]
    return await examine_credential(found, to)


def failure(report: Report, name: str) -> Step:
    """The last step, which failed, and has advice."""
    step = report.steps[-1]
    assert (False, name) == (step.is_ok, step.name), report.steps
    assert all(each.is_ok for each in report.steps[:-1])
    assert step.advice
    assert f"Failed at: {name}." == report.verdict
    return step


async def test_all_is_well(plant: Plant, broker: Mosquitto) -> None:
    """Each step is timed; TLS tells its version, its cipher, and the broker's chain and names."""
    report = await examine(bundle(plant, plant.device()), broker.port, "localhost")
    assert (STEPS, True) == ([each.name for each in report.steps], report.is_ok), report.steps
    assert all(each.milliseconds >= 0 for each in report.steps)
    assert "CN=device-1, 89 days left; trusts CN=Plant Root" == report.steps[0].detail
    shown = report.steps[3].handshake
    assert shown is not None
    assert ("TLSv1.3", None) == (shown.version, shown.alpn)
    assert ["CN=broker", "CN=Plant Root"] == [each.subject for each in shown.chain]
    assert ("localhost", "127.0.0.1") == shown.chain[0].names


async def test_a_name_that_nobody_knows(plant: Plant) -> None:
    """DNS."""
    step = failure(await examine(bundle(plant), 8883, "no..host"), "DNS")
    assert "has no address" in step.detail


async def test_nothing_listens(plant: Plant) -> None:
    """TCP."""
    with ReservedPort() as port:
        step = failure(await examine(bundle(plant), port.number), "TCP")
    assert "nothing listens" in step.detail


async def test_an_unknown_authority(plant: Plant, tmp_path: Path) -> None:
    """The broker's certificate was signed by an authority that the credential does not trust."""
    root = issue("Hidden Root", is_authority=True)
    server = issue("broker", root, names=HERE)
    plant.files.server_certificate.read_bytes()
    files = replace(plant.files, server_certificate=tmp_path / "cert", server_key=tmp_path / "key")
    files.server_certificate.write_bytes(server.pem)
    files.server_key.write_bytes(server.key())
    with Mosquitto(tls=files) as strange:
        step = failure(await examine(bundle(plant), strange.port), "TLS")
    assert "unknown authority: the certificate of 127.0.0.1 is not vouched for" in step.detail
    assert "the credential's ca" in step.advice


async def test_a_self_signed_root_in_the_chain(plant: Plant, broker: Mosquitto) -> None:
    """The broker shows a root along with its certificate, and it is none that the credential trusts."""
    other = issue("Other Root", is_authority=True)
    step = failure(await examine(bundle(plant, ca=other), broker.port), "TLS")
    assert "self-signed certificate in the chain" in step.detail


async def test_a_self_signed_certificate(plant: Plant, tmp_path: Path) -> None:
    """The broker's certificate vouches for itself."""
    alone = issue("broker", names=HERE)
    files = replace(plant.files, server_certificate=tmp_path / "cert", server_key=tmp_path / "key")
    files.server_certificate.write_bytes(alone.pem)
    files.server_key.write_bytes(alone.key())
    with Mosquitto(tls=files) as strange:
        step = failure(await examine(bundle(plant), strange.port), "TLS")
    assert "self-signed: the certificate of 127.0.0.1 vouches for itself" in step.detail


async def test_a_name_mismatch(tmp_path: Path) -> None:
    """The names that the broker's certificate has are told."""
    elsewhere = make_plant(tmp_path, names=(x509.DNSName("broker.example"),))
    with Mosquitto(tls=elsewhere.files) as strange:
        step = failure(await examine(bundle(elsewhere), strange.port), "TLS")
    assert "name mismatch: the certificate is for broker.example, and not for 127.0.0.1" == step.detail


@pytest.mark.parametrize(("dates", "words"), [(OLD, "expired: "), (FUTURE, "not yet valid: ")])
async def test_the_broker_s_certificate_is_out_of_its_dates(tmp_path: Path, dates: Any, words: str) -> None:
    """Expired, or not valid yet: theirs."""
    stale = make_plant(tmp_path, **dates)
    with Mosquitto(tls=stale.files) as strange:
        step = failure(await examine(bundle(stale), strange.port), "TLS")
    assert step.detail.startswith(words)


BOTH_VERSIONS = pytest.mark.parametrize(
    ("version", "step_name"), [(ssl.TLSVersion.TLSv1_2, "TLS"), (ssl.TLSVersion.TLSv1_3, "CONNECT")]
)
"""With TLS 1.3 the refusal comes after the handshake."""


@BOTH_VERSIONS
async def test_a_client_certificate_is_missing(
    plant: Plant, broker: Mosquitto, version: ssl.TLSVersion, step_name: str
) -> None:
    """The broker wants one."""
    step = failure(await examine(bundle(plant), broker.port, newest=version), step_name)
    assert "wants" in step.detail
    assert "client certificate" in step.detail


@BOTH_VERSIONS
async def test_a_client_certificate_of_another_authority(
    plant: Plant, broker: Mosquitto, version: ssl.TLSVersion, step_name: str
) -> None:
    """The broker does not know who signed it."""
    stranger = issue("stranger", issue("Other Root", is_authority=True))
    step = failure(await examine(bundle(plant, stranger), broker.port, newest=version), step_name)
    assert "client certificate refused: the broker does not know the authority that signed it" == step.detail


@BOTH_VERSIONS
async def test_a_client_certificate_that_expired(
    plant: Plant, broker: Mosquitto, version: ssl.TLSVersion, step_name: str
) -> None:
    """Ours: told by the first step, which the broker may not mind, and by the broker."""
    report = await examine(bundle(plant, plant.device(**OLD)), broker.port, newest=version)
    step = failure(report, step_name)
    assert "client certificate refused: it has expired" in step.detail
    assert "has expired" in report.steps[0].advice


async def test_not_authorised(plant: Plant) -> None:
    """The broker's reason is told."""
    with strict_broker(plant, passwords={"somebody": "secret"}) as strict:
        step = failure(await examine(bundle(plant, plant.device()), strict.port), "CONNECT")
    assert "Not authorized" in step.detail
    assert "TIDEGATE_BROKER_USERNAME" in step.advice


async def test_a_port_without_tls(plant: Plant, mosquitto: Mosquitto) -> None:
    """Plain MQTT."""
    step = failure(await examine(bundle(plant), mosquitto.port), "TLS")
    assert f"port {mosquitto.port} does not speak TLS" == step.detail


class _Silent(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error here."""


@contextmanager
def tls_server(plant: Plant, *, alpn: str = "", newest: ssl.TLSVersion | None = None) -> Iterator[int]:
    """Something with TLS that is no broker; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(plant.files.server_certificate, plant.files.server_key)
    if alpn:
        context.set_alpn_protocols([alpn])
    if newest is not None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = newest
    with _Server((LOOPBACK, 0), _Silent) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


async def test_a_port_without_mqtt(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS, and something else within it."""
    monkeypatch.setattr("app.diagnosis.handshake.ALERT_SECONDS", 0.2)
    monkeypatch.setattr("app.diagnosis.steps.STEP_SECONDS", 5.0)
    with tls_server(plant) as port:
        step = failure(await examine(bundle(plant), port), "CONNECT")
    assert step.detail.startswith(f"not MQTT: port {port} answers with b'")


async def test_an_old_version_of_tls(plant: Plant) -> None:
    """TLS 1.1 is not spoken, whatever the broker has."""
    with tls_server(plant, newest=ssl.TLSVersion.TLSv1_1) as port:
        step = failure(await examine(bundle(plant, plant.device()), port), "TLS")
    assert "the broker speaks no TLS 1.2" == step.detail


async def test_the_context_of_a_credential(plant: Plant) -> None:
    """TLS 1.2 or newer, the host name checked; without an authority of its own the system's count."""
    for found in (bundle(plant), bundle(plant, plant.device()), bundle_of_parts()):
        context = found.context()
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert context.check_hostname
        assert ssl.CERT_REQUIRED is context.verify_mode
    assert bundle_of_parts().context().cert_store_stats() == ssl.create_default_context().cert_store_stats()


async def test_the_protocol_that_aws_iot_wants(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """On port 443 AWS IoT tells MQTT from HTTPS by ALPN."""
    monkeypatch.setattr("app.diagnosis.steps.STEP_SECONDS", 2.0)
    with tls_server(plant, alpn="x-amzn-mqtt-ca") as port:
        monkeypatch.setattr("tidegate.profiles.ALPN_PORT", port)
        report = await examine(bundle(plant), port, profile="aws-iot")
    shown = report.steps[3].handshake
    assert shown is not None
    assert "x-amzn-mqtt-ca" == shown.alpn
    assert "ALPN x-amzn-mqtt-ca" in report.steps[3].detail


async def test_an_address_that_may_not_be_reached(plant: Plant, broker: Mosquitto) -> None:
    """Whoever decides over addresses is asked before anything is connected to."""
    found = bundle(plant, plant.device())
    asked: list[str] = []

    def refuse(address: str) -> bool:
        asked.append(address)
        return False

    options = ConnectOptions("localhost", broker.port, tls=found.context())
    report = await examine_credential(found, options, may_reach=refuse)
    step = failure(report, "DNS")
    assert "localhost leads to an address that is not to be tested" == step.detail
    assert LOOPBACK in asked
    report = await examine_credential(found, options, may_reach=lambda address: address == LOOPBACK)
    assert report.is_ok, report.steps


async def test_a_name_is_looked_up_once(
    plant: Plant, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is connected to, though the name leads elsewhere a moment later."""
    import socket  # noqa: PLC0415 - patched here

    real = socket.getaddrinfo
    asked: list[object] = []

    def once(host: object, *rest: object, **more: object) -> object:
        if host == "localhost":
            asked.append(host)
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", once)
    found = bundle(plant, plant.device())
    options = ConnectOptions("localhost", broker.port, tls=found.context())
    report = await examine_credential(found, options, may_reach=lambda address: address == LOOPBACK)
    assert report.is_ok, report.steps
    assert ["localhost"] == asked
