"""What subjects of client certificates may do: the file ``TIDEGATE_SUBJECTS_FILE``.

    subjects:
    - subject: CN=press-7,O=Plant
      name: press-7
      publish: ["presses/{sub}/#"]

``name`` is the principal's, and what ``{sub}`` stands for; without it that is the whole subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StrictStr

from app.security.grants import Grants
from app.security.key_records import ListOfGrants, Name, Scopes
from app.security.principal import Principal, Source
from app.security.record_files import Record, read_records
from app.security.watched_file import WatchedFile

_MEMBER: Final = "subjects"

Subjects = Mapping[str, Principal]
"""The principal of each subject."""


class SubjectRecord(Record):
    """One entry."""

    subject: Annotated[StrictStr, Field(min_length=1, max_length=1024)]
    name: Name | None = None
    publish: ListOfGrants = ()
    subscribe: ListOfGrants = ()
    scopes: Scopes = frozenset()
    comment: StrictStr = ""


def watched_subjects(file: Path) -> WatchedFile[Subjects]:
    """The subjects of a file, as they are now.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    records: dict[str, SubjectRecord] = {}

    def parse(text: bytes, before: Subjects | None) -> Subjects:
        read: dict[str, SubjectRecord] = {}
        for each in read_records(text, file, SubjectRecord, _MEMBER):
            if each.subject in read:
                raise ValueError(f"{file}: the subject {each.subject!r} is there twice")
            read[each.subject] = each
        made = {
            subject: before[subject]
            if before is not None and records.get(subject) == record
            else _principal(record)
            for subject, record in read.items()
        }
        records.clear()
        records.update(read)
        return made

    return WatchedFile(file, parse)


def _principal(record: SubjectRecord) -> Principal:
    name = record.name or record.subject
    return Principal(
        name,
        Source.CLIENT_CERTIFICATE,
        Grants(record.publish, record.subscribe, subject=name),
        record.scopes,
        None,
        record.subject,
    )
