"""What is drawn for pairs: topics and filters that overlap on purpose, messages, and interests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.support.twin_messages import Interest, Letter

TOPICS = st.sampled_from(
    ["a", "b", "a/a", "a/b", "b/a", "/", "/a", "a/", "a//b", "a/b/a", "a/b/", "//", "b/b/b", "c"]
)
QOS = st.integers(0, 2)
FILTERS = st.one_of(
    TOPICS,
    st.sampled_from(["#", "+/#", "a/#", "+", "+/+"]),
    st.builds(
        lambda levels, last: "/".join([*levels, last]),
        st.lists(st.sampled_from(["+", "a", "b", ""]), max_size=2),
        st.sampled_from(["#", "+", "a", "b"]),
    ),
)
INTERESTS = st.builds(
    Interest,
    st.lists(FILTERS, min_size=1, max_size=4, unique=True).map(tuple),
    QOS,
    st.sampled_from([True, True, False]),
)
KEEPS = st.sampled_from(["no", "no", "retain", "retain", "clear"])


def one_clearing(letters: list[Letter]) -> list[Letter]:
    """With one clearing of a topic at most: an empty payload is not told from another."""
    first: dict[str, int] = {}
    for index, each in enumerate(letters):
        if each.keep == "clear":
            first.setdefault(each.topic, index)
    return [
        each if each.keep != "clear" or first[each.topic] == index else replace(each, keep="retain")
        for index, each in enumerate(letters)
    ]


def letters(
    fewest: int, most: int, *, qos: st.SearchStrategy[int] = QOS, topics: st.SearchStrategy[str] = TOPICS
) -> st.SearchStrategy[list[Letter]]:
    """Messages to publish."""
    return st.lists(st.builds(Letter, topics, qos, KEEPS), min_size=fewest, max_size=most).map(one_clearing)


def letters_of_one_qos(fewest: int, most: int, *, most_topics: int) -> st.SearchStrategy[list[Letter]]:
    """Messages that keep their order without waiting for one another."""
    return st.tuples(QOS, st.lists(TOPICS, min_size=1, max_size=most_topics)).flatmap(
        lambda drawn: letters(fewest, most, qos=st.just(drawn[0]), topics=st.sampled_from(drawn[1]))
    )
