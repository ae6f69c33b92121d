"""The header ``Idempotency-Key``: a key of 1 to 255 printable ASCII characters, as it is or in quotes.

The IETF draft "The Idempotency-Key HTTP Header Field" writes it as a structured-field string, in quotes
(RFC 9651 §3.3.3). Most clients send it bare. Both are read, and ``abc`` and ``"abc"`` are one key.
"""

from __future__ import annotations

import re
from typing import Final

from app.problems import ProblemError, ProblemType
from app.publishing.idempotency_store import HEADER

IDEMPOTENCY_KEY: Final = HEADER
IDEMPOTENCY_REPLAYED: Final = "Idempotency-Replayed"
MAX_CHARACTERS: Final = 255
KEY_PATTERN: Final = r'^("([ !#-\[\]-~]|\\["\\])+"|[!#-~]([ -~]*[!-~])?)$'
"""What a value of the header looks like, for the document."""

_is_printable: Final = re.compile(rb"[\x20-\x7e]+").fullmatch
_is_quoted: Final = re.compile(rb'"(?:[ !#-\[\]-~]|\\["\\])*"').fullmatch
_escaped: Final = re.compile(rb'\\(["\\])')


def read_idempotency_key(value: bytes) -> str:
    """The key that a value of the header stands for.

    Raises:
        ProblemError: INVALID_HEADER: it is no key. The detail does not repeat it.
    """
    key = value
    if value.startswith(b'"'):
        if not _is_quoted(value):
            raise _invalid("it begins with a quote and is no quoted string")
        key = _escaped.sub(rb"\1", value[1:-1])
    if not key:
        raise _invalid("it is empty")
    if len(key) > MAX_CHARACTERS:
        raise _invalid(f"it has {len(key)} characters; at most {MAX_CHARACTERS} are allowed")
    if not _is_printable(key):
        raise _invalid("it has a character that is not printable ASCII")
    return key.decode("ascii")


def repeated_idempotency_key() -> ProblemError:
    """The refusal of a request that has the header several times."""
    return _invalid("it is there several times")


def _invalid(reason: str) -> ProblemError:
    return ProblemError(
        ProblemType.INVALID_HEADER,
        f"{IDEMPOTENCY_KEY}: {reason}",
        field=IDEMPOTENCY_KEY,
        hint="a new UUID for each message is a good key",
    )
