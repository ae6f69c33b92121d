"""Percent-encoding (RFC 3986 §2.1), decoded once and strictly: what cannot be decoded is refused."""

from __future__ import annotations

import re
import string
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from app.problems import ProblemError, ProblemType

_is_broken: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})").search
_HEADER_SAFE: Final = "".join(sorted(set(string.punctuation) - {"%"}))


def percent_decode(
    raw: bytes, *, field: str, kind: ProblemType, percent_hint: str = "write %25 for a percent sign"
) -> str:
    """Decode once, as UTF-8.

    Args:
        raw: the bytes as they came.
        field: what they are, for the problem.
        kind: the type of the problem.
        percent_hint: what to do about a ``%`` that two hexadecimal digits do not follow.

    Raises:
        ProblemError: of that kind: a broken escape, or bytes that are not UTF-8.
    """
    octets = raw
    if b"%" in raw:
        broken = _is_broken(raw)
        if broken is not None:
            raise ProblemError(
                kind,
                f"the {field} has a '%' without two hexadecimal digits after it: byte {broken.start() + 1}",
                field=field,
                hint=percent_hint,
            )
        octets = unquote_to_bytes(raw)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(
            kind,
            f"the {field} is not UTF-8 once percent-decoded: byte 0x{octets[error.start]:02X}",
            field=field,
            hint="percent-encode the UTF-8 bytes of the text",
        ) from None


def percent_encode(text: str, *, safe: str = _HEADER_SAFE) -> bytes:
    """Encode for a header: printable ASCII stays but for ``%`` and the space, all else is escaped UTF-8."""
    return quote(text, safe=safe).encode("ascii")
