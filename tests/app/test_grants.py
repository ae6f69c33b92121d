"""Grants: topics, QoS and the retain flag, and the subject in their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.security.grants import EveryGrant, Grant, Grants
from tidegate.topics import matches


def test_one_grant_has_to_allow_all_that_is_asked() -> None:
    """What one grant gives of the QoS, and another of the retain flag, does not add up."""
    grants = Grants([Grant("a/#", max_qos=0), Grant("a/b", max_qos=2, may_retain=False)])
    assert grants.why_not_publish("a/b", 0, retain=True) is None
    assert grants.why_not_publish("a/b", 2, retain=False) is None
    assert grants.why_not_publish("a/b", 2, retain=True) == "no grant allows retained messages there"
    assert grants.why_not_publish("a/c", 1, retain=False) == "QoS 0 is the highest that is granted"
    assert grants.why_not_publish("b", 0, retain=False) == "no grant covers it"


def test_publishing_and_following_are_granted_apart() -> None:
    """A grant to the one is none to the other."""
    grants = Grants([Grant("in/#")], [Grant("out/#", max_qos=1)])
    assert grants.why_not_publish("out/x", 0, retain=False) == "no grant covers it"
    assert grants.why_not_subscribe("in/x", 0) == "no grant covers it"
    assert grants.why_not_subscribe("out/+", 1) is None
    assert grants.why_not_subscribe("out/+", 2) == "QoS 1 is the highest that is granted"


def test_what_is_remembered_is_what_was_allowed() -> None:
    """The answer for a topic is kept; another QoS, or the retain flag, is another question."""
    grants = Grants([Grant("a", max_qos=1, may_retain=False)])
    for _ in range(2):
        assert grants.why_not_publish("a", 1, retain=False) is None
        assert grants.why_not_publish("a", 2, retain=False) is not None
        assert grants.why_not_publish("a", 1, retain=True) is not None
    for number in range(1000):
        assert grants.why_not_publish(f"b/{number}", 0, retain=False) is not None


def test_no_grants_allow_nothing() -> None:
    """A principal without grants may neither publish nor follow."""
    assert Grants().why_not_publish("a", 0, retain=False) is not None
    assert Grants().why_not_subscribe("a", 0) is not None


def test_the_subject_stands_in_its_place() -> None:
    """``{sub}`` is replaced wherever it is, also in a part of a level."""
    grants = Grants([Grant("devices/{sub}/#")], [Grant("out-{sub}/+")], subject="d-7")
    assert grants.why_not_publish("devices/d-7/t", 1, retain=True) is None
    assert grants.why_not_publish("devices/d-8/t", 1, retain=True) is not None
    assert grants.why_not_subscribe("out-d-7/+", 0) is None
    assert [each.topic_filter for each in grants.publish] == ["devices/d-7/#"]


@pytest.mark.parametrize(
    "subject", ["", "a/b", "+", "#", "a+", "x#", "$SYS", "a\x00", "\ud800", "x" * 65_534]
)
def test_a_subject_cannot_widen_a_grant(subject: str) -> None:
    """One that is not a plain level gets nothing from a grant that names it; other grants hold."""
    grants = Grants([Grant("{sub}/#"), Grant("devices/{sub}"), Grant("open")], subject=subject)
    assert [each.topic_filter for each in grants.publish] == ["open"]


@given(st.text(alphabet="ab/+#$", max_size=4))
def test_a_grant_by_subject_never_reaches_beyond_it(subject: str) -> None:
    """Whatever the subject, the grant covers nothing but topics with exactly that second level."""
    grants = Grants([], [Grant("d/{sub}/#")], subject=subject)
    for asked in ("d/#", "#", "+/a/#", "d/+/x", "d/a", "d/b/c"):
        if grants.why_not_subscribe(asked, 0) is None:
            assert subject in ("a", "b")
            assert matches(f"d/{subject}/#", asked)


@pytest.mark.parametrize(
    ("topic_filter", "words"),
    [
        ("a/#/b", "must be the last level"),
        ("", "at least one character"),
        ("$share/g/a", "grant the filter behind"),
        ("a+", "must be alone in its level"),
    ],
)
def test_a_grant_is_a_filter(topic_filter: str, words: str) -> None:
    """What is no filter is refused when the grant is made, and not silently without meaning."""
    with pytest.raises(ValueError, match=words):
        Grant(topic_filter)


def test_topics_of_the_broker_need_a_grant_that_names_them() -> None:
    """``#`` gives nothing that begins with ``$``, to publish as to follow."""
    grants = Grants([Grant("#")], [Grant("#")])
    assert grants.why_not_publish("$SYS/x", 0, retain=False) is not None
    assert grants.why_not_subscribe("$SYS/#", 0) is not None
    named = Grants([Grant("$aws/things/{sub}/#")], [Grant("$SYS/#")], subject="t")
    assert named.why_not_publish("$aws/things/t/shadow/update", 0, retain=False) is None
    assert named.why_not_subscribe("$SYS/broker/+", 0) is None


def test_without_authentication_all_is_granted_but_topics_of_the_broker() -> None:
    """Whoever reaches such a bridge may do what the broker lets it."""
    grants = EveryGrant()
    assert grants.why_not_publish("a/b", 2, retain=True) is None
    assert grants.why_not_publish("$SYS/a", 0, retain=False) is not None
    assert grants.why_not_subscribe("$share/g/$SYS/#", 2) is None
