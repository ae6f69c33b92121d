"""The sets of filters that streams follow, each under a short digest that stands in their ids.

Rules:

1. The same filters have the same digest, in whatever order they are named: a client that comes back with them
   is known by its id alone.
2. The sets of late are remembered, so that of other filters the new ones can be told. Of a set that is not
   remembered any more all filters count as new: a gap too many, and none too few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from hashlib import blake2b
from typing import Final

MAX_CHARACTERS: Final = 1024 * 1024
"""What the filters of all remembered sets may have together; the set used longest ago goes first."""

_COST_OF_A_FILTER: Final = 50
_COST_OF_A_SET: Final = 300


def digest_of(filters: Collection[str]) -> str:
    """Eight hexadecimal digits that tell one set of filters from another."""
    names = "\0".join(sorted(set(filters)))  # no filter holds U+0000 (MQTT 5 §4.7.3)
    return blake2b(names.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


class FilterSets:
    """The sets of late.

    Args:
        max_characters: about how many characters they may take.
    """

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._max_characters = max_characters
        self._characters = 0
        self._by_digest: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_digest)

    def remember(self, filters: tuple[str, ...]) -> str:
        """Remember a set, and return its digest."""
        digest = digest_of(filters)
        known = self._by_digest.pop(digest, None)
        self._by_digest[digest] = filters
        self._characters += _cost(filters) - (0 if known is None else _cost(known))
        while self._characters > self._max_characters and self._by_digest:
            _, oldest = self._by_digest.popitem(last=False)
            self._characters -= _cost(oldest)
        return digest

    def added(self, filters: Collection[str], digest: str) -> set[str]:
        """Those of some filters that are not in the set with this digest; all, where that is not known."""
        return set(filters).difference(self._by_digest.get(digest, ()))


def _cost(filters: tuple[str, ...]) -> int:
    return _COST_OF_A_SET + sum(len(each) + _COST_OF_A_FILTER for each in filters)
