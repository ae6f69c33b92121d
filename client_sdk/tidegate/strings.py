"""What a UTF-8 string of MQTT may hold (MQTT 5 §1.5.4).

A broker may end the connection on a string that the standard forbids or advises against. Over a shared
connection one caller's text would then be everybody's outage, so such text is refused before it is sent.
"""

from __future__ import annotations

import re
from typing import Final

from tidegate.errors import ConfigurationError
from tidegate.message import NO_PROPERTIES, Properties

MAX_STRING_BYTES: Final = 65_535
"""The longest UTF-8 encoded string that MQTT can carry."""

MAX_EXPIRY_SECONDS: Final = 4_294_967_295
"""The longest message expiry that MQTT can carry (MQTT 5 §3.3.2.3.3)."""

# No code point takes more than four bytes, so that text of up to this many needs no encoding to be measured.
_ALWAYS_SHORT_ENOUGH: Final = MAX_STRING_BYTES // 4

_NON_CHARACTERS: Final = "\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)
)
FORBIDDEN: Final = r"\x00-\x1f\x7f-\x9f\ud800-\udfff" + _NON_CHARACTERS
"""Control characters, lone surrogates and non-characters, as a class of a regular expression."""

_find_forbidden: Final = re.compile(f"[{FORBIDDEN}]").search


def describe_character(character: str) -> str:
    """Name a character that is not allowed."""
    code_point = f"U+{ord(character):04X}"
    if character in "+#":
        return f"the wildcard {character!r} ({code_point})"
    if 0xD800 <= ord(character) <= 0xDFFF:
        return f"the lone surrogate {code_point}"
    if ord(character) >= 0xFDD0:
        return f"the non-character {code_point}"
    return f"the control character {code_point}"


def encoded_length(text: str) -> int:
    """The bytes of UTF-8 that a text takes, or a lower bound where it is surely short enough."""
    return len(text) if len(text) <= _ALWAYS_SHORT_ENOUGH else len(text.encode())


def why_not_a_string(text: str) -> str | None:
    """Why MQTT cannot carry this text, in words; None where it can."""
    found = _find_forbidden(text)
    if found is not None:
        return f"{describe_character(found.group())} is not allowed (character {found.start() + 1:,})"
    if (size := encoded_length(text)) > MAX_STRING_BYTES:
        return f"{size:,} bytes of UTF-8 are too many: MQTT carries at most {MAX_STRING_BYTES:,}"
    return None


def validate_properties(properties: Properties) -> None:
    """Check what a message's properties hold.

    Raises:
        ConfigurationError: MQTT cannot carry one of them; the text names it.
    """
    if properties is NO_PROPERTIES:
        return
    if properties.payload_format not in (None, 0, 1):
        raise ConfigurationError(f"payload_format={properties.payload_format!r} is not 0 or 1")
    expiry = properties.message_expiry
    if expiry is not None and not 0 <= expiry <= MAX_EXPIRY_SECONDS:
        raise ConfigurationError(f"message_expiry={expiry!r} is not from 0 to {MAX_EXPIRY_SECONDS} seconds")
    if properties.correlation_data is not None and len(properties.correlation_data) > MAX_STRING_BYTES:
        raise ConfigurationError(f"correlation_data: MQTT carries at most {MAX_STRING_BYTES:,} bytes")
    texts = [("content_type", properties.content_type), ("response_topic", properties.response_topic)]
    texts += [("user_properties", text) for pair in properties.user_properties for text in pair]
    for name, text in texts:
        reason = None if text is None else why_not_a_string(text)
        if reason is not None:
            raise ConfigurationError(f"{name}: {reason}")
