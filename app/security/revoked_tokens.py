"""Tokens that hold no more, though their time is not over: the file ``TIDEGATE_REVOKED_TOKENS_FILE``.

    revoked_tokens:
    - jti: 0b5c2f7e
    - sub: line-4
      before: 2026-01-31T12:00:00Z

An entry names one token by its ``jti``, or those of a subject that were issued before a time; without a time,
all of them. A token that does not say when it was issued counts as issued before any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AwareDatetime, Field, StrictStr, model_validator

from app.security.claims import TokenPrincipal
from app.security.key_records import written_time
from app.security.record_files import Record, read_records, rewritten
from app.security.watched_file import WatchedFile

_MEMBER: Final = "revoked_tokens"


class Revocation(Record):
    """One entry."""

    jti: Annotated[StrictStr, Field(min_length=1)] | None = None
    sub: Annotated[StrictStr, Field(min_length=1)] | None = None
    before: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    comment: StrictStr = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.jti is None) == (self.sub is None):
            raise ValueError("an entry has either 'jti' or 'sub'")
        if self.jti is not None and self.before is not None:
            raise ValueError("'before' goes with 'sub'; one token has one jti")
        return self


@dataclass(frozen=True, slots=True)
class Revoked:
    """All entries.

    Attributes:
        ids: revoked ``jti``.
        subjects: for a subject, before which time its tokens were issued, in seconds since 1970.
    """

    ids: frozenset[str]
    subjects: Mapping[str, float]

    def has(self, principal: TokenPrincipal) -> bool:
        """Whether the token of a principal is revoked."""
        if principal.credential_id in self.ids:
            return True
        before = self.subjects.get(principal.subject)
        return before is not None and (principal.issued_at is None or principal.issued_at < before)


def watched_revocations(file: Path) -> WatchedFile[Revoked]:
    """The entries of a file, as they are now.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def parse(text: bytes, _: Revoked | None) -> Revoked:
        records = read_records(text, file, Revocation, _MEMBER)
        subjects: dict[str, float] = {}
        for each in records:
            if each.sub is not None:
                before = float("inf") if each.before is None else each.before.timestamp()
                subjects[each.sub] = max(before, subjects.get(each.sub, before))
        return Revoked(frozenset(each.jti for each in records if each.jti is not None), subjects)

    return WatchedFile(file, parse)


def rewritten_revocations(file: Path) -> AbstractContextManager[list[Revocation]]:
    """The entries of a file, to be changed under its lock (``rewritten``)."""
    return rewritten(file, Revocation, _MEMBER, _members)


def _members(record: Revocation) -> dict[str, Any]:
    members = {
        "jti": record.jti,
        "sub": record.sub,
        "before": written_time(record.before),
        "revoked_at": written_time(record.revoked_at),
        "comment": record.comment or None,
    }
    return {name: value for name, value in members.items() if value is not None}
