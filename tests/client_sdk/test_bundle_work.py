"""No file makes its reader hash for minutes: what it asks for is read before it is done."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client_sdk.test_bundles_in_zips import pack
from tests.support import der
from tests.support.bundles import DIRECT, ROOT, refusal, subjects
from tests.support.issued import issue
from tidegate.bundles import read_bundle
from tidegate.bundles.derivation import ROUNDS, SCRYPT_BLOCKS, TOO_MUCH, derivation_rounds
from tidegate.bundles.parts import CERTIFICATES, KEYS

MOST = 2_147_483_647
WORDS = (
    "rounds of hashing to turn a passphrase into a key, which would take too long; encrypt it anew with fewer"
)


def as_pem(content: bytes) -> bytes:
    """An encrypted key as one block."""
    lines = base64.encodebytes(content)
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + lines + b"-----END ENCRYPTED PRIVATE KEY-----\n"


ABSURD: dict[str, bytes] = {
    "PBKDF2": der.encrypted_key(der.pbkdf2(MOST)),
    "PBKDF2, its salt in pieces": der.encrypted_key(der.pbkdf2(MOST, der.in_pieces(der.SALT))),
    "scrypt that takes a terabyte": der.encrypted_key(der.scrypt(1 << 30, 8, 1)),
    "scrypt that takes hours": der.encrypted_key(der.scrypt(1 << 14, 8, 1 << 20)),
    "PKCS#12's old way": der.encrypted_key(der.pbes1(der.SHA1_AND_3DES, MOST)),
    "PKCS#5's old way": der.encrypted_key(der.pbes1(der.MD5_AND_DES, MOST)),
    "PKCS#12's MAC": der.pkcs12(der.pbkdf2(2048), mac_rounds=MOST),
    "PKCS#12's key": der.pkcs12(der.pbkdf2(MOST), mac_rounds=1),
    "more than any file": der.pkcs12(der.pbkdf2(1) * 101, mac_rounds=1),
}


@pytest.mark.parametrize("form", ABSURD)
def test_absurd_rounds_are_refused_before_they_are_made(form: str) -> None:
    """By themselves, in a ZIP, with and without a passphrase, and where it is a key as PEM too."""
    content = ABSURD[form]
    for packed in (content, pack(("kit/part", content)), pack(("ca.pem", ROOT.pem), ("part", content))):
        for passphrase in (None, "secret"):
            assert WORDS in str(refusal(packed, passphrase=passphrase))
    if "PKCS#12's" not in form:
        assert WORDS in str(refusal(DIRECT.pem + as_pem(content), passphrase="secret"))


def test_rounds_are_added_up() -> None:
    """A hundred files that ask for much each are refused with the first that is too much in all."""
    part = der.encrypted_key(der.pbkdf2(ROUNDS // 3))
    members = [(f"{number}.key", part + bytes(number)) for number in range(1, 10)]
    error = refusal(pack(*members), passphrase="secret")
    assert "upload!4.key" == error.file
    assert WORDS in str(error)


@pytest.mark.parametrize(
    ("content", "is_pkcs12", "rounds"),
    [
        (der.encrypted_key(der.pbkdf2(2048)), False, 2048),
        (der.encrypted_key(der.pbkdf2(2048, der.in_pieces(der.SALT))), False, 2048),
        (der.encrypted_key(der.scrypt(16_384, 8, 2)), False, 524_288),
        (der.encrypted_key(der.scrypt(SCRYPT_BLOCKS // 8, 8, 1)), False, 2 * SCRYPT_BLOCKS),
        (der.encrypted_key(der.scrypt(SCRYPT_BLOCKS // 8 + 1, 8, 1)), False, TOO_MUCH),
        (der.encrypted_key(der.pbes1(der.SHA1_AND_3DES, 10)), False, 10),
        (der.encrypted_key(der.pbes1(der.MD5_AND_DES, -10)), False, 0),
        (der.pkcs12(der.pbkdf2(7), mac_rounds=30), True, 37),
        (der.pkcs12(der.pbkdf2(7), mac_rounds=30), False, 7),
        (der.pkcs12(der.pbkdf2(7), mac_rounds=30)[:-3], True, 7),
        (der.PBKDF2, False, 0),
        (der.PBKDF2 + b"\x30\x80" * 100, False, 0),
        (der.PBKDF2 + b"\x30\x80" + b"\x24\x80" * 100, False, 0),
        (der.PBKDF2 + b"\x30\x80\x24\x80" + b"\x04\x00" * 20_000, False, 0),
        (b"", True, 0),
    ],
)
def test_the_rounds_of_a_file_are_counted(content: bytes, is_pkcs12: bool, rounds: int) -> None:
    """All of those it asks for; what is cut off asks for none."""
    assert rounds == derivation_rounds(content, is_pkcs12=is_pkcs12)


FRAGMENTS = (der.PBKDF2, der.SCRYPT, b"\x30\x80", b"\x24\x80", b"\x02\x01")


@settings(deadline=None)
@given(st.binary() | st.lists(st.sampled_from(FRAGMENTS)).map(b"".join))
def test_rounds_are_counted_in_anything(content: bytes) -> None:
    """Whatever the bytes are, there is a number."""
    assert 0 <= derivation_rounds(content, is_pkcs12=True)


def test_files_as_libraries_write_them_are_counted_and_opened() -> None:
    """What is there is within the bound, and was found: a count of nothing would let everything pass."""
    for content, is_pkcs12 in (
        (DIRECT.pkcs12(passphrase="secret"), True),
        (DIRECT.key(passphrase="secret", encoding=Encoding.DER), False),
    ):
        assert 2000 < derivation_rounds(content, is_pkcs12=is_pkcs12) < ROUNDS
    assert "CN=device-8" == subjects(read_bundle(DIRECT.pkcs12(passphrase="secret"), passphrase="secret"))[0]


def test_parts_are_bounded_in_number() -> None:
    """A key takes up to seconds to check, and a thousand authorities are more than any system has."""
    key = DIRECT.key()
    assert "CN=device-8" == subjects(read_bundle(DIRECT.pem + key * KEYS))[0]
    assert f"more than {KEYS}" in str(refusal(DIRECT.pem + key * (KEYS + 1)))
    shared = issue("shared", is_authority=True).private_key
    roots = [issue(f"Root {number}", is_authority=True, key=shared).pem for number in range(CERTIFICATES + 1)]
    assert CERTIFICATES == len(read_bundle(b"".join(roots[:-1])).authorities)
    assert f"more than {CERTIFICATES:,}" in str(refusal(b"".join(roots)))
