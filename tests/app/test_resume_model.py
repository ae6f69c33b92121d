"""Clients that come, leave in the middle of what they read, and come back, against a plain account of it.

A broker is simulated to the letter of what the hub relies on: it sends one copy for each subscription that
matches, in any order, under its identifier; without identifiers one copy for all. The account is a list of
what was published. Then, for whatever anybody does:

1. A client never gets a message twice, never an older one after a newer, and none that it did not ask for.
2. Where messages are missing before the last that it read, the same connection told it of a ``gap``, or an
   earlier one did so last.
3. A filter that a client did not name the last time is told as a ``gap`` first; a filter less is none.
4. Where nothing gave a reason for one, there is no ``gap``.
"""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.journal import Journal
from app.hub.listener import Listener
from tests.support.hub import RecordedUpstream, copy, id_of, settle, taken
from tidegate.topics import matches

FILTERS = ("a/#", "a/b", "c")
APART = ("a/b", "a/c", "c")
"""Filters of which no two match the same topic: a client may change among them and gets no message twice."""

TOPICS = ("a/b", "a/c", "c")
CLIENTS = 2

Operation = tuple[str, int, int]


class SimulatedBroker(RecordedUpstream):
    """Remembers what is subscribed to, and sends what matches."""

    def __init__(self, *, has_identifiers: bool) -> None:
        super().__init__(has_identifiers=has_identifiers)
        self._held: dict[str, int] = {}

    async def subscribe(
        self, topic_filter: str, qos: int, identifier: int, *, retained: bool, retained_again: bool
    ) -> int:
        """Take the subscription at once, and answer a little later."""
        self._held[topic_filter] = identifier
        return await super().subscribe(
            topic_filter, qos, identifier, retained=retained, retained_again=retained_again
        )

    async def unsubscribe(self, topic_filter: str) -> None:
        """Send nothing from now on."""
        self._held.pop(topic_filter, None)
        await super().unsubscribe(topic_filter)

    def publish(self, hub: Hub, topic: str, payload: str, order: int) -> None:
        """Send the copies; ``order`` chooses which comes first."""
        copies = [each for each in self._held if matches(each, topic)]
        if not self.has_identifiers:
            for _ in copies[:1]:
                hub.deliver(copy(topic, payload))
            return
        orders = list(itertools.permutations(copies))
        for each in orders[order % len(orders)]:
            hub.deliver(copy(topic, payload, self._held[each]))


class Client:
    """One client, and what it saw.

    Attributes:
        was_told_of_gap: at any time.
        added_filters: at any time.
    """

    def __init__(self, hub: Hub, filters: tuple[str, ...]) -> None:
        self._hub = hub
        self._filters = self._filters_of_id = filters
        self._listener: Listener | None = None
        self._last_event_id = ""
        self._began = 0
        self._checked = 0
        self._seen: list[int] = []
        self._knows_of_gap = False
        self._is_owed_gap = False
        self._saw_nothing_since = False
        self.was_told_of_gap = False
        self.added_filters = False

    def choose(self, filters: tuple[str, ...]) -> None:
        """Come with these from now on."""
        self.added_filters = self.added_filters or not set(filters) <= set(self._filters_of_id)
        self._filters = filters
        if not self._last_event_id:
            self._filters_of_id = filters

    @property
    def has_been_here(self) -> bool:
        """Whether it has an id to come back with."""
        return bool(self._last_event_id)

    @property
    def is_here(self) -> bool:
        """Whether it is connected."""
        return self._listener is not None

    async def come(self, published: list[str], turn: int) -> None:
        """Connect, with its filters in an order that changes."""
        filters = self._filters[turn % len(self._filters) :] + self._filters[: turn % len(self._filters)]
        listener = self._listener = Listener(filters, retained=False)
        self._knows_of_gap = self._knows_of_gap and self._saw_nothing_since
        self._is_owed_gap = bool(self._last_event_id) and not set(self._filters) <= set(self._filters_of_id)
        position = await self._hub.join(listener, self._last_event_id)
        if not self._last_event_id:
            self._began = self._checked = len(published)
        self._last_event_id = str(position)
        if position.filters == listener.digest:
            self._filters_of_id = self._filters

    def read(self, published: list[str], count: int | None = None) -> None:
        """Read so many of the events that wait, or all."""
        assert self._listener is not None
        reads_all = count is None
        for each in taken(self._listener)[:count]:
            if self._is_owed_gap:
                assert isinstance(each, ControlEvent)
                assert each.name == "gap"
                self._is_owed_gap = False
            if isinstance(each, Event):
                index = int(each.message.payload)
                assert not self._seen or index > self._seen[-1], f"{index} after {self._seen}"
                assert any(matches(own, published[index]) for own in self._filters)
                self._seen.append(index)
                self._saw_nothing_since = False
            elif each.name == "gap":
                self._knows_of_gap = self._saw_nothing_since = self.was_told_of_gap = True
            if each.sequence:
                self._last_event_id = id_of(self._hub, self._listener, each)
                self._filters_of_id = self._filters
        assert not (reads_all and self._is_owed_gap)
        until = len(published) if reads_all else (self._seen[-1] + 1 if self._seen else 0)
        expected = [
            index
            for index in range(self._checked, until)
            if any(matches(own, published[index]) for own in self._filters)
        ]
        if not self._knows_of_gap:
            assert [index for index in self._seen if index >= self._checked] == expected
        self._checked = max(self._checked, until)

    def leave(self, published: list[str], count: int) -> None:
        """Read so many, and disconnect without the others."""
        self.read(published, count)
        assert self._listener is not None
        self._hub.leave(self._listener)
        self._listener = None


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, len(TOPICS) - 1), st.integers(0, 5)),
        st.tuples(st.just("come"), st.integers(0, CLIENTS - 1), st.integers(0, 3)),
        st.tuples(st.just("come, and publish"), st.integers(0, CLIENTS - 1), st.integers(0, 11)),
        st.tuples(st.just("leave"), st.integers(0, CLIENTS - 1), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, CLIENTS - 1), st.just(0)),
        st.tuples(st.just("lose"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


class World:
    """A hub, its broker, its clients, and the account of what was published."""

    def __init__(
        self,
        filters: list[tuple[str, ...]],
        *,
        has_identifiers: bool,
        grace_seconds: float,
        max_messages: int,
    ) -> None:
        self._broker = SimulatedBroker(has_identifiers=has_identifiers)
        journal = Journal(max_messages=max_messages)
        self._hub = Hub(self._broker, journal=journal, grace_seconds=grace_seconds)
        self.clients = [Client(self._hub, each) for each in filters]
        self.published: list[str] = []
        self.gives_reason = grace_seconds == 0 or max_messages < 1000
        """Whether anything happened, or may, for which a client is told of a gap."""

    async def do(self, operation: Operation) -> None:
        """One step."""
        kind, first, second = operation
        if kind == "publish":
            self._publish(TOPICS[first], second)
        elif kind == "lose":
            self.gives_reason = True
            self._hub.broker_down("it was closed")
            self._hub.broker_up(session_present=False)
        else:
            await self._move(self.clients[first], kind, second)

    async def end(self) -> None:
        """Everybody comes back a last time and reads all there is."""
        for client in self.clients:
            if client.has_been_here and not client.is_here:
                await client.come(self.published, 0)
            if client.is_here:
                client.read(self.published)
            assert self.gives_reason or client.added_filters or not client.was_told_of_gap
        await self._hub.close()

    async def _move(self, client: Client, kind: str, number: int) -> None:
        if client.is_here:
            if kind == "read":
                client.read(self.published)
            elif kind == "leave":
                client.leave(self.published, number)
                if number != 1:  # else the next step comes before the bridge has dropped the filters
                    await settle()
        elif kind == "come":
            await client.come(self.published, number)
        elif kind == "come with":
            client.choose(tuple(each for index, each in enumerate(APART) if number & 1 << index))
            await client.come(self.published, 0)
        elif kind == "come, and publish" and client.has_been_here:
            coming = asyncio.create_task(client.come(self.published, number))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            self._publish(TOPICS[number % len(TOPICS)], number)
            await coming

    def _publish(self, topic: str, order: int) -> None:
        self.published.append(topic)
        self._broker.publish(self._hub, topic, str(len(self.published) - 1), order)


async def play(world: World, operations: list[Operation]) -> None:
    """Do all that."""
    for each in operations:
        await world.do(each)
    await world.end()


@settings(max_examples=500, deadline=None)
@given(
    operations=OPERATIONS,
    filters=st.lists(
        st.permutations(FILTERS).flatmap(lambda each: st.integers(1, 3).map(lambda n: tuple(each[:n]))),
        min_size=CLIENTS,
        max_size=CLIENTS,
    ),
    has_identifiers=st.booleans(),
    grace_seconds=st.sampled_from([0.0, 1000.0]),
    max_messages=st.sampled_from([0, 2, 1000]),
)
@example(
    operations=[("come", 0, 0), ("leave", 0, 0), ("publish", 0, 0), ("come", 1, 0)],
    filters=[("a/b",), ("a/b",)],
    has_identifiers=True,
    grace_seconds=0.0,
    max_messages=1000,
)
def test_no_hole_in_silence_and_no_double(
    operations: list[Operation],
    filters: list[tuple[str, ...]],
    has_identifiers: bool,
    grace_seconds: float,
    max_messages: int,
) -> None:
    """Whoever comes, leaves and comes back, in whatever order: the account holds for every client."""

    async def run() -> None:
        world = World(
            filters, has_identifiers=has_identifiers, grace_seconds=grace_seconds, max_messages=max_messages
        )
        await play(world, operations)

    asyncio.run(run())


@settings(max_examples=300, deadline=None)
@given(
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, len(TOPICS) - 1), st.integers(0, 5)),
            st.tuples(st.just("come with"), st.integers(0, CLIENTS - 1), st.integers(1, 7)),
            st.tuples(st.just("come, and publish"), st.integers(0, CLIENTS - 1), st.integers(0, 11)),
            st.tuples(st.just("leave"), st.integers(0, CLIENTS - 1), st.integers(0, 3)),
            st.tuples(st.just("read"), st.integers(0, CLIENTS - 1), st.just(0)),
            st.tuples(st.just("lose"), st.just(0), st.just(0)),
        ),
        max_size=40,
    ),
    has_identifiers=st.booleans(),
    grace_seconds=st.sampled_from([0.0, 1000.0]),
)
@example(  # a filter is left, and taken up again with an id of the stream in between
    operations=[
        *(("come with", 0, 3), ("leave", 0, 0), ("come with", 0, 1), ("publish", 0, 0), ("leave", 0, 3)),
        *(("come with", 1, 2), ("publish", 1, 0), ("come with", 0, 3), ("publish", 1, 0)),
    ],
    has_identifiers=True,
    grace_seconds=1000.0,
)
def test_clients_may_change_their_filters(
    operations: list[Operation], has_identifiers: bool, grace_seconds: float
) -> None:
    """The account holds whatever filters a client adds, leaves out and takes up again."""

    async def run() -> None:
        world = World(
            [APART, APART], has_identifiers=has_identifiers, grace_seconds=grace_seconds, max_messages=1000
        )
        await play(world, operations)

    asyncio.run(run())
