"""What pairs ask for and what is published for them, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from paho.mqtt.client import topic_matches_sub


@dataclass(frozen=True, slots=True)
class Interest:
    """What a pair asks for."""

    filters: tuple[str, ...]
    qos: int
    retained: bool

    def matches(self, topic: str) -> bool:
        """Whether one of the filters matches, by the judgement of the MQTT client's library."""
        return any(topic_matches_sub(each, topic) for each in self.filters)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to publish; ``keep`` says whether it is retained, or an empty one that clears what was."""

    topic: str
    qos: int
    keep: Literal["no", "retain", "clear"]


@dataclass(frozen=True, slots=True)
class Publication:
    """A message as it was published.

    Attributes:
        index: its place among those of one step.
        payload: a number that no other has; empty where it clears.
    """

    index: int
    topic: str
    payload: str
    qos: int
    is_retained: bool


Retained = Mapping[str, Publication]
"""What the broker retains, by topic."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a test.

    Attributes:
        before: what the broker retained when it began.
        publications: what was published in it, in the order in which the broker took them.
        has_joins: somebody asked for retained messages in it.
    """

    before: Retained
    publications: Sequence[Publication] = ()
    has_joins: bool = False


def retained_after(before: Retained, publications: Iterable[Publication]) -> dict[str, Publication]:
    """What the broker retains once it has taken these."""
    found = dict(before)
    for each in publications:
        if each.is_retained:
            found.pop(each.topic, None)
            if each.payload:
                found[each.topic] = each
    return found
