"""Which filters an id belongs to, and which of others are new."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from app.hub.filter_sets import FilterSets, digest_of

FILTERS = st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=5), max_size=6)


@given(FILTERS, st.randoms())
def test_the_order_does_not_count(filters: list[str], random: Random) -> None:
    """Nor does a filter that is named twice."""
    others = [*filters, *filters[:2]]
    random.shuffle(others)
    assert digest_of(filters) == digest_of(others)


@given(FILTERS, FILTERS)
def test_other_filters_have_another_digest(some: list[str], others: list[str]) -> None:
    """Also where they are the same when written one after the other."""
    assert (digest_of(some) == digest_of(others)) == (set(some) == set(others))


def test_what_was_added_is_known_of_sets_of_late() -> None:
    """With fewer filters nothing was; with others the new ones alone; after an unknown set all of them."""
    sets = FilterSets()
    digest = sets.remember(("a", "b"))
    assert sets.added(("b",), digest) == set()
    assert sets.added(("b", "a"), digest) == set()
    assert sets.added(("b", "c"), digest) == {"c"}
    assert sets.added(("b", "a"), "00000000") == {"a", "b"}


def test_the_memory_is_bounded() -> None:
    """The set that was used longest ago goes first; one too large for all of it is not kept at all."""
    sets = FilterSets(max_characters=3000)
    digests = [sets.remember((f"filter/{number}",)) for number in range(100)]
    assert 2 <= len(sets) < 10
    assert sets.added(("filter/99",), digests[99]) == set()
    assert sets.added(("filter/0",), digests[0]) == {"filter/0"}
    oldest = 100 - len(sets)
    sets.remember((f"filter/{oldest}",))
    sets.remember(("another",))
    assert sets.added((f"filter/{oldest}",), digests[oldest]) == set()
    assert sets.added((f"filter/{oldest + 1}",), digests[oldest + 1]) == {f"filter/{oldest + 1}"}
    large = ("x" * 4000,)
    assert sets.added(large, sets.remember(large)) == set(large)
    assert len(sets) == 0
