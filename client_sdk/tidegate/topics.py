"""Topic names and topic filters: what is allowed, and what matches what (MQTT 5 §4.7 and §4.8.2).

Rules:

1. ``validate_topic`` and ``validate_filter`` judge text from outside; everything else here takes valid text.
2. Levels are compared as text, code point by code point: no case folding and no normalisation (§4.7.3).
3. A wildcard in the first level does not match a topic that begins with ``$`` (§4.7.2).
4. ``$share/{name}/{filter}`` matches what ``{filter}`` matches (§4.8.2).
5. Nothing here recurses: a topic may have 65,535 levels.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from keyword import iskeyword
from typing import Final, Generic, TypeVar

from tidegate.errors import TopicError
from tidegate.strings import FORBIDDEN, MAX_STRING_BYTES, describe_character, encoded_length

MAX_TOPIC_SLASHES: Final = 200
"""Mosquitto closes the connection on a topic with more, and that connection may be everybody's."""

_forbidden_in_filter: Final = re.compile(f"[{FORBIDDEN}]")
_forbidden_in_topic: Final = re.compile(f"[+#{FORBIDDEN}]")
_is_plain_topic: Final = re.compile('[ -"$-*,-~]+').fullmatch
"""Printable ASCII without wildcards, which nearly all topics are; the rest is looked at closely."""

_SHARE: Final = "$share"
_SHARE_PREFIX: Final = "$share/"
_named_level: Final = re.compile(r"\{([^{}]*)\}")


def validate_topic(topic: str) -> None:
    """Check a topic name, as PUBLISH carries it (MQTT 5 §3.3.2.1, §4.7).

    Raises:
        TopicError: it is empty, longer than 65,535 bytes of UTF-8, has more than 200 slashes, or holds a
            wildcard, a control character, a lone surrogate or a non-character; the text says where.
    """
    if len(topic) <= MAX_TOPIC_SLASHES and _is_plain_topic(topic):
        return
    _check_text(topic, "topic name", _forbidden_in_topic)


def validate_filter(topic_filter: str) -> None:
    """Check a topic filter, as SUBSCRIBE carries it (MQTT 5 §3.8.3, §4.7.1, §4.8.2).

    Raises:
        TopicError: as for a topic name; or a wildcard is not alone in its level, ``#`` is not the last level,
            or a shared subscription lacks a proper share name or filter; the text says where.
    """
    _check_text(topic_filter, "topic filter", _forbidden_in_filter)
    start = _check_share(topic_filter)
    if "+" in topic_filter or "#" in topic_filter:
        _check_wildcards(topic_filter, start)


def _check_text(text: str, kind: str, forbidden: re.Pattern[str]) -> None:
    if not text:
        raise TopicError(f"a {kind} must have at least one character", topic=text)
    found = forbidden.search(text)
    if found is not None:
        character = found.group()
        raise _error(text, kind, found.start(), f"{describe_character(character)} is not allowed in a {kind}")
    if text.count("/") > MAX_TOPIC_SLASHES:
        raise TopicError(
            f"{_shorten(text)} has {text.count('/'):,} slashes; a {kind} may have {MAX_TOPIC_SLASHES}",
            topic=text,
        )
    if (size := encoded_length(text)) > MAX_STRING_BYTES:
        raise TopicError(
            f"{_shorten(text)} is {size:,} bytes of UTF-8; a {kind} may have {MAX_STRING_BYTES:,}", topic=text
        )


def _check_share(topic_filter: str) -> int:
    """Check the ``$share/{name}/`` of a filter, and return where the filter behind it begins."""
    if topic_filter != _SHARE and not topic_filter.startswith(_SHARE_PREFIX):
        return 0
    kind = "shared subscription"
    name, slash, rest = topic_filter.removeprefix(_SHARE).removeprefix("/").partition("/")
    begin = len(_SHARE_PREFIX)
    if not name:
        raise _error(topic_filter, kind, begin, "a share name must follow '$share/'")
    for offset, character in enumerate(name):
        if character in "+#":
            reason = f"{describe_character(character)} is not allowed in a share name"
            raise _error(topic_filter, kind, begin + offset, reason)
    start = begin + len(name) + 1
    if not slash or not rest:
        raise _error(topic_filter, kind, start, "a topic filter must follow the share name")
    if rest == _SHARE or rest.startswith(_SHARE_PREFIX):
        raise _error(topic_filter, kind, start, "a shared subscription cannot be shared again")
    return start


def _check_wildcards(topic_filter: str, start: int) -> None:
    """Check that wildcards from ``start`` on stand alone, and ``#`` in the last level (§4.7.1)."""
    at = start
    end = len(topic_filter)
    for level in topic_filter[start:].split("/"):
        for wildcard in "+#":
            offset = level.find(wildcard)
            if offset >= 0 and level != wildcard:
                reason = f"{describe_character(wildcard)} must be alone in its level"
                raise _error(topic_filter, "topic filter", at + offset, reason)
        if level == "#" and at + 1 != end:
            raise _error(
                topic_filter, "topic filter", at, f"{describe_character('#')} must be the last level"
            )
        at += len(level) + 1


def _error(text: str, kind: str, index: int, reason: str) -> TopicError:
    where = f"character {index + 1:,} of {len(text):,}" if index < len(text) else "at the end"
    return TopicError(f"{reason}: {where} in the {kind} {_shorten(text)}", topic=text)


def _shorten(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}…"


def split_share(topic_filter: str) -> tuple[str | None, str]:
    """Part a filter into its share name and the filter that matches; no share name: None (MQTT 5 §4.8.2)."""
    if topic_filter.startswith(_SHARE_PREFIX):
        name, slash, rest = topic_filter[len(_SHARE_PREFIX) :].partition("/")
        if slash:
            return name, rest
    return None, topic_filter


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a valid topic name (MQTT 5 §4.7.1 to §4.7.3)."""
    wanted = split_share(topic_filter)[1]
    if wanted == topic:
        return True
    if topic.startswith("$") and wanted.startswith(("+", "#")):
        return False
    filter_levels = wanted.split("/")
    topic_levels = topic.split("/")
    if filter_levels[-1] == "#":
        filter_levels.pop()
        if len(filter_levels) > len(topic_levels):
            return False
    elif len(filter_levels) != len(topic_levels):
        return False
    return all(
        wanted_level in ("+", level) for wanted_level, level in zip(filter_levels, topic_levels, strict=False)
    )


def parse_named_levels(topic_filter: str) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Turn ``sensors/{sensor_id}/temperature`` into an MQTT filter and the names of its levels.

    A level that is one name in braces becomes ``+``; braces that are part of a longer level stay as they are.

    Returns:
        The MQTT filter, and for each name the index of its level in a matching topic, counted from 0 (the
        ``$share/{name}/`` of a shared subscription does not count), with the name.

    Raises:
        TopicError: a name is not a Python identifier or is there twice, or the filter is not valid.
    """
    share, wanted = split_share(topic_filter)
    levels = wanted.split("/")
    names: dict[str, int] = {}
    for index, level in enumerate(levels):
        found = _named_level.fullmatch(level)
        if found is None:
            continue
        name = found.group(1)
        if not name.isidentifier() or iskeyword(name):
            reason = f"{name!r} names level {index + 1} and cannot name an argument"
            raise TopicError(f"{reason}: {_shorten(topic_filter)}", topic=topic_filter)
        if name in names:
            reason = f"{name!r} names level {names[name] + 1} and level {index + 1}"
            raise TopicError(f"{reason}: {_shorten(topic_filter)}", topic=topic_filter)
        names[name] = index
        levels[index] = "+"
    plain = "/".join(levels)
    if share is not None:
        plain = f"{_SHARE_PREFIX}{share}/{plain}"
    validate_filter(plain)
    return plain, tuple((index, name) for name, index in names.items())


T = TypeVar("T", bound=Hashable)


class _Node(Generic[T]):
    """One level of the filters in an index: the levels that may follow, and the values that end here."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[tuple[str | None, T], None] = {}


class FilterIndex(Generic[T]):
    """Finds the values whose filters match a topic, without looking at every filter.

    A value may stand under several filters, and a filter may have several values. The same value under the
    same filter counts once; the shared and the unshared form of a filter are two filters.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._size = 0

    def __len__(self) -> int:
        """How many pairs of a filter and a value there are."""
        return self._size

    def add(self, topic_filter: str, value: T) -> None:
        """Put a value under a valid filter; a pair that is there already changes nothing."""
        share, wanted = split_share(topic_filter)
        node = self._root
        for level in wanted.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if (share, value) not in node.values:
            node.values[share, value] = None
            self._size += 1

    def discard(self, topic_filter: str, value: T) -> None:
        """Take a value from a filter; a pair that is not there changes nothing."""
        share, wanted = split_share(topic_filter)
        levels = wanted.split("/")
        path = [self._root]
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        node = path.pop()
        if (share, value) not in node.values:
            return
        del node.values[share, value]
        self._size -= 1
        for parent, level in zip(reversed(path), reversed(levels), strict=True):
            if node.values or node.children:
                return
            del parent.children[level]
            node = parent

    def match(self, topic: str) -> list[T]:
        """The values of all filters that match a topic name, once for each filter; in no set order."""
        found: list[T] = []
        nodes = [self._root]
        wildcards = not topic.startswith("$")
        for level in topic.split("/"):
            following: list[_Node[T]] = []
            for node in nodes:
                children = node.children
                if not children:
                    continue
                if (child := children.get(level)) is not None:
                    following.append(child)
                if wildcards:
                    if (child := children.get("+")) is not None:
                        following.append(child)
                    if (child := children.get("#")) is not None:
                        found.extend(value for _, value in child.values)
            if not following:
                return found
            nodes = following
            wildcards = True
        for node in nodes:
            found.extend(value for _, value in node.values)
            if (child := node.children.get("#")) is not None:
                found.extend(value for _, value in child.values)
        return found
