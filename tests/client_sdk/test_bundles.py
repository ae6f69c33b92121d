from __future__ import annotations

import ipaddress
import json
import os
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypedDict

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from tests.support.issued import NOW, Issued, altered, issue, rsa_key
from tidegate import TLSError
from tidegate.bundles import Bundle, bundle_of_files, bundle_of_parts, load_bundle, read_bundle

PASSPHRASE = "a canary in a coal mine"
SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")
MD5_WITH_RSA = bytes.fromhex("2a864886f70d010104")


ROOT = issue("Plant Root", is_authority=True)
INTERMEDIATE = issue("Plant Issuer", ROOT, is_authority=True)
DEVICE = issue("device-7", INTERMEDIATE)
DIRECT = issue("device-8", ROOT)
OTHER_ROOT = issue("Cloud Root", is_authority=True)
SERVER = issue("broker", INTERMEDIATE, names=(x509.DNSName("broker.example"),))


def subjects(bundle: Bundle) -> tuple[str, list[str], list[str]]:
    """The client's certificate, its chain and the authorities, by common name."""
    mine = "" if bundle.certificate is None else bundle.certificate.subject
    named = [[each.subject for each in part] for part in (bundle.chain, bundle.authorities)]
    return mine, named[0], named[1]


def write(directory: Path, **files: bytes) -> Path:
    """Write files; two underscores in a name stand for a dot."""
    directory.mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_bytes(content)
    return directory


def refusal(content: bytes | str | Path, **options: Any) -> TLSError:
    """The error that a bundle ends in."""
    with pytest.raises(TLSError) as caught:
        _ = (
            load_bundle(content, **options)
            if isinstance(content, Path)
            else read_bundle(content, name="upload", **options)
        )
    assert str(caught.value.file) in str(caught.value)
    return caught.value


def shake_hands(client: ssl.SSLContext, server: Issued, *chain: Issued, trusts: Issued | None = None) -> Any:
    """Make a TLS handshake in memory; returns the client's certificate as the server saw it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join((server.key(), server.pem, *(each.pem for each in chain))))
        file.flush()
        context.load_cert_chain(file.name)
    if trusts is not None:
        context.load_verify_locations(cadata=trusts.der)
        context.verify_mode = ssl.CERT_REQUIRED
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(one, two, server_hostname="broker.example"),
        context.wrap_bio(two, one, server_side=True),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert()


# What is given, and how its parts are known


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


# What is missing or does not fit


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


# What is too weak, or out of its dates


CA = issue("CA", key=rsa_key(2048), is_authority=True)
SIGNED_BY_RSA = issue("weak", CA)


@pytest.mark.parametrize(
    ("issued", "words"),
    [
        (issue("weak", key=rsa_key(1024)), "has an RSA key of 1024 bits, and 2048 is the least"),
        (issue("weak", key=ec.generate_private_key(ec.SECP192R1())), "has a key on the curve secp192r1"),
        (altered(SIGNED_BY_RSA, SHA256_WITH_RSA, SHA1_WITH_RSA), "is signed with SHA1, which can be forged"),
        (altered(SIGNED_BY_RSA, SHA256_WITH_RSA, MD5_WITH_RSA), "is signed with MD5, which can be forged"),
    ],
    ids=["RSA 1024", "P-192", "SHA-1", "MD5"],
)
def test_what_is_too_weak_is_refused(issued: Issued, words: str) -> None:
    """In a client's certificate, and in an authority."""
    error = refusal(issued.pem + issued.key())
    assert f"the certificate of CN=weak in upload {words}" in str(error)
    if issued.x509.issuer == issued.x509.subject:
        with pytest.raises(TLSError, match="CN=weak in ca has"):
            bundle_of_parts(ca=issued.pem)


def test_the_signature_of_a_root_and_its_serial_number_are_nobodys_business() -> None:
    """Roots that systems trust are signed with SHA-1 or have the number 0, and no warning is printed."""
    old = altered(CA, SHA256_WITH_RSA, SHA1_WITH_RSA)
    zero = altered(issue("zero", serial=1, is_authority=True), b"\x02\x01\x01", b"\x02\x01\x00")
    names_zero = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(ROOT.x509.subject)], 1)
    named = issue("names zero", is_authority=True, extension=names_zero)
    negative = altered(named, b"\x82\x01\x01", b"\x82\x01\xff")
    bundle = bundle_of_parts(ca=old.pem + zero.pem + negative.pem)
    assert ["CN=CA", "CN=zero", "CN=names zero"] == subjects(bundle)[2]


class Dates(TypedDict):
    starts: datetime
    ends: datetime


EXPIRED: Dates = {"starts": NOW - timedelta(days=10), "ends": NOW - timedelta(days=3)}
FUTURE: Dates = {"starts": NOW + timedelta(days=3), "ends": NOW + timedelta(days=9)}


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        (EXPIRED, f"expired on {EXPIRED['ends']:%Y-%m-%d %H:%M} UTC; have it renewed"),
        (FUTURE, "is not valid before"),
    ],
    ids=["expired", "not yet"],
)
def test_dates_are_refused_or_warned_about(
    dates: Dates, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As whoever calls wants it: of the client's certificate, its chain, and an authority that is alone."""
    issuer = issue("issuer", ROOT, is_authority=True, **dates)
    device = issue("device", issuer)
    late = issue("late", ROOT, **dates)
    for content, name in (
        (late.pem + late.key(), "late"),
        (device.pem + device.key() + issuer.pem, "issuer"),
        (issue("root", is_authority=True, **dates).pem, "root"),
    ):
        assert f"the certificate of CN={name} in upload {words}" in str(refusal(content))
        caplog.clear()
        assert read_bundle(content, validity="warn").context() is not None
        assert [("WARNING", True)] == [(each.levelname, words in each.message) for each in caplog.records]


def test_an_old_root_beside_a_new_one_is_no_hindrance(caplog: pytest.LogCaptureFixture) -> None:
    """While an authority is changed, both are there."""
    caplog.set_level("INFO")
    old = issue("old", is_authority=True, **EXPIRED)
    assert ["CN=old", "CN=Plant Root"] == subjects(bundle_of_parts(ca=old.pem + ROOT.pem))[2]
    assert [("INFO", True)] == [(each.levelname, "CN=old in ca" in each.message) for each in caplog.records]


def test_a_certificate_for_servers_alone_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    """Some brokers take it."""
    server = issue("broker", for_servers_alone=True)
    read_bundle(server.pem + server.key())
    assert ["is for servers alone" in each.message for each in caplog.records] == [True]


# Keys under a passphrase, and what is never shown


LOCKED: dict[str, Callable[[], bytes]] = {
    "pkcs8": lambda: DIRECT.pem + DIRECT.key(passphrase=PASSPHRASE),
    "openssl": lambda: DIRECT.pem + DIRECT.key(passphrase=PASSPHRASE, form=PrivateFormat.TraditionalOpenSSL),
    "pkcs12": lambda: DIRECT.pkcs12(passphrase=PASSPHRASE),
    "json": lambda: json.dumps(
        {"certificate": DIRECT.pem.decode(), "private_key": DIRECT.key(passphrase=PASSPHRASE).decode()}
    ).encode(),
    "json of a cloud": lambda: json.dumps(
        {"certificatePem": DIRECT.pem.decode(), "key": DIRECT.key(passphrase=PASSPHRASE).decode()}
    ).encode(),
}


@pytest.mark.parametrize("form", LOCKED)
def test_an_encrypted_key_needs_its_passphrase(form: str) -> None:
    """Missing and wrong are told apart, by the name that whoever calls gives it; text and bytes open it."""
    content = LOCKED[form]()
    assert "is encrypted; give its passphrase" in str(refusal(content))
    assert "is encrypted; give its keyword" in str(refusal(content, passphrase="", key_setting="keyword"))
    error = refusal(content, passphrase="wrong canary", key_setting="keyword")
    assert "the keyword does not open the" in str(error)
    assert "canary" not in str(error)
    for right in (PASSPHRASE, PASSPHRASE.encode()):
        assert "CN=device-8" == subjects(read_bundle(content, passphrase=right))[0]


def test_a_passphrase_that_is_not_needed_does_no_harm() -> None:
    """One setting serves for encrypted keys and for others."""
    for content in (DIRECT.pem + DIRECT.key(), DIRECT.pkcs12()):
        assert "CN=device-8" == subjects(read_bundle(content, passphrase="x"))[0]


def test_neither_a_key_nor_a_passphrase_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In no ``repr``, error, cause of an error or log, whatever is wrong with the file that holds it."""
    caplog.set_level("DEBUG")
    body = DIRECT.key().decode().splitlines()[1]
    number = str(DIRECT.private_key.private_numbers().private_value)
    shown = [repr(read_bundle(LOCKED[form](), passphrase=PASSPHRASE)) for form in LOCKED]
    bundle = read_bundle(LOCKED["json"](), passphrase=PASSPHRASE)
    shown += [repr(bundle.key), repr(bundle.certificate), f"{bundle}", str(vars(bundle.context()))]
    key = DIRECT.key()
    for content in (
        key[:-20],
        key.replace(b"\n", b"\n!", 2),
        b'{"private_key": "'
        + key.replace(b"\n", b"\\n")
        + b'", "passphrase": "'
        + PASSPHRASE.encode()
        + b'",',
        b'{"private_key": "' + body.encode() + b'", "passphrase": "' + PASSPHRASE.encode() + b'"}',
        json.dumps({body: key.decode(), "passphrase": PASSPHRASE}).encode(),
        DEVICE.pem + key,
        DIRECT.pkcs12(passphrase=PASSPHRASE)[:-9],
    ):
        for passphrase in (PASSPHRASE, "another canary"):
            error: BaseException | None = refusal(content, passphrase=passphrase)
            while error is not None:
                shown += [repr(error), str(vars(error))]
                error = error.__cause__ or error.__context__
    for text in (*shown, caplog.text):
        assert "canary" not in text
        assert number not in text
        assert "-----BEGIN" not in text
    assert sum(body in text for text in shown) == 0


def test_a_repr_has_what_tells_bundles_apart() -> None:
    """Subject, issuer, end and fingerprint."""
    bundle = read_bundle(DIRECT.pem + DIRECT.key() + ROOT.pem, name="kit")
    end = f"{NOW + timedelta(days=90):%Y-%m-%d}"
    mine, root = (sha256(each.der).hexdigest() for each in (DIRECT, ROOT))
    assert (
        f"<Bundle 'kit' certificate: CN=device-8, issued by CN=Plant Root, until {end}, SHA-256 {mine}; "
        f"authority: CN=Plant Root, issued by CN=Plant Root, until {end}, SHA-256 {root}>"
    ) == repr(bundle)


# What is damaged


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROOT.pem[:-30], "upload is cut off: its block CERTIFICATE has no end"),
        (ROOT.pem[:-26] + DIRECT.pem, "upload is cut off"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "has a certificate that is damaged",
        ),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "has a private key that is damaged",
        ),
        (
            b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 16_384 + b"\n-----END PRIVATE KEY-----\n",
            "has a key of more than 16,384 bytes",
        ),
        (b'{"ca": "hello"}', "upload!ca holds no certificate authority"),
        (b'{"private_key": ["-----BEGIN "]}', "upload!private_key is no text"),
        (b'{"ca": "' + ROOT.pem.replace(b"\n", b"\\n") + b'"', "is no valid JSON"),
        (b'{"ca": "", "a": "-----BEGIN ", "a": 1}', "is no valid JSON"),
        (b"[" * 100_000 + b"-----BEGIN ", "is no valid JSON"),
        (b"x" * 1_048_577, "is larger than 1,048,576 bytes"),
    ],
    ids=range(11),
)
def test_what_is_damaged_is_told(content: bytes, words: str) -> None:
    """By what is wrong with it."""
    with pytest.raises(TLSError) as caught:
        read_bundle(content, name="upload")
    assert words in str(caught.value)
    assert str(caught.value.file).startswith("upload")


def test_a_million_beginnings_take_no_time_to_speak_of() -> None:
    """A text of nothing but first lines is read once, from top to bottom."""
    assert "cut off" in str(refusal(b"-----BEGIN CERTIFICATE-----\n" * 37_000))


# Directories


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


# What a certificate says


def test_a_certificate_is_described() -> None:
    """Names of all kinds, moments with their zone, days, and a fingerprint as OpenSSL computes it."""
    names = (
        x509.DNSName("a.example"),
        x509.IPAddress(ipaddress.ip_address("::1")),
        x509.RFC822Name("a@b.example"),
        x509.UniformResourceIdentifier("spiffe://plant/device"),
    )
    starts, ends = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC)
    issued = issue("device-9", ROOT, names=names, starts=starts, ends=ends)
    found = read_bundle(issued.pem + issued.key(), name="kit", validity="warn").certificate
    assert found is not None
    assert ("CN=device-9", "CN=Plant Root", "kit") == (found.subject, found.issuer, found.source)
    assert ("a.example", "::1", "a@b.example", "spiffe://plant/device") == found.names
    assert (starts, ends) == (found.not_before, found.not_after)
    assert sha256(issued.der).hexdigest() == found.fingerprint
    assert [58, 0, -1] == [found.days_left(each) for each in (starts, ends, ends + timedelta(seconds=1))]
    assert found.days_left() < -2000


def test_a_subject_is_one_line_whatever_it_holds() -> None:
    """It is written by whoever asked for the certificate, and ends up in logs."""
    found = read_bundle(issue("a\nFAKE\x1b[31m", is_authority=True).pem).authorities[0]
    assert found.subject.isprintable()
    nameless = issue("", ROOT, names=(x509.DNSName("a.example"),))
    assert "the certificate of a.example" in str(refusal(nameless.pem))
    bare = issue("", ROOT)
    assert f"the certificate of {sha256(bare.der).hexdigest()}" in str(refusal(bare.pem))


# The context


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
    bundles = [read_bundle(each) for each in (FORMS["pem"](), ROOT.pem, DEVICE.pem + DEVICE.key())]
    bundles.append(
        bundle_of_parts(ca=alone.pem + INTERMEDIATE.pem, certificate=alone.pem, private_key=alone.key())
    )
    for bundle in bundles:
        again = read_bundle(bundle.dump())
        assert subjects(bundle) == subjects(again)
        assert bundle.dump() == again.dump()
