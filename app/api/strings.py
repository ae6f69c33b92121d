"""Text on its way to the broker: what MQTT's UTF-8 strings may hold (MQTT 5 §1.5.4).

The bridge has one connection to the broker, and everybody's messages go over it. A broker may end the
connection on a string that the standard forbids or advises against, so that one caller's text would be
everybody's outage. Such text is refused here, before anything is sent.
"""

from __future__ import annotations

import re
from typing import Final

from app.problems import ProblemError, ProblemType
from tidegate.errors import TopicError
from tidegate.topics import validate_filter, validate_topic

MAX_STRING_BYTES: Final = 65_535

_noncharacters: Final = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_find_noncharacter: Final = re.compile(f"[{_noncharacters}]").search
_find_forbidden: Final = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_noncharacters}]").search


def require_topic(topic: str, *, field: str = "topic") -> None:
    """Check a topic to publish to.

    Args:
        topic: the topic name.
        field: where it came from, for the problem.

    Raises:
        ProblemError: INVALID_TOPIC where MQTT forbids it or it holds a non-character of Unicode,
            RESERVED_TOPIC where it begins with ``$``.
    """
    try:
        validate_topic(topic)
    except TopicError as error:
        raise ProblemError(ProblemType.INVALID_TOPIC, str(error), field=field) from None
    if topic[0] == "$":
        raise ProblemError(
            ProblemType.RESERVED_TOPIC,
            f"{topic!r} begins with '$': publishing there needs a grant that names it",
            field=field,
        )
    _refuse_noncharacters(topic, "topic", field)


def require_filter(topic_filter: str) -> None:
    """Check a topic filter to read.

    Raises:
        ProblemError: INVALID_TOPIC where MQTT forbids it, or it holds a non-character of Unicode.
    """
    try:
        validate_filter(topic_filter)
    except TopicError as error:
        raise ProblemError(ProblemType.INVALID_TOPIC, str(error), field="topic") from None
    _refuse_noncharacters(topic_filter, "filter", "topic")


def _refuse_noncharacters(text: str, kind: str, field: str) -> None:
    if not text.isascii() and (found := _find_noncharacter(text)) is not None:
        raise ProblemError(
            ProblemType.INVALID_TOPIC, f"the {kind} holds the non-character {_name(found)}", field=field
        )


def why_not_a_string(text: str) -> str | None:
    """Why a property cannot hold this text, in words; None where it can."""
    found = _find_forbidden(text)
    if found is not None:
        return f"{_name(found)} is not allowed in a property"
    if len(text) * 4 > MAX_STRING_BYTES and (size := len(text.encode())) > MAX_STRING_BYTES:
        return f"{size} bytes of UTF-8 are too many: MQTT carries at most {MAX_STRING_BYTES}"
    return None


def _name(found: re.Match[str]) -> str:
    return f"U+{ord(found.group()):04X} (character {found.start() + 1})"
