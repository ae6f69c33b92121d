"""Which request the code of the moment works for, so that records of the log can say so."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Coroutine, Mapping
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

HEADER: Final = "X-Request-Id"
RAW_HEADER: Final = HEADER.lower().encode()

MAX_CHARACTERS: Final = 128

request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")
"""The id of the request at hand; empty outside of one."""

trace_id: Final[ContextVar[str]] = ContextVar("trace_id", default="")
"""The id of its trace, where there is one that is recorded."""

ROUTE: Final = "tidegate.route"
"""Where the scope of a request (ASGI) has the template of its path, such as ``/v1/topics/{topic}``."""

NO_ROUTE: Final = "none"

_is_visible: Final = re.compile(rb"[!-~]{1,%d}" % MAX_CHARACTERS).fullmatch
_random_bits: Final = random.getrandbits


def request_id_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The id that a request came with, or a new one.

    An id is up to 128 visible characters of ASCII; what is longer, or would break a line of a log, is
    replaced.

    Args:
        headers: those of the request, names in lower case.
    """
    for name, value in headers:
        if name == RAW_HEADER and _is_visible(value):
            return value
    return b"%032x" % _random_bits(128)  # no secret


async def outside_of_requests(work: Coroutine[Any, Any, Result]) -> Result:
    """Do something in no request's name: what it starts may go on when the request that asked is over."""
    return await asyncio.create_task(work, context=Context())


def route_of(scope: Mapping[str, Any]) -> str:
    """The template of a request's path, once it was routed; ``none`` where nothing is at the path."""
    found = scope.get(ROUTE)
    if found is None:
        found = getattr(scope.get("route"), "path_format", NO_ROUTE)
    return str(found)
