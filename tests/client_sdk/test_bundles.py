from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from tests.support.bundles import (
    DEVICE,
    DIRECT,
    INTERMEDIATE,
    OTHER_ROOT,
    ROOT,
    SERVER,
    refusal,
    shake_hands,
    subjects,
    write,
)
from tests.support.issued import NOW, issue
from tidegate import TLSError
from tidegate.bundles import Bundle, bundle_of_files, bundle_of_parts, load_bundle, read_bundle

PASSPHRASE = "a canary in a coal mine"


@pytest.mark.parametrize(
    "names",
    [
        ("ca__crt", "tls__crt", "tls__key"),
        ("AmazonRootCA1__pem", "0123-certificate__pem__crt", "0123-private__pem__key"),
        ("tls__key", "ca__pem", "device__pem"),
        ("c", "b", "a"),
    ],
)
def test_the_parts_of_a_directory_are_known_by_what_they_hold(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    """Whatever the files are called; what is no part is passed over, and told."""
    ca, certificate, key = names
    write(tmp_path, **{ca: ROOT.pem, certificate: DIRECT.pem, key: DIRECT.key()})
    write(tmp_path, start__sh=b"#!/bin/sh\n", zz_public__pem__key=DIRECT.public_pem, policy__json=b'{"a": 1}')
    write(tmp_path / "nested", ca__pem=OTHER_ROOT.pem)
    write(tmp_path, __DS_Store=b"\0\0\0\1Bud1", image=b"\x30\x82\x01\x00nothing", big=b"x" * 1_048_577)
    bundle = load_bundle(tmp_path)
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects(bundle)
    assert bundle.key is not None
    assert str(tmp_path / key.replace("__", ".")) == bundle.key.source
    ignored = {Path(each).name for each in bundle.ignored}
    assert {"start.sh", "zz_public.pem.key", "policy.json", "image", "big"} == ignored


FORMS: dict[str, Callable[[], bytes | str]] = {
    "pem": lambda: DEVICE.key() + ROOT.pem + DEVICE.pem + INTERMEDIATE.pem,
    "pem as text, indented, between words": lambda: "Hello\n  ".join(
        ["", *(DEVICE.pem + INTERMEDIATE.pem + ROOT.pem + DEVICE.key()).decode().splitlines(keepends=True)]
    ).replace("Hello\n", ""),
    "pem of Windows": lambda: (
        (DEVICE.key() + ROOT.pem + DEVICE.pem + INTERMEDIATE.pem)
        .decode()
        .replace("\n", "\r\n")
        .encode("utf-16")
    ),
    "pem with a mark": lambda: b"\xef\xbb\xbf" + DEVICE.key() + ROOT.pem + DEVICE.pem + INTERMEDIATE.pem,
    "key of OpenSSL": lambda: (
        DEVICE.key(form=PrivateFormat.TraditionalOpenSSL) + ROOT.pem + DEVICE.pem + INTERMEDIATE.pem
    ),
    "pkcs12": lambda: DEVICE.pkcs12(INTERMEDIATE, ROOT),
    "json": lambda: json.dumps(
        {
            "ca": ROOT.pem.decode(),
            "certificate": (DEVICE.pem + INTERMEDIATE.pem).decode(),
            "private_key": DEVICE.key().decode(),
        }
    ),
    "json with a passphrase": lambda: json.dumps(
        {
            "ca": ROOT.pem.decode(),
            "certificate": (DEVICE.pem + INTERMEDIATE.pem).decode(),
            "private_key": DEVICE.key(passphrase=PASSPHRASE).decode(),
            "passphrase": PASSPHRASE,
        }
    ),
    "json of a cloud": lambda: json.dumps(
        {
            "certificateArn": "arn:…",
            "certificatePem": DEVICE.pem.decode(),
            "keyPair": {"PublicKey": DEVICE.public_pem.decode(), "PrivateKey": DEVICE.key().decode()},
            "chain": [INTERMEDIATE.pem.decode(), ROOT.pem.decode()],
        }
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_file_has_it_all(form: str, tmp_path: Path) -> None:
    """The same certificate, chain and authority come out of every form, from bytes and from a file."""
    content = FORMS[form]()
    expected = ("CN=device-7", ["CN=Plant Issuer"], ["CN=Plant Root"])
    assert expected == subjects(read_bundle(content))
    (tmp_path / "file").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected == subjects(load_bundle(tmp_path / "file"))


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_der_is_known_too(tmp_path: Path, passphrase: str) -> None:
    """Certificates and keys without any text around them, the key encrypted or not."""
    key = DIRECT.key(passphrase=passphrase, encoding=Encoding.DER)
    write(tmp_path, a=ROOT.der, b=DIRECT.der, c=key)
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects(load_bundle(tmp_path, passphrase=passphrase))


def test_three_files_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    """A root behind the certificate is not trusted for that; the authorities may be those of another."""
    write(tmp_path, ca=OTHER_ROOT.pem, pair=DEVICE.pem + ROOT.pem + INTERMEDIATE.pem, key=DEVICE.key())
    bundle = bundle_of_files(ca=tmp_path / "ca", certificate=tmp_path / "pair", key=tmp_path / "key")
    assert ("CN=device-7", ["CN=Plant Issuer"], ["CN=Cloud Root"]) == subjects(bundle)
    parts = bundle_of_parts(
        ca=ROOT.pem, certificate=(DEVICE.pem + INTERMEDIATE.pem).decode(), private_key=DEVICE.key()
    )
    assert ("CN=device-7", ["CN=Plant Issuer"], ["CN=Plant Root"]) == subjects(parts)
    assert (False, True) == (bundle.reaches_authority, parts.reaches_authority)


def test_a_pkcs12_file_may_stand_for_certificate_and_key(tmp_path: Path) -> None:
    """With the authorities in a file of their own."""
    write(tmp_path, ca=OTHER_ROOT.pem, pair=DEVICE.pkcs12(INTERMEDIATE, ROOT, passphrase=PASSPHRASE))
    bundle = bundle_of_files(ca=tmp_path / "ca", certificate=tmp_path / "pair", passphrase=PASSPHRASE)
    assert ("CN=device-7", ["CN=Plant Issuer"], ["CN=Cloud Root"]) == subjects(bundle)


def test_the_authority_of_the_broker_may_be_another_than_the_clients(tmp_path: Path) -> None:
    """As in the kit of AWS IoT; the bundle says that the chain leads elsewhere."""
    write(tmp_path, a=OTHER_ROOT.pem, b=DEVICE.pem, c=DEVICE.key())
    bundle = load_bundle(tmp_path)
    assert ("CN=device-7", [], ["CN=Cloud Root"]) == subjects(bundle)
    assert not bundle.reaches_authority
    write(tmp_path, d=ROOT.pem, e=INTERMEDIATE.pem)
    assert load_bundle(tmp_path).reaches_authority


def test_authorities_alone_are_a_bundle(tmp_path: Path) -> None:
    """Several of them, one that is no root, and one that is older than basic constraints."""
    write(tmp_path, a=OTHER_ROOT.pem + INTERMEDIATE.pem, b=issue("Old Root", is_authority=None).pem)
    bundle = load_bundle(tmp_path)
    assert ("", [], ["CN=Cloud Root", "CN=Plant Issuer", "CN=Old Root"]) == subjects(bundle)
    assert bundle.key is None


def test_an_issuer_in_a_file_of_its_own_is_trusted_where_no_root_is_there(tmp_path: Path) -> None:
    """A Secret of cert-manager has the issuer as its authority, which then verifies a broker by itself."""
    write(tmp_path, ca__crt=INTERMEDIATE.pem, tls__crt=DEVICE.pem, tls__key=DEVICE.key())
    bundle = load_bundle(tmp_path)
    assert ("CN=device-7", ["CN=Plant Issuer"], ["CN=Plant Issuer"]) == subjects(bundle)
    assert shake_hands(bundle.context(), SERVER, trusts=ROOT) is not None
    assert [] == subjects(read_bundle(DEVICE.key() + DEVICE.pem + INTERMEDIATE.pem))[2]


def test_a_mounted_secret_is_read_in_one_version(tmp_path: Path) -> None:
    """Through ``..data``, though the links beside it already lead to the next version."""
    write(tmp_path / "..2026_01", tls__crt=DIRECT.pem, tls__key=DIRECT.key())
    write(tmp_path / "..2026_02", tls__crt=DEVICE.pem, tls__key=DEVICE.key())
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "tls.crt").symlink_to("..2026_02/tls.crt")
    (tmp_path / "tls.key").symlink_to("..data/tls.key")
    bundle = load_bundle(tmp_path)
    assert "CN=device-8" == subjects(bundle)[0]
    assert bundle.certificate is not None
    assert str(tmp_path / "tls.crt") == bundle.certificate.source


def test_a_key_that_belongs_to_nothing_is_passed_over_beside_one_that_does(tmp_path: Path) -> None:
    """Even one that cannot be opened."""
    write(tmp_path, a=DEVICE.key(), b=DIRECT.pem, c=DIRECT.key(), d=ROOT.key(passphrase="x"))
    bundle = load_bundle(tmp_path)
    assert bundle.key is not None
    assert str(tmp_path / "c") == bundle.key.source


def test_the_key_of_the_authority_is_not_the_clients(tmp_path: Path) -> None:
    """Whoever made an authority with OpenSSL has its key at hand; a server's pair comes second too."""
    server = issue("broker", ROOT, for_servers_alone=True)
    write(tmp_path, a=ROOT.pem, b=ROOT.key(), c=DIRECT.pem, d=DIRECT.key(), e=server.pem, f=server.key())
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects(load_bundle(tmp_path))


def test_of_two_certificates_with_one_key_the_newer_counts(tmp_path: Path) -> None:
    """A renewal that kept the key leaves the old file behind."""
    newer = issue("device-8", ROOT, key=DIRECT.private_key, ends=NOW + timedelta(days=300))
    write(
        tmp_path,
        a=newer.pem,
        b=DIRECT.pem,
        c=DIRECT.key(),
        d=DIRECT.key(form=PrivateFormat.TraditionalOpenSSL),
    )
    bundle = load_bundle(tmp_path)
    assert bundle.certificate is not None
    assert str(tmp_path / "a") == bundle.certificate.source


def test_a_certificate_that_signed_itself_is_a_clients_where_its_key_is_there() -> None:
    """As ``openssl req -x509`` makes them; nothing else is trusted for it."""
    alone = issue("device-9", is_authority=True)
    assert ("CN=device-9", [], []) == subjects(read_bundle(alone.pem + alone.key()))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """A bundle that is half there says which half."""
    for content, words in (
        (DIRECT.key(), "upload has a key and no certificate for it"),
        (DIRECT.pem, "upload has the certificate of CN=device-8 and no key for it"),
        (b"", "upload holds no certificate"),
        (b"hello", "upload holds no certificate"),
        (DIRECT.public_pem, "upload holds no certificate"),
    ):
        assert words == str(refusal(content))
    write(tmp_path, a=b"x", b=b"y")
    for name, words in (
        ("key", f"has a key, in {tmp_path}/key/a, and no certificate for it"),
        ("pem", f"has the certificate of CN=device-8, in {tmp_path}/pem/a, and no key for it"),
    ):
        write(tmp_path / name, a=DIRECT.key() if name == "key" else DIRECT.pem)
        assert f"{tmp_path}/{name} {words}" == str(refusal(tmp_path / name))
    assert f"{tmp_path} holds no certificate; looked at {tmp_path}/a, {tmp_path}/b" == str(refusal(tmp_path))


def test_a_key_of_another_certificate_is_named_with_it(tmp_path: Path) -> None:
    """The error has both files."""
    write(tmp_path, ca=ROOT.pem, cert=DEVICE.pem, key=DIRECT.key())
    error = refusal(tmp_path)
    assert f"the key in {tmp_path}/key does not belong to the certificate in {tmp_path}/cert" in str(error)
    assert f"{tmp_path}/key" == error.file


def test_several_pairs_are_refused(tmp_path: Path) -> None:
    """Which of them is meant is not guessed."""
    write(tmp_path, a=DEVICE.pem, b=DEVICE.key(), c=DIRECT.pem, d=DIRECT.key())
    error = refusal(tmp_path)
    for words in ("several certificates", f"CN=device-7 in {tmp_path}/a", f"CN=device-8 in {tmp_path}/c"):
        assert words in str(error)


@pytest.mark.parametrize(
    ("parts", "file", "words"),
    [
        ({"ca": b"hello"}, "ca", "holds no certificate authority"),
        ({"ca": DIRECT.pem}, "ca", "CN=device-8 in ca is no authority's"),
        ({"ca": ROOT.pkcs12(passphrase="x")}, "ca", "is encrypted"),
        ({"certificate": DIRECT.pem, "private_key": b"hello"}, "private_key", "holds no private key"),
        ({"certificate": b"hello", "private_key": DIRECT.key()}, "certificate", "holds no certificate"),
        ({"certificate": ROOT.pem}, "certificate", "has no key"),
        ({"private_key": DIRECT.key()}, "private_key", "no certificate for it"),
        (
            {"certificate": DEVICE.pem + ROOT.pem + OTHER_ROOT.pem + DIRECT.pem, "private_key": DEVICE.key()},
            "certificate",
            "CN=device-8 in certificate is no link of the chain of CN=device-7",
        ),
        ({"ca": b"x" * 1_048_577}, "ca", "larger than 1,048,576 bytes"),
        ({"ca": b"PK\x03\x04"}, "ca", "is a ZIP archive"),
    ],
)
def test_a_part_that_cannot_be_used_is_named(parts: dict[str, Any], file: str, words: str) -> None:
    """By the name that whoever uploads it knows it by."""
    with pytest.raises(TLSError) as caught:
        bundle_of_parts(**parts)
    assert words in str(caught.value)
    assert file == caught.value.file


def test_a_chain_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    """The authority of that name has another key; or who signed is no authority."""
    impostor = issue("Plant Root", is_authority=True)
    write(tmp_path, ca=impostor.pem, cert=DIRECT.pem, key=DIRECT.key())
    attempts: tuple[Callable[[], Bundle], ...] = (
        lambda: load_bundle(tmp_path),
        lambda: bundle_of_files(ca=tmp_path / "ca", certificate=tmp_path / "cert", key=tmp_path / "key"),
    )
    for attempt in attempts:
        with pytest.raises(TLSError) as caught:
            attempt()
        for words in (f"CN=device-8 in {tmp_path}/cert", "CN=Plant Root", f"{tmp_path}/ca has another key"):
            assert words in str(caught.value)
    lesser = issue("lesser", DIRECT)
    assert "CN=device-8 in upload vouches for another" in str(refusal(lesser.pem + lesser.key() + DIRECT.pem))


def test_a_directory_that_cannot_be_a_bundle_is_refused(tmp_path: Path) -> None:
    """A link that leads nowhere, a hundred files, no directory at all."""
    (tmp_path / "ca.pem").symlink_to("gone")
    assert f"{tmp_path}/ca.pem is a link that leads nowhere" == str(refusal(tmp_path))
    (tmp_path / "ca.pem").unlink()
    write(tmp_path, **{f"file{number}": b"" for number in range(101)})
    assert "has 101 files, and a bundle has at most 100" in str(refusal(tmp_path))
    assert "cannot be read: No such file or directory" in str(refusal(tmp_path / "gone"))


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    """A named pipe would never end; links to files are followed."""
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "elsewhere", ca=ROOT.pem)
    (tmp_path / "link").symlink_to("elsewhere/ca")
    assert ["CN=Plant Root"] == subjects(load_bundle(tmp_path))[2]
