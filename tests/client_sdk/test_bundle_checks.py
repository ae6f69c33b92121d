from __future__ import annotations

import gc
import ipaddress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TypedDict

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.bundles import (
    DIRECT,
    ROOT,
    refusal,
    subjects,
)
from tests.support.issued import NOW, Issued, altered, issue, rsa_key
from tidegate import TLSError
from tidegate.bundles import bundle_of_parts, read_bundle

SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")
MD5_WITH_RSA = bytes.fromhex("2a864886f70d010104")


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
    gc.collect()  # what other tests left, and ends within the deep nesting, would find no room on the stack
    with pytest.raises(TLSError) as caught:
        read_bundle(content, name="upload")
    assert words in str(caught.value)
    assert str(caught.value.file).startswith("upload")


def test_a_million_beginnings_take_no_time_to_speak_of() -> None:
    """A text of nothing but first lines is read once, from top to bottom."""
    assert "cut off" in str(refusal(b"-----BEGIN CERTIFICATE-----\n" * 37_000))


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
