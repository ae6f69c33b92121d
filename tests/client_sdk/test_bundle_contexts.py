from __future__ import annotations

import json
import os
import ssl
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.bundles import (
    DEVICE,
    DIRECT,
    INTERMEDIATE,
    OTHER_ROOT,
    ROOT,
    SERVER,
    shake_hands,
    subjects,
)
from tests.support.issued import NOW, issue, rsa_key
from tidegate import TLSError
from tidegate.bundles import bundle_of_parts, read_bundle, restore_bundle


def test_a_context_verifies_and_shows_the_chain() -> None:
    """TLS 1.2 or newer, the name checked, the authorities of the bundle alone, the chain sent along."""
    bundle = read_bundle(DEVICE.key() + ROOT.pem + DEVICE.pem + INTERMEDIATE.pem)
    context = bundle.context()
    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert 1 == context.cert_store_stats()["x509"]
    seen = shake_hands(context, SERVER, INTERMEDIATE, trusts=ROOT)
    assert ((("commonName", "device-7"),),) == seen["subject"]
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        shake_hands(read_bundle(OTHER_ROOT.pem).context(), SERVER, INTERMEDIATE)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(context, issue("x", ROOT, names=(x509.DNSName("other.example"),)))


def test_authorities_are_taken_alike_by_every_python() -> None:
    """Newer ones ask for more by default, and an authority made with OpenSSL's defaults has no key usage."""
    flags = read_bundle(ROOT.pem).context().verify_flags
    assert (ssl.VERIFY_X509_PARTIAL_CHAIN, 0) == (
        flags & ssl.VERIFY_X509_PARTIAL_CHAIN,
        flags & ssl.VERIFY_X509_STRICT,
    )


def test_without_authorities_those_of_the_system_count() -> None:
    """A client's certificate alone changes nothing about whom it trusts."""
    context = read_bundle(DIRECT.pem + DIRECT.key()).context()
    assert ssl.create_default_context().cert_store_stats() == context.cert_store_stats()


@pytest.mark.parametrize("key", [rsa_key(2048), ec.generate_private_key(ec.SECP384R1())], ids=["RSA", "EC"])
def test_the_key_is_handed_over_in_memory(key: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Linux lets it: no directory for temporary files is needed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is none"))
    device = issue("device", ROOT, key=key)
    context = read_bundle(device.pem + device.key() + ROOT.pem).context()
    monkeypatch.undo()
    assert shake_hands(context, SERVER, INTERMEDIATE, trusts=ROOT) is not None


def refuse_memory(*_: object) -> int:
    """What ``os.memfd_create`` does under a strict seccomp profile."""
    raise PermissionError("not permitted")


@pytest.mark.parametrize("is_there", [True, False], ids=["forbidden", "missing"])
def test_the_key_is_handed_over_encrypted_where_it_must_be_a_file(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its owner can read the file, what is in it is of no use to anybody, and it is gone at once."""
    seen: list[tuple[int, bytes]] = []
    load = ssl.SSLContext.load_cert_chain

    def look(context: ssl.SSLContext, path: str, **options: Any) -> None:
        seen.append((Path(path).stat().st_mode & 0o777, Path(path).read_bytes()))
        load(context, path, **options)

    if is_there:
        monkeypatch.setattr(os, "memfd_create", refuse_memory)
    else:
        monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look)
    context = read_bundle(DIRECT.pem + DIRECT.key() + ROOT.pem).context()
    monkeypatch.undo()
    ((mode, content),) = seen
    assert 0o600 == mode
    assert content.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert [] == list(tmp_path.iterdir())
    assert shake_hands(context, SERVER, INTERMEDIATE, trusts=ROOT) is not None


def test_no_place_for_a_temporary_file_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system with neither memory files nor a directory to write to."""
    monkeypatch.setattr(os, "memfd_create", refuse_memory)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(TLSError, match="name one with TMPDIR"):
        read_bundle(DIRECT.pem + DIRECT.key()).context()


def test_a_pair_that_openssl_does_not_take_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stricter policy of the system, for example; here it is handed the wrong passphrase."""
    load = ssl.SSLContext.load_cert_chain

    def spoil(context: ssl.SSLContext, path: str, **_: Any) -> None:
        load(context, path, password="wrong")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spoil)
    with pytest.raises(TLSError, match="OpenSSL does not take the certificate in kit with its key") as caught:
        read_bundle(DIRECT.pem + DIRECT.key(), name="kit").context()
    assert "kit" == caught.value.file


def test_a_bundle_that_is_written_down_reads_back_as_it_was() -> None:
    """For whoever stores it, encrypted: authorities, chain and key are all there."""
    alone = issue("device-9", is_authority=True)
    bundles = [
        read_bundle(each)
        for each in (
            DEVICE.key() + ROOT.pem + DEVICE.pem + INTERMEDIATE.pem,
            ROOT.pem,
            DEVICE.pem + DEVICE.key(),
        )
    ]
    bundles.append(
        bundle_of_parts(ca=alone.pem + INTERMEDIATE.pem, certificate=alone.pem, private_key=alone.key())
    )
    for bundle in bundles:
        for again in (read_bundle(bundle.dump()), restore_bundle(bundle.dump(), name="kept")):
            assert subjects(bundle) == subjects(again)
            assert bundle.dump() == again.dump()
            assert bundle.reaches_authority == again.reaches_authority


def test_what_was_kept_is_not_judged_again(caplog: pytest.LogCaptureFixture) -> None:
    """A certificate that expired since then is read without a word, and its parts say where it is kept."""
    caplog.set_level("DEBUG")
    expired = issue("device-9", ROOT, starts=NOW - timedelta(days=20), ends=NOW - timedelta(days=10))
    kept = read_bundle(expired.pem + expired.key() + ROOT.pem, validity="warn").dump()
    caplog.clear()
    again = restore_bundle(kept, name="plant")
    assert again.certificate is not None
    assert again.key is not None
    assert ("plant", "plant!certificate", "plant!private_key") == (
        again.place,
        again.certificate.source,
        again.key.source,
    )
    assert [] == caplog.records


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b"\xff",
        b'{"ca": "-----BEGIN CERTIFICATE-----\\n-----END CERTIFICATE-----"}',
        json.dumps({"certificate": DEVICE.pem.decode()}).encode(),
        json.dumps({"private_key": DEVICE.key().decode()}).encode(),
        json.dumps({"certificate": DEVICE.pem.decode(), "private_key": DEVICE.key().decode()[:-50]}).encode(),
    ],
)
def test_what_was_not_kept_as_it_was_written_is_refused(content: bytes) -> None:
    """With where it is kept, and no word of what it holds."""
    with pytest.raises(TLSError, match=r"^plant was ") as caught:
        restore_bundle(content, name="plant")
    assert (None, "plant") == (caught.value.__cause__, caught.value.file)
