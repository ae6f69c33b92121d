"""W3C Trace Context and MQTT 5: ``traceparent`` and ``tracestate`` are user properties of the same names.

Rules:

1. A ``traceparent`` that is not valid counts as none, and ``tracestate`` then too (Trace Context §3.2, §3.3).
2. A ``tracestate`` that is not valid is left out; ``traceparent`` stays.
3. What the caller sets as a user property wins over the header.
4. Here is no span: both are passed on as they came. Where traces are asked for, ``app.tracing`` puts the
   context of the bridge's own span in their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tidegate.message import Properties

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
NAMES: Final = (TRACEPARENT, TRACESTATE)
MAX_MEMBERS: Final = 32

_parent: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?", re.ASCII
).fullmatch
_is_member: Final = re.compile(
    r"(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]",
    re.ASCII,
).fullmatch


def with_trace(properties: Properties, headers: Iterable[tuple[bytes, bytes]]) -> Properties:
    """The properties, with the trace that a request's headers tell of.

    Args:
        properties: those of the message.
        headers: the headers ``traceparent`` and ``tracestate``, names in lower case.
    """
    if any(name in NAMES for name, _ in properties.user_properties):
        return properties
    found = _valid((name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers)
    return replace(properties, user_properties=properties.user_properties + found) if found else properties


def trace_of(properties: Properties) -> tuple[tuple[str, str], ...]:
    """The trace that a message's user properties tell of; empty where they tell of none."""
    return _valid(properties.user_properties) if properties.user_properties else ()


def _valid(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    parents: list[str] = []
    states: list[str] = []
    for name, value in pairs:
        if name == TRACEPARENT:
            parents.append(value)
        elif name == TRACESTATE:
            states.append(value)
    if len(parents) != 1 or not _is_parent(parents[0]):
        return ()
    state = ",".join(states)
    if not _is_state(state):
        return ((TRACEPARENT, parents[0]),)
    return ((TRACEPARENT, parents[0]), (TRACESTATE, state))


def _is_parent(text: str) -> bool:
    """Whether it is valid (Trace Context §3.2.2); a version that is not known may have more at its end."""
    found = _parent(text)
    if found is None:
        return False
    version, trace, parent, more = found.groups()
    return (
        version != "ff" and bool(trace.strip("0") and parent.strip("0")) and (more is None or version != "00")
    )


def _is_state(text: str) -> bool:
    """Whether it is valid and says something (Trace Context §3.3.1)."""
    members = [each for part in text.split(",") if (each := part.strip(" \t"))]
    keys = {each.partition("=")[0] for each in members}
    return 0 < len(members) <= MAX_MEMBERS and len(keys) == len(members) and all(map(_is_member, members))
