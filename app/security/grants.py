"""What a principal may publish and follow.

Rules:

1. Nothing is allowed that no single grant allows: topic or filter, QoS and the retain flag together.
2. ``{sub}`` in a grant stands for the principal's subject. A subject that is not one plain level (it holds
   ``/``, ``+`` or ``#``, begins with ``$``, or MQTT forbids it in a topic) gets nothing from such a grant.
3. A topic that begins with ``$`` needs a grant that names its first level, to publish and to subscribe.
4. Who needs no authentication may do all but publish to topics that begin with ``$``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from app.security.covering import covers_levels, levels_of
from tidegate.errors import TopicError
from tidegate.topics import split_share, validate_filter, validate_topic

SUBJECT: Final = "{sub}"

_REMEMBERED: Final = 256
"""Topics whose answer is kept for a principal; devices publish to the same few."""

_MAX_REMEMBERED: Final = 200
"""Characters of a topic that is kept; a longer one is looked at each time."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Topics that a principal may publish to, or follow.

    Attributes:
        topic_filter: which topics; ``{sub}`` stands for the subject.
        max_qos: the highest QoS, 0, 1 or 2.
        may_retain: whether messages may be retained, and cleared; of no meaning for following.
    """

    topic_filter: str
    max_qos: int = 2
    may_retain: bool = True

    def __post_init__(self) -> None:
        """Check the filter.

        Raises:
            ValueError: it is not a topic filter, or a shared one, which grants nothing by itself.
        """
        if self.topic_filter.startswith("$share/"):
            raise ValueError(
                f"{self.topic_filter!r} is a shared subscription; grant the filter behind $share/{{name}}/"
            )
        try:
            validate_filter(self.topic_filter.replace(SUBJECT, "s"))
        except TopicError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A grant with the subject in place, and its filter's levels."""

    grant: Grant
    levels: tuple[str, ...]


class Grants:
    """All grants of one principal.

    Args:
        publish: to which topics, how.
        subscribe: which filters.
        subject: the principal's, for ``{sub}``.
    """

    def __init__(
        self, publish: Iterable[Grant] = (), subscribe: Iterable[Grant] = (), *, subject: str = ""
    ) -> None:
        self._publish = _made_ready(publish, subject)
        self._subscribe = _made_ready(subscribe, subject)
        self._allowed: set[tuple[str, int, bool]] = set()

    @property
    def publish(self) -> tuple[Grant, ...]:
        """What may be published, with the subject in place."""
        return tuple(each.grant for each in self._publish)

    @property
    def subscribe(self) -> tuple[Grant, ...]:
        """What may be followed, with the subject in place."""
        return tuple(each.grant for each in self._subscribe)

    def why_not_publish(self, topic: str, qos: int, *, retain: bool) -> str | None:
        """None where it is allowed, else what is missing, as the end of a sentence.

        Args:
            topic: a valid topic name.
            qos: 0, 1 or 2.
            retain: whether the message is to be retained, or clears what is.
        """
        asked = (topic, qos, retain)
        if asked in self._allowed:
            return None
        reason = _why_not(self._publish, tuple(topic.split("/")), qos, retain=retain)
        if reason is None and len(topic) <= _MAX_REMEMBERED:
            if len(self._allowed) >= _REMEMBERED:
                self._allowed.clear()
            self._allowed.add(asked)
        return reason

    def allows_publish(self, topic: str, qos: int, *, retain: bool) -> str:
        """The filter of the grant by which a publish is allowed; empty where there is none."""
        return _rule(self._publish, tuple(topic.split("/")), qos, retain=retain)

    def allows_subscribe(self, topic_filter: str, qos: int) -> str:
        """The filter of the grant by which a subscription is allowed; empty where there is none."""
        return _rule(self._subscribe, levels_of(topic_filter), qos, retain=False)

    def why_not_subscribe(self, topic_filter: str, qos: int) -> str | None:
        """None where it is allowed, else what is missing, as the end of a sentence.

        Args:
            topic_filter: a valid topic filter, shared or not.
            qos: the highest QoS asked for.
        """
        return _why_not(self._subscribe, levels_of(topic_filter), qos, retain=False)

    def include(self, other: Grants) -> bool:
        """Whether whatever other grants allow is allowed by these."""
        return all(
            self.why_not_subscribe(each.topic_filter, each.max_qos) is None for each in other.subscribe
        ) and all(
            any(
                mine.max_qos >= each.max_qos and mine.may_retain >= each.may_retain
                for mine in self.publish_within(each.topic_filter)
            )
            for each in other.publish
        )

    def publish_within(self, topic_filter: str) -> tuple[Grant, ...]:
        """The part of what may be published that a filter is; empty where no grant covers it.

        Args:
            topic_filter: a valid topic filter, not shared.
        """
        return _within(self._publish, topic_filter)

    def subscribe_within(self, topic_filter: str) -> tuple[Grant, ...]:
        """The part of what may be followed that a filter is; empty where no grant covers it.

        Args:
            topic_filter: a valid topic filter, shared or not.
        """
        return _within(self._subscribe, split_share(topic_filter)[1])


class EveryGrant(Grants):
    """The grants of a bridge without authentication: all but to publish to topics that begin with ``$``."""

    def __init__(self) -> None:
        super().__init__([Grant("#")], [Grant("#"), Grant("$SYS/#")])

    def why_not_publish(self, topic: str, qos: int, *, retain: bool) -> str | None:
        """None, but for a topic that begins with ``$``."""
        return "no grant names it" if topic[0] == "$" else None

    def why_not_subscribe(self, topic_filter: str, qos: int) -> str | None:
        """None."""
        return None


def _made_ready(grants: Iterable[Grant], subject: str) -> tuple[_Ready, ...]:
    ready = []
    for given in grants:
        grant = given
        if SUBJECT in given.topic_filter:
            if not _is_plain_level(subject):
                continue
            try:
                grant = replace(given, topic_filter=given.topic_filter.replace(SUBJECT, subject))
            except ValueError:  # too long with this subject
                continue
        ready.append(_Ready(grant, levels_of(grant.topic_filter)))
    return tuple(ready)


def _is_plain_level(subject: str) -> bool:
    if not subject or "/" in subject or subject[0] == "$":
        return False
    try:
        validate_topic(subject)
    except TopicError:
        return False
    return True


def _within(grants: tuple[_Ready, ...], topic_filter: str) -> tuple[Grant, ...]:
    asked = levels_of(topic_filter)
    covering = (each.grant for each in grants if covers_levels(each.levels, asked))
    return tuple(replace(each, topic_filter=topic_filter) for each in covering)


def _rule(grants: tuple[_Ready, ...], levels: tuple[str, ...], qos: int, *, retain: bool) -> str:
    for each in grants:
        grant = each.grant
        if qos <= grant.max_qos and (grant.may_retain or not retain) and covers_levels(each.levels, levels):
            return grant.topic_filter
    return ""


def _why_not(grants: tuple[_Ready, ...], levels: tuple[str, ...], qos: int, *, retain: bool) -> str | None:
    """What is missing; of several near misses the nearest: a filter that covers says more than none."""
    reason = "no grant covers it"
    for each in grants:
        if not covers_levels(each.levels, levels):
            continue
        if qos > each.grant.max_qos:
            reason = f"QoS {each.grant.max_qos} is the highest that is granted"
        elif retain and not each.grant.may_retain:
            reason = "no grant allows retained messages there"
        else:
            return None
    return reason
