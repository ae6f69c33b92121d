from __future__ import annotations

import json
import logging
import re
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from tests.support.certificates import Certificates, make_certificates
from tests.support.mosquitto import Mosquitto
from tidegate import ConfigurationError, MQTTConnectionError, Publisher, TLSError, configure
from tidegate.bundles import load_bundle
from tidegate.tls import make_context

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an authority that no broker here knows."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def encrypted_key(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's key under a password."""
    return encrypt(certificates.client_key, tmp_path_factory.mktemp("encrypted") / "client.key")


@pytest.fixture(scope="module")
def tls_broker(certificates: Certificates) -> Iterator[Mosquitto]:
    """A broker that wants a client certificate."""
    with Mosquitto(tls=certificates, require_certificate=True) as broker:
        yield broker


def encrypt(key: Path, to: Path) -> Path:
    """Write a copy of a key that is under ``PASSWORD``."""
    loaded = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(PASSWORD.encode())
    to.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return to


@pytest.mark.parametrize("tls", [None, False])
def test_nothing_asked_for_is_no_context(tls: bool | None) -> None:
    """Without TLS there is no context."""
    assert make_context(tls) is None


def test_a_context_of_the_callers_is_taken_as_it_is() -> None:
    """Whoever brings a context decides everything in it."""
    context = ssl.create_default_context()
    assert make_context(context) is context


@pytest.mark.parametrize(
    "tls",
    [
        True,
        {},
        {"cert_reqs": ssl.CERT_REQUIRED},
        {"cert_reqs": ssl.CERT_OPTIONAL},
        {"tls_version": ssl.PROTOCOL_TLS_CLIENT},
        {"tls_version": None, "ca_certs": None, "ciphers": None},
    ],
    ids=repr,
)
def test_a_context_made_here_verifies(tls: bool | dict[str, Any]) -> None:
    """The authority and the host name are checked in every context made from options."""
    context = make_context(tls)
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("version", "lowest", "highest"),
    [
        (ssl.PROTOCOL_TLSv1_2, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
        (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
        (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.MAXIMUM_SUPPORTED),
    ],
)
def test_a_version_that_is_asked_for_is_held(version: Any, lowest: Any, highest: Any) -> None:
    """A version is an instruction and not a wish."""
    context = make_context({"tls_version": version})
    assert context is not None
    assert (context.minimum_version, context.maximum_version) == (lowest, highest)


def test_the_files_of_a_mapping_reach_the_broker(tls_broker: Mosquitto, certificates: Certificates) -> None:
    """Authority, certificate and key by path make a connection that the broker trusts, and is trusted on."""
    for path in (str, Path):
        tls = {
            "ca_certs": path(certificates.ca),
            "certfile": path(certificates.client_certificate),
            "keyfile": path(certificates.client_key),
        }
        with Publisher(host="localhost", port=tls_broker.port, tls=tls) as publisher:
            assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)
        with Publisher(tls_broker.url, tls=tls) as publisher:
            assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)


def test_an_encrypted_key_opens_with_its_password(
    tls_broker: Mosquitto, certificates: Certificates, encrypted_key: Path
) -> None:
    """The key is used, and the broker sees its certificate."""
    tls = {
        "ca_certs": certificates.ca,
        "certfile": certificates.client_certificate,
        "keyfile": encrypted_key,
        "keyfile_password": PASSWORD,
    }
    with Publisher(tls_broker.url, tls=tls) as publisher:
        assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)


def test_a_broker_of_another_authority_is_refused(tls_broker: Mosquitto, strangers: Certificates) -> None:
    """The handshake fails with an error that says so, and nothing is sent."""
    with (
        pytest.raises(TLSError) as caught,
        Publisher(tls_broker.url, tls={"ca_certs": strangers.ca}),
    ):
        pytest.fail("it connected")
    assert not caught.value.retryable


def test_a_client_that_the_broker_does_not_know_is_refused(
    tls_broker: Mosquitto, certificates: Certificates, strangers: Certificates
) -> None:
    """A missing or foreign client certificate ends in an error from the tree."""
    foreign = {"certfile": strangers.client_certificate, "keyfile": strangers.client_key}
    for tls in ({"ca_certs": certificates.ca}, {"ca_certs": certificates.ca, **foreign}):
        with pytest.raises(MQTTConnectionError), Publisher(tls_broker.url, tls=tls):
            pytest.fail("it connected")


def test_a_file_that_is_not_there_is_named(certificates: Certificates, tmp_path: Path) -> None:
    """The error has the path and what the file is for."""
    gone = tmp_path / "gone.pem"
    for tls, words in (
        ({"ca_certs": gone}, "certificate authorities"),
        ({"certfile": gone}, "client certificate"),
        ({"certfile": certificates.client_certificate, "keyfile": gone}, "client key"),
        ({"ca_certs": tmp_path}, "certificate authorities"),
    ):
        with pytest.raises(TLSError, match=words) as caught:
            make_context(tls)
        assert caught.value.file in (str(gone), str(tmp_path))
        assert str(caught.value.file) in str(caught.value)


def test_a_file_that_holds_something_else_is_named(certificates: Certificates, tmp_path: Path) -> None:
    """Text, a certificate in place of a key, and a key in place of a certificate are told with the file."""
    text = tmp_path / "text.pem"
    text.write_text("not a certificate")
    pair = {"certfile": certificates.client_certificate}
    for tls, file in (
        ({"ca_certs": text}, text),
        ({"ca_certs": certificates.client_key}, certificates.client_key),
        ({"certfile": text, "keyfile": certificates.client_key}, text),
        ({**pair, "keyfile": text}, text),
        (pair, certificates.client_certificate),
    ):
        with pytest.raises(TLSError) as caught:
            make_context(tls)
        assert caught.value.file == str(file)
        assert str(file) in str(caught.value)


def test_a_key_of_another_certificate_is_told_apart_from_a_wrong_password(
    certificates: Certificates, strangers: Certificates, encrypted_key: Path, tmp_path: Path
) -> None:
    """The text says which of the two is wrong, for an encrypted key too."""
    pair = {"certfile": certificates.client_certificate}
    with pytest.raises(TLSError, match="does not belong"):
        make_context({**pair, "keyfile": strangers.client_key})
    foreign = encrypt(strangers.client_key, tmp_path / "foreign.key")
    with pytest.raises(TLSError, match="does not belong"):
        make_context({**pair, "keyfile": foreign, "keyfile_password": PASSWORD})
    with pytest.raises(TLSError, match="does not open") as caught:
        make_context({**pair, "keyfile": encrypted_key, "keyfile_password": "wrong"})
    assert "wrong" not in str(caught.value)


def test_a_key_of_another_kind_does_not_belong(certificates: Certificates, tmp_path: Path) -> None:
    """An RSA key beside an EC certificate is no question of its password."""
    plain = tmp_path / "rsa.key"
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    encrypted = encrypt(plain, tmp_path / "encrypted.key")
    for key, password in ((plain, None), (encrypted, PASSWORD)):
        pair = {"certfile": certificates.client_certificate, "keyfile": key, "keyfile_password": password}
        with pytest.raises(TLSError, match="does not belong") as caught:
            make_context(pair)
        assert caught.value.file == str(key)


def test_a_server_certificate_is_enough_where_the_broker_asks_for_no_other(
    certificates: Certificates,
) -> None:
    """The authority alone makes a connection, by name and by address."""
    with Mosquitto(tls=certificates) as broker:
        for host in ("localhost", "127.0.0.1"):
            tls = {"ca_certs": certificates.ca}
            with Publisher(host=host, port=broker.port, tls=tls) as publisher:
                assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)


def test_verification_that_is_turned_off_is_loud(
    tls_broker: Mosquitto,
    certificates: Certificates,
    strangers: Certificates,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``ssl.CERT_NONE`` does what it says, for any authority, and the log says what that means."""
    tls = {
        "ca_certs": strangers.ca,
        "certfile": certificates.client_certificate,
        "keyfile": certificates.client_key,
        "cert_reqs": ssl.CERT_NONE,
    }
    with Publisher(tls_broker.url, tls=tls) as publisher:
        assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)
    assert [logging.WARNING] == [
        each.levelno for each in caplog.records if "VERIFICATION IS OFF" in each.message
    ]


@pytest.fixture(params=["directory", "zip", "pem", "pkcs12"])
def bundle_path(request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path) -> Path:
    """The client's authority, certificate and key in one of the forms that they come in."""
    files = (certificates.ca, certificates.client_certificate, certificates.client_key)
    path = tmp_path / "bundle"
    if request.param == "directory":
        path.mkdir()
        for number, file in enumerate(files):
            (path / str(number)).write_bytes(file.read_bytes())
    elif request.param == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number, file in enumerate(files):
                archive.write(file, f"kit/{number}")
    elif request.param == "pem":
        path.write_bytes(b"".join(file.read_bytes() for file in files))
    else:
        ca, certificate = (x509.load_pem_x509_certificate(file.read_bytes()) for file in files[:2])
        key: Any = load_pem_private_key(files[2].read_bytes(), None)
        encryption = BestAvailableEncryption(PASSWORD.encode())
        path.write_bytes(pkcs12.serialize_key_and_certificates(b"device", key, certificate, [ca], encryption))
    return path


def test_a_bundle_reaches_the_broker(
    tls_broker: Mosquitto, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a path or a ``Bundle``, by argument, ``configure`` or environment: the broker takes it."""
    monkeypatch.setenv("TIDEGATE_TLS_PASSPHRASE", PASSWORD)
    for tls in (bundle_path, str(bundle_path), load_bundle(bundle_path, passphrase=PASSWORD)):
        with Publisher(tls_broker.url, tls=tls) as publisher:
            assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)
    configure(tls_broker.url, tls=bundle_path)
    with Publisher() as publisher:
        assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)
    configure(tls_broker.url)
    monkeypatch.setenv("TIDEGATE_TLS", str(bundle_path))
    with Publisher() as publisher:
        assert publisher.publish("tls", 1).reason_code in (0x00, 0x10)


def test_the_setting_of_the_passphrase_is_named(encrypted_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives a path alone learns where the passphrase goes, and which one was wrong."""
    with pytest.raises(TLSError, match="is encrypted; give its TIDEGATE_TLS_PASSPHRASE"):
        make_context(encrypted_key)
    monkeypatch.setenv("TIDEGATE_TLS_PASSPHRASE", "wrong")
    with pytest.raises(TLSError, match="the TIDEGATE_TLS_PASSPHRASE does not open the key"):
        make_context(encrypted_key)


def test_pem_in_place_of_a_path_is_taken_and_never_shown(certificates: Certificates) -> None:
    """A key that is passed by its text, cut off or whole, does not end up in an error as a file name."""
    pair = certificates.client_certificate.read_text() + certificates.client_key.read_text()
    assert make_context(pair) is not None
    assert make_context(json.dumps({"ca": certificates.ca.read_text()})) is not None
    body = "".join(certificates.client_key.read_text().splitlines()[1:-1])
    for text in (certificates.client_key.read_text()[:-30], f"{body}\n{body}", body * 50, "", "{nothing"):
        with pytest.raises(TLSError) as caught:
            make_context(text)
        assert body[:20] not in str(caught.value)


@pytest.mark.parametrize("tls", [True, {}, "a bundle"], ids=repr)
def test_protocols_are_offered(certificates: Certificates, tls: Any) -> None:
    """A broker that tells MQTT by ALPN, as AWS IoT does on port 443, is offered the name."""
    given = certificates.ca if tls == "a bundle" else tls
    context = make_context(given, alpn=["x-amzn-mqtt-ca"])
    assert context is not None
    assert offered_protocols(context) == [b"x-amzn-mqtt-ca"]


def offered_protocols(context: ssl.SSLContext) -> list[bytes]:
    """The names in the ALPN extension (RFC 7301) of a client's first message."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="broker.example").do_handshake()
    hello = outgoing.read()
    return re.findall(rb"x-amzn-mqtt-ca", hello)


@pytest.mark.parametrize("password", [None, "", b""])
def test_an_encrypted_key_without_password_is_an_error(
    certificates: Certificates, encrypted_key: Path, password: str | None
) -> None:
    """It says what is missing."""
    with pytest.raises(TLSError, match="is encrypted; give its keyfile_password"):
        make_context(
            {
                "certfile": certificates.client_certificate,
                "keyfile": encrypted_key,
                "keyfile_password": password,
            }
        )


def test_an_encrypted_key_never_asks_at_a_terminal(certificates: Certificates, encrypted_key: Path) -> None:
    """OpenSSL would ask at the terminal; a program at one ends with the error all the same."""
    program = (
        "import os, pty, sys\n"
        "pid, terminal = pty.fork()\n"
        "if pid == 0:\n"
        "    from tidegate import TLSError\n"
        "    from tidegate.tls import make_context\n"
        "    try:\n"
        "        make_context({'certfile': sys.argv[1], 'keyfile': sys.argv[2]})\n"
        "    except TLSError:\n"
        "        os._exit(7)\n"
        "    os._exit(1)\n"
        "output = b''\n"
        "try:\n"
        "    while part := os.read(terminal, 1000):\n"
        "        output += part\n"
        "except OSError:\n"
        "    pass\n"
        "assert output == b'', output\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    command = [sys.executable, "-c", program, str(certificates.client_certificate), str(encrypted_key)]
    outcome = subprocess.run(command, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert outcome.returncode == 7


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"ca_cert": "x"}, "ca_certs"),
        ({"insecure": True}, "'insecure'"),
        ({"cert_reqs": "none"}, "CERT_REQUIRED"),
        ({"ca_certs": ""}, "ca_certs"),
        ({"certfile": 7}, "certfile"),
        (7, "int"),
        (b"x", "bytes"),
        ({"keyfile": "x"}, "certfile"),
        ({"ciphers": "NO-SUCH-CIPHER"}, "ciphers"),
        ({"tls_version": ssl.TLSVersion.SSLv3}, "tls_version"),
        ({"tls_version": "1.2"}, "tls_version"),
    ],
    ids=repr,
)
def test_an_option_that_is_unknown_or_of_no_use_is_refused(tls: Any, words: str) -> None:
    """Nothing is ignored."""
    with pytest.raises(ConfigurationError, match=words):
        make_context(tls)
