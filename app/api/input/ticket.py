"""The query parameter ``ticket``: taken out of a request before anybody else can see, log or refuse it."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from app.api.input.query import repeated_parameter

TICKET: Final = "ticket"

_NAME: Final = TICKET.encode("ascii")


def take_ticket(scope: Scope) -> str | None:
    """The ticket of a request, which has it no more afterwards; None where it brings none.

    Args:
        scope: the request's (ASGI).

    Raises:
        ProblemError: REPEATED_PARAMETER where there are several.
    """
    found: list[bytes] = []
    others: list[bytes] = []
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.partition(b"=")
        if name == _NAME or (b"%" in name and unquote_to_bytes(name) == _NAME):
            found.append(value)
        else:
            others.append(part)
    if not found:
        return None
    scope["query_string"] = b"&".join(others)
    if len(found) > 1:
        raise repeated_parameter(TICKET)
    return unquote_to_bytes(found[0]).decode("latin-1")
