"""The doctor: each step against a real broker or bridge, and what is said where one fails."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from app.commands.doctor import examine_bridge, examine_broker
from app.diagnosis.steps import Report, Step
from tests.support.bridge import running_bridge
from tests.support.certificates import Certificates
from tests.support.issued import issue
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tidegate.connection import ConnectOptions

TO_BROKER = ["URL", "DNS", "TCP", "CONNECT", "round trip"]


def names(report: Report) -> list[str]:
    """The steps that were taken."""
    return [step.name for step in report.steps]


def failure(report: Report) -> Step:
    """The one step that failed, which is the last."""
    assert not report.is_ok
    assert [False] == [step.is_ok for step in report.steps if not step.is_ok]
    last = report.steps[-1]
    assert not last.is_ok
    assert last.advice
    assert last.name in report.verdict
    return last


def to(broker: Mosquitto, **options: object) -> ConnectOptions:
    """How to reach a broker."""
    return replace(ConnectOptions(host=broker.host, port=broker.port), **options)  # type: ignore[arg-type]


def server_for(
    certificates: Certificates, directory: Path, name: str, *, not_after: datetime | None = None
) -> tuple[Certificates, trustme.CA]:
    """A server's certificate for one name, from an authority of its own."""
    authority = trustme.CA()
    issued = authority.issue_cert(name, not_after=not_after)
    made = replace(
        certificates,
        ca=directory / "ca.pem",
        server_certificate=directory / "server.pem",
        server_key=directory / "server.key",
    )
    authority.cert_pem.write_to_path(made.ca)
    issued.cert_chain_pems[0].write_to_path(made.server_certificate)
    issued.private_key_pem.write_to_path(made.server_key)
    return made, authority


@pytest.mark.parametrize(("version", "text"), [(None, "MQTT 5"), (4, "MQTT 3.1.1")])
async def test_all_is_well(mosquitto: Mosquitto, version: int | None, text: str) -> None:
    """Every step is taken and told, in order, with how long it took."""
    told: list[Step] = []
    report = await examine_broker(to(mosquitto, protocol_version=version), tell=told.append)
    assert TO_BROKER == names(report)
    assert report.steps == told
    assert report.is_ok, report.steps
    assert text in report.steps[3].detail
    assert "tidegate/doctor/" in report.steps[4].detail
    assert all(step.milliseconds >= 0 and not step.advice for step in report.steps)


async def test_nothing_listens() -> None:
    """A port without a broker is told from a broker that refuses."""
    with ReservedPort() as port:
        report = await examine_broker(ConnectOptions(host=LOOPBACK, port=port.number))
    step = failure(report)
    assert ("TCP", f"nothing listens at {LOOPBACK}, port {port.number}") == (step.name, step.detail)
    assert "Is the broker running" in step.advice


@pytest.mark.parametrize("name", ["no such host", "no..host", "x" * 64])
async def test_a_name_that_nobody_knows(name: str) -> None:
    """A slip in the name is told from a broker that is away."""
    report = await examine_broker(ConnectOptions(host=name, port=1883))
    step = failure(report)
    assert "DNS" == step.name
    assert f"{name!r} has no address" in step.detail


@pytest.mark.parametrize("version", [5, 4])
async def test_a_wrong_password(version: int) -> None:
    """The broker's reason is told, and which settings hold the password; the password is not."""
    with Mosquitto(passwords={"bridge": "right"}) as broker:
        options = to(broker, username="bridge", password="hunter2", protocol_version=version)
        report = await examine_broker(options)
        good = await examine_broker(replace(options, password="right"))
    step = failure(report)
    assert "CONNECT" == step.name
    assert "refused the connection" in step.detail
    assert "TIDEGATE_BROKER_PASSWORD" in step.advice
    assert "hunter2" not in repr(report.steps)
    assert good.is_ok, good.steps


async def test_tls(certificates: Certificates) -> None:
    """What was agreed on is shown: version, cipher, the broker's names, and the days left."""
    with Mosquitto(tls=certificates) as broker:
        report = await examine_broker(to(broker, tls=certificates.client_context()))
    assert ["URL", "DNS", "TCP", "TLS", "CONNECT", "round trip"] == names(report)
    assert report.is_ok, report.steps
    detail = report.steps[3].detail
    assert all(word in detail for word in ("TLSv1.3", "TLS_", "localhost", "127.0.0.1", "days left")), detail


async def test_an_unknown_authority(certificates: Certificates) -> None:
    """A certificate that nobody vouches for is told in words, with the setting that helps."""
    with Mosquitto(tls=certificates) as broker:
        report = await examine_broker(to(broker, tls=ssl.create_default_context()))
    step = failure(report)
    assert "TLS" == step.name
    assert "unknown authority" in step.detail
    assert "TIDEGATE_BROKER_CA_FILE" in step.advice


async def test_a_name_mismatch(certificates: Certificates, tmp_path: Path) -> None:
    """The names that the certificate does have are shown."""
    tls, _ = server_for(certificates, tmp_path, "broker.example")
    with Mosquitto(tls=tls) as broker:
        context = tls.client_context()
        report = await examine_broker(to(broker, tls=context))
    step = failure(report)
    assert "TLS" == step.name
    assert "name mismatch: the certificate is for broker.example, and not for 127.0.0.1" in step.detail
    assert context.check_hostname


async def test_an_expired_certificate(certificates: Certificates, tmp_path: Path) -> None:
    """What is past its date is told from what was never right."""
    tls, _ = server_for(certificates, tmp_path, LOOPBACK, not_after=datetime.now(UTC) - timedelta(days=1))
    with Mosquitto(tls=tls) as broker:
        report = await examine_broker(to(broker, tls=tls.client_context()))
    step = failure(report)
    assert ("TLS", "expired") == (step.name, step.detail.partition(":")[0])


async def test_a_certificate_that_ends_soon(certificates: Certificates, tmp_path: Path) -> None:
    """All is well, and yet there is something to do."""
    ends = datetime.now(UTC) + timedelta(days=3, hours=1)
    tls, _ = server_for(certificates, tmp_path, LOOPBACK, not_after=ends)
    with Mosquitto(tls=tls) as broker:
        report = await examine_broker(to(broker, tls=tls.client_context()))
    assert report.is_ok, report.steps
    assert "expires in 3 days" in report.steps[3].advice


async def test_a_certificate_that_cannot_be_described(certificates: Certificates, tmp_path: Path) -> None:
    """OpenSSL takes a name that is no ASCII; the step tells so, and is well."""
    odd = x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x09\x87\x04\x7f\x00\x00\x01\x82\x01\xff"
    )
    authority = issue("authority", is_authority=True)
    server = issue("broker", authority, extension=odd)
    tls = replace(
        certificates, ca=tmp_path / "ca", server_certificate=tmp_path / "cert", server_key=tmp_path / "key"
    )
    tls.ca.write_bytes(authority.pem)
    tls.server_certificate.write_bytes(server.pem)
    tls.server_key.write_bytes(server.key())
    with Mosquitto(tls=tls) as broker:
        report = await examine_broker(to(broker, tls=tls.client_context()))
    assert report.is_ok, report.steps
    assert "with a certificate that does not follow RFC 5280" in report.steps[3].detail


async def test_a_client_certificate_is_wanted(certificates: Certificates) -> None:
    """With TLS 1.3 the refusal comes after the handshake; the advice names the settings."""
    with Mosquitto(tls=certificates, require_certificate=True) as broker:
        report = await examine_broker(to(broker, tls=certificates.client_context()))
        good = await examine_broker(to(broker, tls=certificates.client_context(with_certificate=True)))
    assert "TIDEGATE_BROKER_CERTIFICATE_FILE" in failure(report).advice
    assert good.is_ok, good.steps


async def test_tls_to_a_port_without(mosquitto: Mosquitto, certificates: Certificates) -> None:
    """mqtts:// at a plain port says so."""
    report = await examine_broker(to(mosquitto, tls=certificates.client_context()))
    assert "TLS" == failure(report).name


async def test_plain_mqtt_to_a_port_with_tls(certificates: Certificates) -> None:
    """mqtt:// at a port with TLS says which URL to write."""
    with Mosquitto(tls=certificates) as broker:
        report = await examine_broker(to(broker))
    step = failure(report)
    assert "CONNECT" == step.name
    assert "mqtts://" in step.advice


async def test_a_subscription_that_is_refused() -> None:
    """The broker's rules are told apart from its absence."""
    with Mosquitto(denied="tidegate/#") as broker:
        report = await examine_broker(to(broker))
    step = failure(report)
    assert "round trip" == step.name
    assert "the subscription to tidegate/doctor/" in step.detail
    assert "(0x87)" in step.detail


async def test_a_publish_that_is_refused() -> None:
    """A refused publish is told with the broker's reason, on MQTT 5."""
    with Mosquitto(acl="topic read #\n") as broker:
        report = await examine_broker(to(broker))
    step = failure(report)
    assert "round trip" == step.name
    assert "the publish to tidegate/doctor/" in step.detail


async def test_a_broker_that_takes_and_does_not_deliver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rules keep messages from readers without a word; the silence is bounded and explained."""
    monkeypatch.setattr("app.diagnosis.steps.STEP_SECONDS", 1.0)
    with Mosquitto(acl="topic write #\n") as broker:
        report = await examine_broker(to(broker))
    step = failure(report)
    assert "delivered nothing" in step.detail
    assert "who may read tidegate/doctor/#" in step.advice


async def test_a_port_that_accepts_and_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step takes longer than its time, whatever is at the other end."""
    monkeypatch.setattr("app.diagnosis.steps.STEP_SECONDS", 0.5)
    with socket.create_server((LOOPBACK, 0)) as silent:
        report = await examine_broker(ConnectOptions(host=LOOPBACK, port=silent.getsockname()[1]))
    step = failure(report)
    assert ("CONNECT", "no answer within 0.5 s") == (step.name, step.detail)


async def test_a_bridge(mosquitto: Mosquitto) -> None:
    """A bridge's URL checks whether it lives and whether its broker answers."""
    with running_bridge(mosquitto.url) as bridge:
        report = await examine_bridge(bridge.url)
    assert ["URL", "DNS", "TCP", "/livez", "/readyz"] == names(report)
    assert report.is_ok, report.steps


async def test_no_bridge_listens() -> None:
    """The advice is about a bridge and its port, and about no broker."""
    with ReservedPort() as port:
        step = failure(await examine_bridge(f"http://{LOOPBACK}:{port.number}"))
    assert ("TCP", f"nothing listens at {LOOPBACK}, port {port.number}") == (step.name, step.detail)
    assert step.advice.startswith("Is the bridge running, and is the port right? Usual is 8080;")


async def test_a_bridge_without_a_broker() -> None:
    """The bridge lives; that its broker is away is the broker's matter."""
    with ReservedPort() as port:
        broker_url = f"mqtt://{LOOPBACK}:{port.number}"
        with running_bridge(broker_url, wait_until_ready=False) as bridge:
            report = await examine_bridge(bridge.url)
    step = failure(report)
    assert "/readyz" == step.name
    assert "503" in step.detail
    assert "cannot use its broker" in step.advice


async def test_a_broker_s_port_is_no_bridge(mosquitto: Mosquitto) -> None:
    """An http URL to something that speaks no HTTP says so."""
    report = await examine_bridge(f"http://{mosquitto.host}:{mosquitto.port}")
    assert "/livez" == failure(report).name


@pytest.mark.parametrize("url", ["http://", "http://user:hunter2@127.0.0.1", "http://127.0.0.1:none"])
async def test_a_bridge_s_url_that_cannot_be_read(url: str) -> None:
    """The first step says what is wrong, and shows no password."""
    step = failure(await examine_bridge(url))
    assert "URL" == step.name
    assert "hunter2" not in step.detail


class _Alive(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"status": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def https_server(certificates: Certificates) -> Iterator[str]:
    """Something with TLS that answers every path with 200, as a proxy before a bridge does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    with HTTPServer((LOOPBACK, 0), _Alive) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://{LOOPBACK}:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_bridge_behind_tls(https_server: str, certificates: Certificates) -> None:
    """An https URL is checked with the authority that was named."""
    report = await examine_bridge(https_server, ca_file=certificates.ca)
    assert ["URL", "DNS", "TCP", "TLS", "/livez", "/readyz"] == names(report)
    assert report.is_ok, report.steps
    assert "unknown authority" in failure(await examine_bridge(https_server)).detail


async def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    """The file at fault is named before anything is tried."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    step = failure(await examine_bridge(f"https://{LOOPBACK}:1", ca_file=wrong))
    assert "URL" == step.name
    assert "wrong.pem holds no certificate authority" in step.detail
    assert "--ca-file" in step.advice
