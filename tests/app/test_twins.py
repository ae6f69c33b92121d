"""A stream never lies: what a listener sees is what an MQTT client of its own would have seen.

Hypothesis drives pairs of an HTTP listener and an MQTT 5 client, its twin, which asks the broker itself for
the same filters at the same QoS with the same wish for retained messages. After each step a marker is
published and waited for at every end, at QoS 2 and by a subscription of its own: nothing sent before it can
come after it, and nothing here sleeps. Then each pair is compared:

1. A stream gets each message once, however many of its filters match. The twin gets a copy for each, and all
   but the first are left out. Every publication has a payload of its own, so copies are told from messages.
2. The QoS told is the lower of what was published and what was asked for.
3. A message is flagged ``retain`` where it was sent on joining, and only there. It comes once for each topic,
   to the joiner alone, and never to who did not want it or where it was cleared before.
4. Messages published at one QoS to one topic keep their order, as MQTT promises (MQTT 5 §4.6); those at one
   QoS to several topics do so for who asked for that QoS or a higher one. A step is over before the next
   begins, so that the order between steps is whole. Nothing is said between QoS levels: the handshake of
   QoS 2 lets what was sent later pass.
5. Who joins while messages are published may see one that its twin does not, and the reverse, until both have
   joined. Even so there is one moment for each topic: what was published later is seen live, all of it and
   once; what was published earlier is not, and what the broker retained at this moment comes as retained.
   From the moment when both have joined they see the same.
6. A listener that loses its connection and comes back with its last event id has then seen, over both streams
   together, just what its twin saw, which stayed: no hole, nothing live twice, no ``gap``. Retained messages
   come once more where the id ends in ``-r``, and else do not.
7. Others who join, leave or come back, a retained message that is read, and when the bridge notices that
   somebody left, change nothing for the rest.

With the bridge on MQTT 3.1.1 copies carry no subscription identifiers, and this is weaker:

- The broker sends one copy for overlapping filters, and Mosquitto sends it at the QoS of any one of them: the
  QoS told may be lower than in rule 2, and messages published at QoS 2 may change places (rules 4 and 5).
- A listener takes live messages from the moment at which it asks, which is before its twin's, and of a topic
  that it has seen begin no retained message any more (rule 5): where somebody publishes meanwhile, a message
  may come live that the twin gets retained. It has a value of each topic all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import wraps
from typing import ParamSpec, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.twin_comparison import Comparison
from tests.support.twin_messages import Interest, Letter, Step
from tests.support.twin_traffic import INTERESTS, QOS, TOPICS, letters, letters_of_one_qos
from tests.support.twins import Pair, World

P = ParamSpec("P")
T = TypeVar("T")

MAX_PAIRS = 6
MACHINES = settings(
    max_examples=40,
    stateful_step_count=15,
    deadline=None,
    database=None,
    # Making a failure smaller means running it hundreds of times, and a race does not come about each time:
    # where it does, add ``Phase.shrink``.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


def told(step: Callable[P, T]) -> Callable[P, T]:
    """A step whose failure tells all that was done before it, since a race need not come about again."""

    @wraps(step)
    def wrapper(*given: P.args, **named: P.kwargs) -> T:
        try:
            return step(*given, **named)
        except AssertionError as error:
            machine = given[0]
            assert isinstance(machine, Pairs)
            error.add_note("What was done:\n" + "\n".join(machine.world.story))
            raise

    return wrapper


class Pairs(RuleBasedStateMachine):
    """Traffic, and pairs that come and go."""

    pairs: Bundle[Pair] = Bundle("pairs")

    def __init__(self, world: World, *, has_identifiers: bool, compared: Counter[str]) -> None:
        super().__init__()
        self.world = world
        self.has_identifiers = has_identifiers
        self.compared = compared

    @initialize(
        target=pairs,
        topics=st.lists(TOPICS, min_size=2, max_size=8, unique=True),
        qos=QOS,
        interests=st.lists(INTERESTS, min_size=1, max_size=3),
    )
    @told
    def begin(self, topics: list[str], qos: int, interests: list[Interest]) -> MultipleResults[Pair]:
        """Something is retained, and some have joined."""
        self.world.publish_at_once([Letter(topic, qos, "retain") for topic in topics])
        self.world.settle()
        return self.join_all(self.world.enter(interests))

    @rule(letters=letters(1, 4), by_http=st.booleans())
    @told
    def publish(self, letters: list[Letter], by_http: bool) -> None:
        """A few messages, each acknowledged before the next."""
        self.compare(self.world.publish(letters, by_http=by_http))

    @rule(letters=letters_of_one_qos(10, 25, most_topics=10))
    @told
    def publish_at_once(self, letters: list[Letter]) -> None:
        """Many messages, none waited for."""
        self.compare(self.world.publish_at_once(letters))

    @precondition(lambda self: len(self.world.pairs) < MAX_PAIRS)
    @rule(
        target=pairs,
        interests=st.lists(INTERESTS, min_size=1, max_size=2),
        copies=st.integers(1, 2),
        are_cut=st.booleans(),
    )
    @told
    def join(self, interests: list[Interest], copies: int, are_cut: bool) -> MultipleResults[Pair]:
        """Some join at one moment, also two that want the same, or lose the beginning of the stream."""
        return self.join_all(self.world.enter(interests * copies), are_cut=are_cut)

    @rule(pair=consumes(pairs))
    @told
    def leave(self, pair: Pair) -> None:
        """One leaves; the bridge may notice in the middle of the steps that follow."""
        self.world.leave(pair)

    @rule(topic=TOPICS)
    @told
    def read_retained(self, topic: str) -> None:
        """Reading what is retained shares the subscriptions of streams, and none of them notices."""
        answer = self.world.bridge.client.get("/v1/topics", params={"topic": topic})
        assert answer.status_code == (200 if topic in self.world.retained else 404)
        self.compare(Step(self.world.retained, has_joins=True))

    @precondition(lambda self: len(self.world.pairs) < MAX_PAIRS)
    @rule(
        target=pairs,
        letters=letters(8, 19) | letters_of_one_qos(20, 40, most_topics=2),
        by_http=st.booleans(),
        interests=st.lists(INTERESTS, min_size=1, max_size=2),
        copies=st.integers(1, 2),
        at=st.integers(0, 5),
    )
    @told
    def join_amid_messages(
        self, letters: list[Letter], by_http: bool, interests: list[Interest], copies: int, at: int
    ) -> MultipleResults[Pair]:
        """Some join while messages are published, slowly or as fast as may be; more are published once they
        have joined.
        """
        world = self.world
        settled = list(world.pairs)
        joining = world.enter(interests * copies)
        joined_by: dict[Pair, int] = {}

        def join(index: int) -> None:
            if index == at:
                world.join(joining)
            if index == len(letters) - 2:
                world.wait(lambda: all(pair.has_joined for pair in joining))
            world.poll()
            for pair in joining:
                if pair.has_joined:
                    joined_by.setdefault(pair, index)

        if len(letters) < 20:
            step = world.publish(letters, by_http=by_http, before_each=join)
        else:
            step = world.publish_at_once(letters, before_each=join)
        step = replace(step, has_joins=True)
        self.compare(step, settled)
        comparison = Comparison(step, has_identifiers=self.has_identifiers)
        for pair in joining:
            live, retained = comparison.check_joiner(pair, joined_by=joined_by[pair])
            self.compared.update(live_amid=live, retained_amid=retained)
        return multiple(*joining)

    @rule(pair=consumes(pairs), letters=letters(4, 12), at=st.integers(0, 3))
    @told
    def leave_amid_messages(self, pair: Pair, letters: list[Letter], at: int) -> None:
        """One leaves while messages are published to those that stay."""
        self.compare(
            self.world.publish(
                letters,
                by_http=False,
                before_each=lambda index: self.world.leave(pair) if index == at else None,
            )
        )

    @rule(
        pair=pairs,
        letters=letters(6, 20),
        by_http=st.booleans(),
        cut_at=st.integers(0, 3),
        away_for=st.integers(0, 20),
    )
    @told
    def cut_amid_messages(
        self, pair: Pair, letters: list[Letter], by_http: bool, cut_at: int, away_for: int
    ) -> None:
        """A listener is cut off and comes back with its last event id, while messages are published."""
        world = self.world

        def cut(index: int) -> None:
            if index == cut_at:
                world.cut(pair)
            if index == cut_at + away_for:
                world.resume(pair)

        step = world.publish(letters, by_http=by_http, before_each=cut)
        if pair.stream is None:
            world.resume(pair)
        world.wait(lambda: pair.has_joined)
        self.compare(replace(step, has_joins=True))

    def join_all(self, joining: list[Pair], *, are_cut: bool = False) -> MultipleResults[Pair]:
        """Let pairs join at one moment, and compare what they see then."""
        world = self.world
        world.join(joining)
        world.wait(lambda: all(pair.has_joined for pair in joining))
        if are_cut:
            for pair in joining:
                world.cut(pair)
                world.resume(pair)
            world.wait(lambda: all(pair.has_joined for pair in joining))
        self.compare(Step(world.retained, has_joins=True))
        return multiple(*joining)

    def compare(self, step: Step, pairs: Sequence[Pair] | None = None) -> None:
        """Let everything arrive, then compare each pair that had joined before."""
        self.world.settle()
        comparison = Comparison(step, has_identifiers=self.has_identifiers)
        for pair in self.world.pairs if pairs is None else pairs:
            live, retained = comparison.check(pair)
            pair.lacked_retained = False
            self.compared.update(live=live, retained=retained)

    def teardown(self) -> None:
        """Everybody leaves, and nothing stays retained."""
        self.world.reset()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_stream_shows_what_a_client_of_its_own_would_have_seen(protocol: str) -> None:
    """Through overlaps, QoS levels, retained messages, joins and leaves; live and on joining."""
    compared: Counter[str] = Counter()
    with (
        Mosquitto(
            extra=["set_tcp_nodelay true", "max_inflight_messages 200", "max_queued_messages 0"]
        ) as broker,
        running_bridge(broker.url, broker_protocol=protocol, journal_grace_seconds=10.0) as bridge,
        closing(World(broker, bridge)) as world,
    ):

        class Machine(Pairs):
            def __init__(self) -> None:
                super().__init__(world, has_identifiers=protocol == "5", compared=compared)

        run_state_machine_as_test(Machine, settings=MACHINES)
    assert set(+compared) == {"live", "retained", "live_amid", "retained_amid"}, compared
