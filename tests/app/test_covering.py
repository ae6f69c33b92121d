"""Whether a filter covers another, held against all the topics that there are."""

from __future__ import annotations

import itertools
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.security.covering import covers
from tidegate.errors import TopicError
from tidegate.topics import matches, validate_filter

_NAMES: Final = ("a", "b", "", "$s")
_TOPICS: Final = [
    "/".join(levels)
    for depth in range(1, 5)
    for levels in itertools.product((*_NAMES, "other"), repeat=depth)
    if levels != ("",)
]
"""All topics of up to four levels, with a level that no filter below names."""


def is_filter(text: str) -> bool:
    """Whether MQTT allows it."""
    try:
        validate_filter(text)
    except TopicError:
        return False
    return True


filters: Final = (
    st.lists(st.sampled_from((*_NAMES, "+", "+")), min_size=1, max_size=3)
    .flatmap(lambda levels: st.sampled_from((levels, [*levels[:-1], "#"])))
    .map("/".join)
    .filter(is_filter)
)


@given(filters, filters)
@settings(max_examples=600, deadline=None)
@example("+/#", "#")
@example("#", "+/#")
@example("a/+/#", "a/#")
def test_one_filter_covers_another_where_it_matches_all_that_the_other_does(granted: str, asked: str) -> None:
    """Brute force: every topic that the one matches, and the other does not, is a counter-example."""
    escaped = [each for each in _TOPICS if matches(asked, each) and not matches(granted, each)]
    assert (not escaped) == covers(granted, asked), escaped[:3]


@given(filters, filters)
@settings(deadline=None)
def test_a_shared_subscription_is_covered_as_its_filter_is(granted: str, asked: str) -> None:
    """The share name gives nothing and takes nothing."""
    assert covers(granted, asked) == covers(granted, f"$share/group/{asked}")


@pytest.mark.parametrize(
    ("granted", "asked"),
    [
        ("a/b/#", "a/+/c"),
        ("a/b/#", "+/b/x"),
        ("a/b/#", "#"),
        ("a/b/#", "a/#"),
        ("a/+", "a/#"),
        ("a/+", "a"),
        ("a/+", "a//b"),
        ("a/b", "A/b"),
        ("a/b", "a/b/"),
        ("a/b", "/a/b"),
        ("a/b/#", "$share/g/a/#"),
        ("a/b/#", "$share/a/b/#"),
        ("#", "$SYS/#"),
        ("+/x", "$SYS/x"),
        ("#", "$share/g/$SYS/#"),
        ("e\u0301", "\u00e9"),
    ],
)
def test_tricks_with_overlapping_filters_get_nothing(granted: str, asked: str) -> None:
    """Each of these would deliver something that the grant does not name."""
    assert not covers(granted, asked)


@pytest.mark.parametrize(
    ("granted", "asked"),
    [
        ("a/#", "a"),
        ("a/#", "a/+/b"),
        ("a/#", "$share/g/a/+"),
        ("+/+", "a/+"),
        ("+/+", "/"),
        ("$SYS/#", "$SYS/broker/+"),
        ("a//+", "a//b"),
    ],
)
def test_what_a_grant_covers(granted: str, asked: str) -> None:
    """Filters that look different, and ask for no more than the grant gives."""
    assert covers(granted, asked)
