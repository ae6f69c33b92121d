"""How much work it is to open an encrypted key or PKCS#12 file, told before any of it is done.

Such a file says itself how often a passphrase is to be hashed, up to two thousand million times, which takes
minutes; and the library that does it lets no other thread run meanwhile. So the numbers are read first.

They stand behind the identifiers of the ways to derive a key, which are looked for wherever they are: PBKDF2
(RFC 8018 §A.2), scrypt (RFC 7914 §7), the older ways of PKCS#5 (RFC 8018 §A.3) and PKCS#12 (RFC 7292 §C);
and in the MAC of a PKCS#12 file (RFC 7292 §4). What is itself encrypted, such as a key in the encrypted part
of a PKCS#12 file, is not seen: whoever takes files from strangers bounds the time as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

ROUNDS: Final = 5_000_000
"""The most work for one bundle. A file has from 2,048 rounds (OpenSSL) to about 600,000 (OWASP's advice)."""
SCRYPT_BLOCKS: Final = 1_048_576
"""The most that scrypt's N times r may come to; each takes 128 bytes of memory."""
TOO_MUCH: Final = 1 << 63
"""The work of what takes too much memory, however long it takes."""

_PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
_SCRYPT: Final = bytes.fromhex("06092b06010401da47040b")
_PKCS5: Final = tuple(bytes.fromhex(f"06092a864886f70d0105{last:02x}") for last in (1, 3, 4, 6, 10, 11))
_PKCS12: Final = tuple(bytes.fromhex(f"060a2a864886f70d010c01{last:02x}") for last in range(1, 7))

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_INDEFINITE: Final = -1
_DEEPEST: Final = 30
_ELEMENTS: Final = 10_000
_PLACES: Final = 100
"""Bounds on the reading itself; no real file comes near."""

_Header = tuple[int, int, int]


class _NotBERError(Exception):
    """The bytes end, or nest, where they should not."""


def derivation_rounds(content: bytes, *, is_pkcs12: bool) -> int:
    """How often a passphrase is hashed to open these bytes; scrypt counts as what takes as long.

    Args:
        content: in DER or BER form; whatever else it is asks for nothing.
        is_pkcs12: whether it is a PKCS#12 file, whose MAC takes work too.
    """
    places = [
        (identifier, place)
        for identifier in (_PBKDF2, *_PKCS5, *_PKCS12, _SCRYPT)
        for place in _places(content, identifier)
    ]
    if len(places) > _PLACES:
        return TOO_MUCH
    rounds = _mac_rounds(content) if is_pkcs12 else 0
    for identifier, place in places:
        if identifier == _SCRYPT:
            rounds += _scrypt_rounds(_numbers(content, place, 3))
        else:
            rounds += sum(_numbers(content, place, 1))
    return rounds


def _places(content: bytes, identifier: bytes) -> Iterator[int]:
    """Where the parameters begin behind each occurrence of an identifier."""
    place = content.find(identifier)
    while place >= 0:
        place += len(identifier)
        yield place
        place = content.find(identifier, place)


def _numbers(content: bytes, place: int, count: int) -> list[int]:
    """The numbers behind the salt in the parameters at a place; none where there are no such parameters."""
    try:
        tag, place, _ = _header(content, place)
        if tag != _SEQUENCE:
            return []
        place = _after(content, place)
        found: list[int] = []
        for _ in range(count):
            found.append(_integer(content, place))
            place = _after(content, place)
    except _NotBERError:
        return []
    return found


def _scrypt_rounds(numbers: list[int]) -> int:
    if not numbers:
        return 0
    cost, block, parallel = numbers
    return TOO_MUCH if cost * block > SCRYPT_BLOCKS else 2 * cost * block * parallel


def _mac_rounds(content: bytes) -> int:
    try:
        place = _header(content, 0)[1]
        place = _after(content, _after(content, place))  # the version, and what is authenticated
        tag, place, _ = _header(content, place)
        if tag != _SEQUENCE:
            return 0
        return _integer(content, _after(content, _after(content, place)))
    except _NotBERError:
        return 0


def _integer(content: bytes, place: int) -> int:
    tag, start, length = _header(content, place)
    if tag != _INTEGER or length < 1:
        raise _NotBERError
    return max(0, int.from_bytes(content[start : start + length], "big", signed=True))


def _after(content: bytes, place: int, depth: int = 0) -> int:
    """The place behind the element at a place."""
    _, start, length = _header(content, place)
    if length != _INDEFINITE:
        return start + length
    if depth > _DEEPEST:
        raise _NotBERError
    for _ in range(_ELEMENTS):
        if content[start : start + 2] == b"\0\0":
            return start + 2
        start = _after(content, start, depth + 1)
    raise _NotBERError


def _header(content: bytes, place: int) -> _Header:
    """Tag, beginning and length of the element at a place (X.690 §8.1)."""
    if place + 2 > len(content):
        raise _NotBERError
    tag, length, start = content[place], content[place + 1], place + 2
    if length == 0x80:
        return tag, start, _INDEFINITE
    if length > 0x80:
        start += length & 0x7F
        length = int.from_bytes(content[place + 2 : start], "big")
    if start + length > len(content):
        raise _NotBERError
    return tag, start, length
