"""What a listener and its twin must agree on after one step: the rules of ``tests/app/test_twins.py``."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.support.twin_messages import Interest, Publication, Step, retained_after
from tests.support.twin_stream import Seen
from tests.support.twins import Pair

Order = dict[tuple[int, str], list[int]]


class Comparison:
    """The comparison of pairs after one step.

    Args:
        step: the step.
        has_identifiers: whether copies come to the bridge with subscription identifiers.
    """

    def __init__(self, step: Step, *, has_identifiers: bool) -> None:
        self._before = step.before
        self._publications = step.publications
        self._has_joins = step.has_joins
        self._has_identifiers = has_identifiers
        self._found = {(each.topic, each.payload): each for each in step.publications}

    def check(self, pair: Pair) -> tuple[int, int]:
        """Compare a pair that had joined before the step, or joined while nothing was published.

        Returns:
            How many live and how many retained messages both saw.
        """
        interest = pair.interest
        seen, expected = _take(pair)
        self._check_live(interest, _live(seen), _live(expected))
        self._check_retained(interest, _retained(seen), _retained(expected), again=pair.lacked_retained)
        self._check_quality(interest, seen)
        return len(_live(seen)), len(_retained(expected))

    def check_joiner(self, pair: Pair, *, joined_by: int) -> tuple[int, int]:
        """Compare a pair that joined while messages were published.

        Args:
            pair: the pair.
            joined_by: the index of the first message that was published after both had joined.

        Returns:
            How many live and how many retained messages the listener saw.
        """
        interest = pair.interest
        seen, expected = _take(pair)
        live = _live(seen)
        self._check_live(
            interest,
            [each for each in live if self._index(each) >= joined_by],
            [each for each in _live(expected) if self._index(each) >= joined_by],
        )
        self._check_quality(interest, seen)
        assert len(set(live)) == len(live), f"{interest} saw a message twice: {live}"
        for order in self._orders(interest, live).values():
            assert order == sorted(order), f"{interest} saw {live}: not in the order of {self._publications}"
        topics = {each.topic for each in seen} | {each.topic for each in self._publications}
        for topic in topics | self._before.keys():
            self._check_beginning(interest, topic, [each for each in seen if each.topic == topic])
        return len(live), len(_retained(seen))

    def _check_live(self, interest: Interest, seen: list[Seen], expected: list[Seen]) -> None:
        text = _told(interest, seen, expected)
        if self._has_identifiers:
            assert sorted(expected) == sorted(seen), text
        else:
            assert _without_qos(expected) == _without_qos(seen), text
        assert self._orders(interest, expected) == self._orders(interest, seen), text

    def _check_retained(
        self, interest: Interest, seen: list[Seen], expected: list[Seen], *, again: bool
    ) -> None:
        text = _told(interest, seen, expected)
        missing = Counter(_without_qos(expected)) - Counter(_without_qos(seen))
        assert not missing, text
        more = Counter(_without_qos(seen)) - Counter(_without_qos(expected))
        if again:
            published = {each.topic for each in self._publications}
            kept = {topic for topic in self._before if interest.matches(topic)} - published
            assert kept <= {each.topic for each in seen}, text
            assert max(more.values(), default=0) <= 1, text
        else:
            assert not more, text

    def _check_quality(self, interest: Interest, seen: list[Seen]) -> None:
        """What is seen was published or retained; a retained one is for who wants it. The QoS told is that
        of the publication, and at most what was asked for (MQTT 5 §3.8.4).
        """
        for each in seen:
            found = self._found.get((each.topic, each.payload))
            if each.retain and (found is None or not found.is_retained):
                found = self._before.get(each.topic)
            assert found is not None, f"{interest} saw {each}, which nobody published"
            assert found.payload == each.payload, f"{interest} saw {each}, which was not retained"
            assert interest.retained or not each.retain, f"{interest} saw {each}"
            assert interest.matches(each.topic), (interest, each)
            qos = min(found.qos, interest.qos)
            assert each.qos == qos or (each.qos < qos and not self._has_identifiers), (interest, each, found)

    def _check_beginning(self, interest: Interest, topic: str, seen: list[Seen]) -> None:
        """There is one moment before which a topic's messages are not live, and after which all are; the
        retained message is that of this moment.
        """
        retained = [each.payload for each in _retained(seen)]
        live = sorted(self._index(each) for each in _live(seen) if self._keeps_its_place(each))
        matched = interest.matches(topic)
        published = [
            each.index
            for each in self._publications
            if each.topic == topic and matched and self._keeps_its_place(each)
        ]
        told = f"{interest} saw on {topic!r} the retained {retained} and, live, {live} of {published}"
        assert live == published[len(published) - len(live) :], f"{told}: there is a hole, or a double"
        moment = live[0] if live else len(self._publications)
        earlier = [each for each in self._publications if each.index < moment]
        kept = retained_after(self._before, earlier).get(topic) if matched and interest.retained else None
        wanted = [] if kept is None else [kept.payload]
        if self._has_identifiers or all(each.topic != topic for each in self._publications):
            assert retained == wanted, f"{told}; retained was {kept}"
        else:
            assert len(retained) <= 1, told
            assert seen or not wanted, f"{told}; retained was {kept}"

    def _orders(self, interest: Interest, live: list[Seen]) -> Order:
        """The live messages in each order that MQTT promises, by QoS and topic."""
        orders: Order = defaultdict(list)
        for each in live:
            qos = self._publication(each).qos
            if self._keeps_its_place(each):
                orders[qos, each.topic].append(self._index(each))
            if self._has_identifiers and qos <= interest.qos:
                orders[qos, ""].append(self._index(each))
        return orders

    def _keeps_its_place(self, each: Seen | Publication) -> bool:
        """Whether messages of its QoS keep their order: not where the QoS of their copies varies."""
        published = self._publication(each) if isinstance(each, Seen) else each
        return self._has_identifiers or published.qos < 2

    def _index(self, seen: Seen) -> int:
        return self._publication(seen).index

    def _publication(self, seen: Seen) -> Publication:
        found = self._found.get((seen.topic, seen.payload))
        assert found is not None, f"{seen} was not published in this step: {self._publications}"
        return found


def _take(pair: Pair) -> tuple[list[Seen], list[Seen]]:
    assert pair.stream is not None
    assert pair.stream.told == [], f"{pair.interest} was told {pair.stream.told}"
    return pair.stream.take(), pair.twin.take()


def _live(seen: list[Seen]) -> list[Seen]:
    return [each for each in seen if not each.retain]


def _retained(seen: list[Seen]) -> list[Seen]:
    return [each for each in seen if each.retain]


def _told(interest: Interest, seen: list[Seen], expected: list[Seen]) -> str:
    return f"{interest} saw {seen}, and its twin {expected}"


def _without_qos(seen: list[Seen]) -> list[tuple[str, str, bool]]:
    return sorted((each.topic, each.payload, each.retain) for each in seen)
