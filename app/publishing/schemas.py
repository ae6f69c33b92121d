"""JSON Schemas bound to topic filters: what a payload has to be, on the way out and on the way in.

Rules:

1. Every entry with a filter that matches the topic has to hold.
2. A payload under a schema is JSON; one that is not is invalid.
3. An empty payload that clears a retained message passes. Of what the broker delivers, any empty one does: a
   clearing reaches those who follow the topic as a live message (MQTT 5 §3.3.1.3).
4. Who publishes is told what is wrong; what the broker delivers is flagged or dropped, as the entry says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from app.hub.event import Fault
from app.problems import ProblemError, ProblemType, json_pointer
from tidegate.message import Message
from tidegate.topics import FilterIndex

MAX_TOPICS: Final = 10_000
"""Topics whose schemas are remembered; with one more all are forgotten, and found again."""

MAX_POINTER_CHARACTERS: Final = 500
MAX_REASON_CHARACTERS: Final = 300
"""A payload has names and values of any length, and what is said of it stands in headers and events too."""


class Violation(Protocol):
    """What a validator finds wrong with a value."""

    @property
    def message(self) -> str:
        """In words."""

    @property
    def instance_path(self) -> Sequence[str | int]:
        """Where in the value."""


class Validator(Protocol):
    """A schema, ready to judge values."""

    def is_valid(self, instance: Any, /) -> bool:
        """Whether a value matches."""

    def iter_errors(self, instance: Any, /) -> Iterator[Violation]:
        """What is wrong with a value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One schema and the topics that it holds for.

    Attributes:
        number: its place in the file, from 1.
        filters: topic filters, valid, none of them shared.
        validator: the schema.
        drops: what the broker delivers and does not match is dropped; else it is flagged.
    """

    number: int
    filters: tuple[str, ...]
    validator: Validator
    drops: bool

    def __str__(self) -> str:
        return f"entry {self.number} ({', '.join(self.filters)})"


class Schemas:
    """All entries.

    Args:
        entries: in the order of the file.

    Attributes:
        refused: how many publishes did not match.
        flagged: how many deliveries did not match and went on with a flag.
        dropped: how many did not match and went no further.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        self._index = FilterIndex[int]()
        for place, entry in enumerate(self._entries):
            for topic_filter in entry.filters:
                self._index.add(topic_filter, place)
        self._of_topics: dict[str, tuple[Entry, ...]] = {}
        self.refused = 0
        self.flagged = 0
        self.dropped = 0

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def check(self, message: Message) -> None:
        """Check a message to publish; a check of ``Gate``.

        Raises:
            ProblemError: SCHEMA_MISMATCH, with a JSON pointer into the payload.
        """
        entries = self._for(message.topic)
        if not entries or (message.retain and not message.payload):
            return
        found = next(_faults(entries, message.payload), None)
        if found is None:
            return
        entry, pointer, reason = found
        self.refused += 1
        raise ProblemError(
            ProblemType.SCHEMA_MISMATCH,
            f"{pointer or 'the payload'}: {reason}; nothing was sent",
            field=pointer,
            hint=f"the schema is that of {entry} in the bridge's TIDEGATE_SCHEMAS_FILE",
        )

    def judge(self, message: Message) -> Fault | None:
        """What is wrong with a message that the broker delivered; None where nothing is."""
        entries = self._for(message.topic)
        if not entries or not message.payload:
            return None
        first: Fault | None = None
        for entry, pointer, reason in _faults(entries, message.payload):
            if entry.drops:
                self.dropped += 1
                return Fault(pointer, reason, is_dropped=True)
            if first is None:
                first = Fault(pointer, reason)
        if first is not None:
            self.flagged += 1
        return first

    def _for(self, topic: str) -> tuple[Entry, ...]:
        found = self._of_topics.get(topic)
        if found is None:
            places = sorted(set(self._index.match(topic)))
            found = tuple(self._entries[place] for place in places)
            if len(self._of_topics) >= MAX_TOPICS:
                self._of_topics.clear()
            self._of_topics[topic] = found
        return found


def _faults(entries: Sequence[Entry], payload: bytes) -> Iterator[tuple[Entry, str, str]]:
    """The entries that a payload does not match, each with a JSON pointer to a fault, and the reason."""
    try:
        value = orjson.loads(payload)
    except ValueError as error:
        for entry in entries:
            yield entry, "", f"it is not JSON, and its schema asks for JSON: {error}"
        return
    for entry in entries:
        try:
            if not entry.validator.is_valid(value):
                violation = next(iter(entry.validator.iter_errors(value)))
                yield entry, _pointer(violation.instance_path), _shorten(violation.message)
        except ValueError as error:
            yield entry, "", _shorten(f"it cannot be compared with its schema: {error}")


def _pointer(path: Sequence[str | int]) -> str:
    """Where the fault is, or the last place on the way there whose pointer is not too long."""
    pointer = ""
    for step in path:
        longer = pointer + json_pointer([step])
        if len(longer) > MAX_POINTER_CHARACTERS:
            break
        pointer = longer
    return pointer


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_REASON_CHARACTERS else f"{text[: MAX_REASON_CHARACTERS - 1]}…"
