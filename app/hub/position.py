"""Where a stream stands: what an event's id says, and what a client brings back as ``Last-Event-ID``.

An id is ``EPOCH-SEQUENCE-FILTERS``, and ``EPOCH-SEQUENCE-FILTERS-r`` as long as retained messages of the
stream's beginning may still be on their way. To a client it is opaque.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})-([0-9a-f]{8})(-r)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """One place in the hub's order of events, on the way of one set of filters.

    Attributes:
        epoch: the run of the bridge that counted; another run counts from one again.
        sequence: the number of the last event seen.
        filters: the digest of the filters that were followed up to here; see ``FilterSets``.
        lacks_retained: the retained messages of the beginning may not all have been seen.
    """

    epoch: str
    sequence: int
    filters: str
    lacks_retained: bool = False

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}-{self.filters}{'-r' if self.lacks_retained else ''}"


def parse_position(text: str) -> Position | None:
    """Read an id; None where it is not one of the bridge's."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    return Position(found[1], int(found[2]), found[3], found[4] is not None)
