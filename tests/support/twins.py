"""Pairs of an HTTP listener and an MQTT client that asked for the same, and what makes traffic for them.

``tests/app/test_twins.py`` says what the two must agree on.
"""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from tests.support.bridge import Bridge
from tests.support.mosquitto import Mosquitto
from tests.support.twin_client import MQTTClient
from tests.support.twin_messages import Interest, Letter, Publication, Step, retained_after
from tests.support.twin_stream import MARKERS, EventStream

WAIT_SECONDS: Final = 10.0
FLUSH_TOPIC: Final = "flush"


class _Readable(Protocol):
    def fileno(self) -> int:
        """The socket, to wait on."""

    def read(self) -> None:
        """Take in what it has."""


class Pair:
    """A listener and its twin. They are connected; ``join`` makes them ask for the same, at one moment.

    Attributes:
        interest: what for.
        twin: the MQTT client.
        stream: the listener; None before it joins, and while it is cut.
        lacked_retained: the stream went on from an id that says so, and retained messages may come again.
    """

    def __init__(self, world: World, interest: Interest) -> None:
        self.interest = interest
        self.twin = MQTTClient(world.broker.port)
        self.stream: EventStream | None = None
        self.lacked_retained = False
        self._cut: EventStream | None = None
        self._port = world.bridge.port

    @property
    def has_joined(self) -> bool:
        """Whether both were granted everything, and the listener knows where it stands."""
        stream = self.stream
        is_there = stream is not None and stream.is_joined and stream.last_event_id != ""
        return is_there and self.twin.is_answered

    def join(self) -> None:
        """Ask; see ``has_joined``."""
        asked = self.interest
        self.stream = EventStream(self._port, asked.filters, qos=asked.qos, retained=asked.retained)
        self.twin.subscribe(asked.filters, qos=asked.qos, retained=asked.retained)

    def cut(self) -> None:
        """Lose the listener's connection, with what was not read yet; the twin stays."""
        assert self.stream is not None
        self.stream.close()
        self._cut, self.stream = self.stream, None

    def resume(self) -> None:
        """Have the listener come back with its last event id; see ``has_joined``."""
        asked = self.interest
        assert self._cut is not None
        self.lacked_retained = asked.retained and self._cut.last_event_id.endswith("-r")
        self.stream = EventStream(
            self._port, asked.filters, qos=asked.qos, retained=asked.retained, earlier=self._cut
        )

    def leave(self) -> None:
        """Both go."""
        if self.stream is not None:
            self.stream.close()
        self.twin.close()


class World:
    """A broker, a bridge, a publisher and the pairs.

    Attributes:
        pairs: those that have joined, or are joining.
        retained: what the broker retains.
        story: what was done since ``reset``, in words.
    """

    def __init__(self, broker: Mosquitto, bridge: Bridge) -> None:
        self.broker = broker
        self.bridge = bridge
        self.pairs: list[Pair] = []
        self.retained: dict[str, Publication] = {}
        self.story: list[str] = []
        self._numbers = itertools.count(1)
        self._publisher = MQTTClient(broker.port)
        # markers come to the bridge at QoS 2 for as long as one stream wants that
        self._keeper = EventStream(bridge.port, [], qos=2, retained=False)
        self.wait(lambda: self._publisher.is_connected and self._keeper.is_joined)

    def publish(
        self, letters: Sequence[Letter], *, by_http: bool, before_each: Callable[[int], None] | None = None
    ) -> Step:
        """Publish one after the other, each when the one before is acknowledged.

        Args:
            letters: what to publish.
            by_http: through the bridge; else straight to the broker.
            before_each: is told the index of the message that comes next.
        """
        sent: list[Publication] = []
        letters = list(letters)
        if by_http and letters[-1].qos == 0:
            # nobody acknowledges QoS 0: once one more is acknowledged the broker has taken it
            letters.append(Letter(FLUSH_TOPIC, 1, "no"))
        for index, letter in enumerate(letters):
            if before_each is not None:
                before_each(index)
            each = self._address(index, letter)
            if by_http:
                self._publish_by_http(each)
            else:
                self._hand_over(each)
                self.wait(lambda: self._publisher.is_answered)
            sent.append(each)
        return self._end(sent)

    def publish_at_once(
        self, letters: Sequence[Letter], *, before_each: Callable[[int], None] | None = None
    ) -> Step:
        """Publish messages of one QoS straight to the broker, and wait for the answers afterwards."""
        sent: list[Publication] = []
        for index, letter in enumerate(letters):
            if before_each is not None:
                before_each(index)
            each = self._address(index, letter)
            self._hand_over(each)
            sent.append(each)
        self.wait(lambda: self._publisher.is_answered)
        return self._end(sent)

    def enter(self, interests: Iterable[Interest]) -> list[Pair]:
        """Make pairs that are connected and have asked for nothing yet."""
        pairs = [Pair(self, each) for each in interests]
        self.wait(lambda: all(pair.twin.is_connected for pair in pairs), *(pair.twin for pair in pairs))
        return pairs

    def join(self, pairs: Iterable[Pair]) -> None:
        """Let pairs ask for what they want, all at one moment."""
        for pair in pairs:
            self.story.append(f"joins: {pair.interest}")
            self.pairs.append(pair)
            pair.join()

    def cut(self, pair: Pair) -> None:
        """Cut a listener off."""
        self.story.append(f"is cut off: {pair.interest}")
        pair.cut()

    def resume(self, pair: Pair) -> None:
        """Have it come back."""
        self.story.append(f"comes back: {pair.interest}")
        pair.resume()

    def leave(self, pair: Pair) -> None:
        """A pair goes; when the bridge notices is not waited for."""
        self.story.append(f"leaves: {pair.interest}")
        self.pairs.remove(pair)
        pair.leave()

    def settle(self) -> None:
        """Publish a marker and wait until it came to everybody: what was sent before it has come too."""
        self.story.append("all settles")
        marker = f"m{next(self._numbers)}"
        self._publisher.publish(MARKERS + "here", marker, qos=2)
        self.wait(lambda: all(each.marker == marker for each in self._ends() if each is not self._publisher))

    def poll(self, *more: _Readable, seconds: float = 0.0) -> None:
        """Read whatever has come."""
        ends: list[_Readable] = [*self._ends(), *more]
        for end in select.select(ends, [], [], seconds)[0]:
            end.read()

    def wait(self, holds: Callable[[], bool], *more: _Readable) -> None:
        """Read until something holds; raises AssertionError where it does not come about in time."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds():
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"it did not come about within {WAIT_SECONDS:g} s"
            self.poll(*more, seconds=remaining)

    def reset(self) -> None:
        """Let everybody leave, and clear what is retained."""
        for pair in list(self.pairs):
            self.leave(pair)
        if self.retained:
            self.publish_at_once([Letter(topic, 1, "clear") for topic in self.retained])
        self.settle()
        self.story.clear()

    def close(self) -> None:
        """Close the connections."""
        for pair in list(self.pairs):
            self.leave(pair)
        self._keeper.close()
        self._publisher.close()

    def _end(self, sent: Sequence[Publication]) -> Step:
        before = self.retained
        self.retained = retained_after(before, sent)
        return Step(before, sent)

    def _ends(self) -> list[EventStream | MQTTClient]:
        ends: list[EventStream | MQTTClient] = [self._publisher, self._keeper]
        for pair in self.pairs:
            ends.append(pair.twin)
            if pair.stream is not None:
                ends.append(pair.stream)
        return ends

    def _address(self, index: int, letter: Letter) -> Publication:
        payload = "" if letter.keep == "clear" else str(next(self._numbers))
        each = Publication(index, letter.topic, payload, letter.qos, letter.keep != "no")
        self.story.append(str(each))
        return each

    def _hand_over(self, each: Publication) -> None:
        self._publisher.publish(each.topic, each.payload, qos=each.qos, retain=each.is_retained)

    def _publish_by_http(self, each: Publication) -> None:
        if each.is_retained and not each.payload:
            answer = self.bridge.client.delete(f"/v1/topics?topic={each.topic}&qos={each.qos}")
        else:
            body = {"topic": each.topic, "payload": int(each.payload), "qos": each.qos}
            answer = self.bridge.client.post("/v1/publish", json={**body, "retain": each.is_retained})
        assert answer.is_success, answer.text
