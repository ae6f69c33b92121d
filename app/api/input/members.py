"""Where the members of a JSON object stand in its text, so that one can be passed on as it was written.

Reading a payload into numbers and writing it again would change it: 1.10 becomes 1.1, a long number loses
digits, a repeated name loses a value. The text between two commas loses nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, NoReturn

_skip_space: Final = re.compile(r"[ \t\n\r]*").match


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Numbers are only passed over: float takes any length of digits, int would not.
_decoder: Final = json.JSONDecoder(parse_int=float, parse_constant=_refuse)
_read: Final[Callable[[str, int], tuple[object, int]]] = _decoder.raw_decode


def split_members(text: str) -> dict[str, str]:
    """The members of a JSON object: each name with the text of its value.

    Args:
        text: one valid JSON object.

    Raises:
        ValueError: it is not, a name is there twice, or a number is NaN or an infinity.
        RecursionError: it is nested too deep.
    """
    members: dict[str, str] = {}
    at = _space(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = _read(text, at)
        if not isinstance(name, str) or name in members:
            raise ValueError(f"the name {name!r} is there twice")
        start = _space(text, _space(text, at) + 1)
        _, end = _read(text, start)
        members[name] = text[start:end]
        at = _space(text, end)
        if text[at] == ",":
            at = _space(text, at + 1)
    return members


def _space(text: str, at: int) -> int:
    found = _skip_space(text, at)
    assert found is not None
    return found.end()
