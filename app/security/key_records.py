"""API keys as the file ``TIDEGATE_API_KEYS_FILE`` keeps them, and as their owners do.

    keys:
    - id: k3v9q2m7xa
      name: line-4
      hash: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      publish: ["plant-7/line-4/#"]
      subscribe: []
      scopes: []
      created_at: 2026-01-31T12:00:00Z
      expires_at: 2026-05-01T12:00:00Z

A key is ``tg_<id>_<secret>``: a beginning that scanners for leaked secrets find, the id, and 256 random bits
with a checksum, so that a key that was cut off or mistyped is told apart from a wrong one.

The secret's SHA-256 is kept, with no salt and no slow function: those protect passwords, which can be
guessed. 256 random bits cannot, neither one by one nor from a table.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, Field, PlainValidator, StrictStr

from app.security.grant_lists import read_grants, read_known_scopes, written_grants
from app.security.grants import Grant
from app.security.record_files import Record, read_records, rewritten

PREFIX: Final = b"tg_"
_MEMBER: Final = "keys"
_DIGITS: Final = string.digits + string.ascii_letters
_ID_DIGITS: Final = string.digits + string.ascii_lowercase
_SECRET_LENGTH: Final = 43
"""Digits of base 62 for 256 bits."""

_parts: Final = re.compile(rb"tg_([0-9a-z]{10})_([0-9A-Za-z]{49})").fullmatch

ListOfGrants = Annotated[tuple[Grant, ...], PlainValidator(read_grants)]
Scopes = Annotated[frozenset[str], PlainValidator(read_known_scopes)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class KeyRecord(Record):
    """An API key without its secret; times have a zone."""

    id: Annotated[StrictStr, Field(pattern="^[0-9a-z]{10}$")]
    name: Name
    hash: Annotated[StrictStr, Field(pattern="^sha256:[0-9a-f]{64}$")]
    publish: ListOfGrants = ()
    subscribe: ListOfGrants = ()
    scopes: Scopes = frozenset()
    created_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    comment: StrictStr = ""

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the secret."""
        return bytes.fromhex(self.hash.removeprefix("sha256:"))

    @property
    def allows(self) -> tuple[Any, ...]:
        """Whom it stands for and what that one may do; not until when, and a comment is worth nothing."""
        return (self.name, self.hash, self.publish, self.subscribe, self.scopes)


def make_key() -> tuple[str, str, str]:
    """A new key: the whole text, its id, and the hash to keep."""
    key_id = "".join(secrets.choice(_ID_DIGITS) for _ in range(10))
    head = f"tg_{key_id}_{_base62(secrets.randbits(256), _SECRET_LENGTH)}"
    text = head + _checksum(head.encode())
    return text, key_id, f"sha256:{hash_of(text.split('_')[2].encode()).hex()}"


def split_key(text: bytes) -> tuple[str, bytes] | None:
    """The id of a key and its secret, with the checksum; None where the text is none."""
    parts = _parts(text)
    return None if parts is None else (parts[1].decode(), parts[2])


def is_whole(text: bytes) -> bool:
    """Whether a text is a key as it was made, known or not: its checksum fits."""
    return _parts(text) is not None and _checksum(text[:-6]).encode() == text[-6:]


def hash_of(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret).digest()


def read_keys(text: bytes, file: Path) -> list[KeyRecord]:
    """The keys of a file.

    Raises:
        ValueError: it cannot be used, or an id stands there twice; the text has the file and the reason.
    """
    records = read_records(text, file, KeyRecord, _MEMBER)
    seen: set[str] = set()
    for each in records:
        if each.id in seen:
            raise ValueError(f"{file}: the id {each.id} is there twice")
        seen.add(each.id)
    return records


def rewritten_keys(file: Path) -> AbstractContextManager[list[KeyRecord]]:
    """The keys of a file, to be changed under its lock (``rewritten``)."""
    return rewritten(file, KeyRecord, _MEMBER, _members)


def find_keys(records: list[KeyRecord], wanted: str) -> list[KeyRecord]:
    """The keys with an id or a name that are not revoked."""
    return [each for each in records if wanted in (each.id, each.name) and each.revoked_at is None]


def now() -> datetime:
    """The time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _members(record: KeyRecord) -> dict[str, Any]:
    members: Mapping[str, Any] = {
        "id": record.id,
        "name": record.name,
        "hash": record.hash,
        "publish": written_grants(record.publish),
        "subscribe": written_grants(record.subscribe),
        "scopes": sorted(record.scopes),
        "created_at": written_time(record.created_at),
        "expires_at": written_time(record.expires_at),
        "revoked_at": written_time(record.revoked_at),
        "comment": record.comment or None,
    }
    return {name: value for name, value in members.items() if value is not None}


def written_time(moment: datetime | None) -> str | None:
    """A time as the files have it: ``2026-01-31T12:00:00Z``."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _checksum(head: bytes) -> str:
    return _base62(zlib.crc32(head), 6)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
