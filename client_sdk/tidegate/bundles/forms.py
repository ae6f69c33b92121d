"""How the bytes of a file look before anybody knows what they mean: text, PEM blocks, JSON, PKCS#12.

No exception of a parser is chained to those raised here: some hold the whole text that they stumbled over,
and that text may be a key.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tidegate.errors import TLSError

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,60})-----")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")  # of a member; any other might be a key out of place


def as_utf8(content: bytes) -> bytes:
    """Text as Windows writes it, with a byte order mark or in UTF-16, as UTF-8 without."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def blocks(content: bytes, source: str) -> Iterator[tuple[bytes, bytes]]:
    """Each PEM block (RFC 7468) with its label; text around and between them is passed over.

    Raises:
        TLSError: a block has no end.
    """
    label, lines = b"", list[bytes]()
    for raw in content.splitlines():
        line = raw.strip()
        begin = _BEGIN.fullmatch(line)
        if begin:
            if label:
                break
            label, lines = begin[1], []
        if label:
            lines.append(line)
        if label and line == b"-----END " + label + b"-----":
            yield label, b"\n".join((*lines, b""))
            label = b""
    if label:
        raise TLSError(
            f"{source} is cut off: its block {label.decode()} has no end; copy the file anew", file=source
        )


def decode_block(block: bytes) -> bytes:
    """What stands in a PEM block; nothing where it has headers (RFC 1421), as keys of old OpenSSL do."""
    try:
        return binascii.a2b_base64(b"".join(block.splitlines()[1:-1]))
    except binascii.Error:
        return b""


def parse_json(content: bytes, source: str) -> tuple[Any, list[tuple[str, str]]]:
    """A document, and each text in it that has PEM; None where it is another program's, or no JSON at all."""
    try:
        document: Any = json.loads(content, object_pairs_hook=_without_duplicates)
        return document, list(texts(document, ""))
    except (ValueError, RecursionError):
        pass  # the error is not kept: it holds the whole text
    if b"-----BEGIN " in content:
        raise TLSError(f"{source} begins like JSON, has PEM in it, and is no valid JSON", file=source)
    return None, []


def texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Each text with PEM in a JSON value, with its path of member names."""
    if isinstance(value, str) and "-----BEGIN " in value:
        yield name if _NAME.fullmatch(name) else "…", value
    elif isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(each, f"{name}.{key}" if name else str(key))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def is_pkcs12(content: bytes) -> bool:
    """Whether this is a PFX (RFC 7292 §4): a sequence that begins with the version 3, as no key does."""
    length = content[1] if len(content) > 1 else 0
    start = 2 + (length & 0x7F if length & 0x80 else 0)
    return content[start : start + 3] == b"\x02\x01\x03"
