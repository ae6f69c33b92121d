"""Encrypted keys and PKCS#12 files that ask for any number of rounds, put together by hand in DER."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

SALT: Final = b"saltsalt"
AES: Final = bytes.fromhex("060960864801650304012a")
HMAC_SHA256: Final = bytes.fromhex("06082a864886f70d0209")
ENCRYPTED: Final = bytes.fromhex("06092a864886f70d010706")
SHA256: Final = bytes.fromhex("0609608648016503040201")
DATA: Final = bytes.fromhex("06092a864886f70d010701")
PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
SHA1_AND_3DES: Final = bytes.fromhex("060a2a864886f70d010c0103")
MD5_AND_DES: Final = bytes.fromhex("06092a864886f70d010503")
SHROUDED_KEY: Final = bytes.fromhex("060b2a864886f70d010c0a0102")


def element(tag: int, *contents: bytes) -> bytes:
    """One element of definite length."""
    content = b"".join(contents)
    length = len(content)
    if length < 128:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def sequence(*contents: bytes) -> bytes:
    """A SEQUENCE."""
    return element(0x30, *contents)


def octets(*contents: bytes) -> bytes:
    """An OCTET STRING."""
    return element(0x04, *contents)


def in_pieces(content: bytes) -> bytes:
    """An OCTET STRING of indefinite length, in two pieces, as BER allows."""
    return b"\x24\x80" + octets(content[:3]) + octets(content[3:]) + b"\0\0"


def integer(number: int) -> bytes:
    """An INTEGER."""
    return element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def pbkdf2(rounds: int, salt: bytes = octets(SALT)) -> bytes:
    """PBES2 with PBKDF2, as an algorithm identifier."""
    way = sequence(PBKDF2, sequence(salt, integer(rounds)))
    return sequence(PBES2, sequence(way, sequence(AES, octets(bytes(16)))))


def scrypt(cost: int, block: int, parallel: int) -> bytes:
    """PBES2 with scrypt."""
    way = sequence(SCRYPT, sequence(octets(SALT), integer(cost), integer(block), integer(parallel)))
    return sequence(PBES2, sequence(way, sequence(AES, octets(bytes(16)))))


def pbes1(identifier: bytes, rounds: int) -> bytes:
    """One of the older ways."""
    return sequence(identifier, sequence(octets(SALT), integer(rounds)))


def encrypted_key(way: bytes) -> bytes:
    """An EncryptedPrivateKeyInfo (RFC 5958 §3) that no passphrase opens."""
    return sequence(way, octets(bytes(64)))


def pkcs12(way: bytes, *, mac_rounds: int) -> bytes:
    """A PFX (RFC 7292 §4) with one such key in it, and a MAC that no passphrase fits."""
    bag = sequence(SHROUDED_KEY, element(0xA0, encrypted_key(way)))
    safe = sequence(DATA, element(0xA0, octets(sequence(bag))))
    safes = sequence(DATA, element(0xA0, octets(sequence(safe))))
    digest = sequence(sequence(SHA256, b"\5\0"), octets(bytes(32)))
    return sequence(integer(3), safes, sequence(digest, octets(SALT), integer(mac_rounds)))


def hidden_pkcs12(way: bytes, passphrase: str) -> bytes:
    """The same without a MAC, its key in a part that is encrypted as a whole, with a single round."""
    bag = sequence(SHROUDED_KEY, element(0xA0, encrypted_key(way)))
    padder = PKCS7(128).padder()
    plain = padder.update(sequence(bag)) + padder.finalize()
    key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), SALT, 1, 32)
    encryptor = Cipher(AES256(key), CBC(bytes(16))).encryptor()
    hidden = encryptor.update(plain) + encryptor.finalize()
    derivation = sequence(octets(SALT), integer(1), sequence(HMAC_SHA256, b"\5\0"))
    outer = sequence(PBES2, sequence(sequence(PBKDF2, derivation), sequence(AES, octets(bytes(16)))))
    content = sequence(integer(0), sequence(DATA, outer, element(0x80, hidden)))
    safe = sequence(ENCRYPTED, element(0xA0, content))
    return sequence(integer(3), sequence(DATA, element(0xA0, octets(sequence(safe)))))
