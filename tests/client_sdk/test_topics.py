from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import TopicError
from tidegate.topics import (
    FilterIndex,
    matches,
    parse_named_levels,
    split_share,
    validate_filter,
    validate_topic,
)

LEVELS = ["", "a", "b", "A", "$SYS", "$a", "é", " ", "{a}"]

topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4).map("/".join).filter(bool)
plain_filters = (
    st.tuples(
        st.lists(st.sampled_from([*LEVELS, "+", "+", "+"]), max_size=4),
        st.sampled_from([[], ["#"]]),
    )
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)
filters = plain_filters | plain_filters.map("$share/group/{}".format)


def is_match(wanted: tuple[str, ...], found: tuple[str, ...]) -> bool:
    """The rules of MQTT 5 §4.7.1, level by level, as literally as they can be written."""
    match wanted, found:
        case ((), ()) | (("#",), _):
            return True
        case ((first, *rest), (level, *others)) if first in ("+", level):
            return is_match(tuple(rest), tuple(others))
        case _:
            return False


def should_match(topic_filter: str, topic: str) -> bool:
    """What §4.7 and §4.8.2 say of whole texts."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    if topic[0] == "$" and topic_filter[0] != "$":
        return False
    return is_match(tuple(topic_filter.split("/")), tuple(topic.split("/")))


@given(filters, topics)
def test_matches_agrees_with_the_rules(topic_filter: str, topic: str) -> None:
    """A filter matches exactly the topics that the rules of §4.7, taken literally, give it."""
    assert should_match(topic_filter, topic) is matches(topic_filter, topic)


@given(topics)
def test_a_topic_matches_itself(topic: str) -> None:
    """A topic name taken as a filter matches that topic."""
    assert matches(topic, topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        # §4.7.1.2, the examples of the multi-level wildcard
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("sport/#", "sports", False),
        # §4.7.1.3, those of the single-level wildcard
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("+/#", "a", True),
        # §4.7.2: topics that begin with $
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("$SYS/+", "$SYS/uptime", True),
        ("a/+", "a/$SYS", True),
        # §4.7.3: case counts, levels may be empty, nothing is normalised
        ("ACCOUNTS", "Accounts", False),
        ("/finance", "finance", False),
        ("a//b", "a/b", False),
        ("a/+/b", "a//b", True),
        ("\u00e9", "e\u0301", False),
        # §4.8.2: shared subscriptions
        ("$share/g/sport/#", "sport/tennis", True),
        ("$share/g/sport/#", "$share/g/sport/tennis", False),
        ("$share/g//finance", "/finance", True),
        ("$share/g/#", "$SYS/uptime", False),
        ("$share/g/$SYS/+", "$SYS/uptime", True),
    ],
)
def test_the_examples_of_the_standard(topic_filter: str, topic: str, expected: bool) -> None:
    """The examples that MQTT 5 gives in §4.7 and §4.8.2 hold, and their neighbours too."""
    assert expected is matches(topic_filter, topic)


def test_the_longest_topic_is_no_burden() -> None:
    """A topic of 65,536 levels is matched and indexed without recursion, though it may not be sent."""
    topic = "/" * 65_535
    assert matches("+" + topic[1:], topic[1:])
    index = FilterIndex[int]()
    index.add("/" * 65_533 + "/#", 1)
    assert [1] == index.match(topic)
    index.discard("/" * 65_533 + "/#", 1)
    assert [] == index.match(topic)


# Text that neither a topic name nor a filter may be, and what the refusal must say (§4.7.3, §1.5.4).
BAD_TEXT = [
    ("", "at least one character"),
    ("a/\x00/b", "U.0000 .* character 3 of 5"),
    ("a\nb", "U.000A .* character 2 of 3"),
    ("\x1f", "U.001F .* character 1 of 1"),
    ("ab\x7f", "U.007F .* character 3 of 3"),
    ("\x80a", "U.0080 .* character 1 of 2"),
    ("a\x9f", "U.009F .* character 2 of 2"),
    ("a\ud800", "lone surrogate U.D800 .* character 2 of 2"),
    ("\udfffa", "lone surrogate U.DFFF .* character 1 of 2"),
    ("a\ufffe", "non-character U.FFFE .* character 2 of 2"),
    ("a\ufdd0", "non-character U.FDD0 .* character 2 of 2"),
    ("\U0010ffff", "non-character U.10FFFF .* character 1 of 1"),
    ("/" * 201, "has 201 slashes"),
    ("a\uffff", "non-character U.FFFF .* character 2 of 2"),
    ("a" * 65_536, "65,536 bytes"),
    ("é" * 32_768, "65,536 bytes"),
    ("\U0001f600" * 16_384, "65,536 bytes"),
    ("a" * 20_000 + "\n", "U.000A .* character 20,001 of 20,001"),
]

# Text at the edge of what is allowed, for a topic name and a filter alike.
GOOD_TEXT = [
    "a",
    "/",
    "//",
    " ",
    "a b/c",
    "/a/",
    "$SYS/broker",
    "$",
    "~\xa0",
    "\ud7ff\ue000\ufffd",
    "\ufeff",
    "\U0001f600",
    "sensors/{id}",
    "a" * 65_535,
    "é" * 32_767 + "a",
    "\U0001f600" * 16_383 + "abc",
]


@pytest.mark.parametrize(("text", "reason"), BAD_TEXT)
def test_a_topic_name_is_refused(text: str, reason: str) -> None:
    """A topic name that MQTT forbids is refused, and the refusal says what is wrong and where."""
    with pytest.raises(TopicError, match=reason) as caught:
        validate_topic(text)
    assert text == caught.value.topic


@pytest.mark.parametrize(("text", "reason"), BAD_TEXT)
def test_a_filter_is_refused_for_its_text(text: str, reason: str) -> None:
    """A topic filter may hold no character, and have no length, that a topic name may not."""
    with pytest.raises(TopicError, match=reason) as caught:
        validate_filter(text)
    assert text == caught.value.topic


@pytest.mark.parametrize("text", GOOD_TEXT)
def test_text_at_the_edge_is_allowed(text: str) -> None:
    """What stands just inside the limits is a topic name and a filter."""
    validate_topic(text)
    validate_filter(text)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("a/+", r"wildcard '\+' \(U.002B\) .* character 3 of 3"),
        ("a/#", r"wildcard '#' \(U.0023\) .* character 3 of 3"),
        ("a+b", "character 2 of 3"),
        ("a/b#", "character 4 of 4"),
    ],
)
def test_a_topic_name_has_no_wildcard(topic: str, reason: str) -> None:
    """Wildcards belong to filters: a topic name that holds one is refused (§3.3.2.1)."""
    with pytest.raises(TopicError, match=reason):
        validate_topic(topic)


@pytest.mark.parametrize(
    ("topic_filter", "reason"),
    [
        ("a#", "alone in its level: character 2 of 2"),
        ("#a", "alone in its level: character 1 of 2"),
        ("##", "alone in its level: character 1 of 2"),
        ("#/a", "last level: character 1 of 3"),
        ("#/", "last level: character 1 of 2"),
        ("a/#/b", "last level: character 3 of 5"),
        ("a+", "alone in its level: character 2 of 2"),
        ("+a/b", "alone in its level: character 1 of 4"),
        ("a/++/b", "alone in its level: character 3 of 6"),
        ("a/+#", "alone in its level: character 3 of 4"),
        ("$share", "share name must follow"),
        ("$share/", "share name must follow"),
        ("$share//a", "share name must follow"),
        ("$share/g", "topic filter must follow .* at the end"),
        ("$share/g/", "topic filter must follow .* at the end"),
        ("$share/g+/a", "share name: character 9 of 11"),
        ("$share/#/a", "share name: character 8 of 10"),
        ("$share/g/a+", "alone in its level: character 11 of 11"),
        ("$share/g/#/a", "last level: character 10 of 12"),
        ("$share/g/$share/h/a", "shared again: character 10 of 19"),
        ("$share/g/a\x00", "U.0000"),
    ],
)
def test_a_filter_is_refused_for_its_wildcards_or_share(topic_filter: str, reason: str) -> None:
    """A wildcard out of place (§4.7.1) and a shared subscription without its parts (§4.8.2) are refused."""
    with pytest.raises(TopicError, match=reason):
        validate_filter(topic_filter)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+",
        "+/#",
        "/#",
        "a/+/b/#",
        "+/+/+",
        "$SYS/#",
        "$share/g/#",
        "$share/g/+",
        "$share/g//",
        "$shared",
    ],
)
def test_a_filter_may_have_wildcards(topic_filter: str) -> None:
    """Wildcards in their places, and shared subscriptions with their parts, are allowed."""
    validate_filter(topic_filter)


@given(filters)
def test_a_filter_made_by_the_rules_is_valid(topic_filter: str) -> None:
    """Whatever is built of levels and wildcards in their places passes."""
    validate_filter(topic_filter)


@given(st.text(st.characters(exclude_categories=()), max_size=8))
def test_a_valid_topic_name_is_a_valid_filter_or_a_share(text: str) -> None:
    """What may be published to may be subscribed to as it is, but for what ``$share`` means in a filter."""
    try:
        validate_topic(text)
    except TopicError:
        return
    if text != "$share" and not text.startswith("$share/"):
        validate_filter(text)


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/b", (None, "a/b")),
        ("$share/g/a/#", ("g", "a/#")),
        ("$share/g//a", ("g", "/a")),
        ("$shared/g/a", (None, "$shared/g/a")),
        ("$SHARE/g/a", (None, "$SHARE/g/a")),
        ("$share/g", (None, "$share/g")),
    ],
)
def test_a_shared_subscription_is_parted(topic_filter: str, expected: tuple[str | None, str]) -> None:
    """A shared subscription is parted into its name and its filter, and nothing else is."""
    assert expected == split_share(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("sensors/{sensor_id}/temperature", ("sensors/+/temperature", ((1, "sensor_id"),))),
        ("{site}/+/{device}/#", ("+/+/+/#", ((0, "site"), (2, "device")))),
        ("$share/g/{site}/x", ("$share/g/+/x", ((0, "site"),))),
        ("$share/{g}/x", ("$share/{g}/x", ())),
        ("a/x{b}/{c}d/{e}{f}/{", ("a/x{b}/{c}d/{e}{f}/{", ())),
        ("{größe}", ("+", ((0, "größe"),))),
        ("a/b", ("a/b", ())),
    ],
)
def test_named_levels_become_wildcards(
    topic_filter: str, expected: tuple[str, tuple[tuple[int, str], ...]]
) -> None:
    """A level that is a name in braces becomes ``+`` and is reported; other braces are text."""
    assert expected == parse_named_levels(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "reason"),
    [
        ("a/{}", "'' names level 2"),
        ("a/{b c}", "'b c' names level 2"),
        ("{1}/a", "'1' names level 1"),
        ("{rest...}", "'rest...' names level 1"),
        ("{class}", "'class' names level 1"),
        ("{a}/b/{a}", "'a' names level 1 and level 3"),
        ("{a}/#/b", "last level"),
        ("", "at least one character"),
    ],
)
def test_a_level_needs_a_usable_name(topic_filter: str, reason: str) -> None:
    """A name that no argument can have, or that is there twice, is refused; so is a bad filter."""
    with pytest.raises(TopicError, match=reason):
        parse_named_levels(topic_filter)


operations = st.lists(st.tuples(st.sampled_from(["add", "discard"]), filters, st.integers(0, 2)), max_size=40)


def count_empty_nodes(index: FilterIndex[int]) -> int:
    """How many nodes of the trie lead to no value."""
    nodes = list(index._root.children.values())
    empty = 0
    while nodes:
        node = nodes.pop()
        empty += not node.values and not node.children
        nodes.extend(node.children.values())
    return empty


@given(operations, st.lists(topics, min_size=1, max_size=10))
def test_an_index_finds_what_matching_every_filter_finds(
    todo: list[tuple[str, str, int]], published: list[str]
) -> None:
    """After any additions and removals an index finds what a search of all its filters finds."""
    index = FilterIndex[int]()
    expected: set[tuple[str, int]] = set()
    for operation, topic_filter, value in todo:
        if operation == "add":
            index.add(topic_filter, value)
            expected.add((topic_filter, value))
        else:
            index.discard(topic_filter, value)
            expected.discard((topic_filter, value))
        assert len(expected) == len(index)
    assert 0 == count_empty_nodes(index)
    for topic in published:
        wanted = sorted(value for topic_filter, value in expected if should_match(topic_filter, topic))
        assert wanted == sorted(index.match(topic))


@given(st.lists(st.tuples(filters, st.integers(0, 2)), max_size=20), st.randoms(use_true_random=False))
def test_an_emptied_index_keeps_nothing(pairs: list[tuple[str, int]], random: Random) -> None:
    """When the last filter is gone, in whatever order, no node is left."""
    index = FilterIndex[int]()
    for topic_filter, value in pairs:
        index.add(topic_filter, value)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    for topic_filter, value in shuffled:
        index.discard(topic_filter, value)
    assert {} == index._root.children
    assert 0 == len(index)


def test_a_discard_leaves_the_longer_and_the_shorter_filter() -> None:
    """Taking a filter away leaves those that begin with it, and those that it begins with."""
    index = FilterIndex[str]()
    for topic_filter in ("a", "a/b", "a/b/c"):
        index.add(topic_filter, topic_filter)
    index.discard("a/b", "a/b")
    index.discard("a/b", "never added")
    index.discard("a/b/x", "never added")
    assert ["a"] == index.match("a")
    assert [] == index.match("a/b")
    assert ["a/b/c"] == index.match("a/b/c")
