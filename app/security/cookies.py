"""Cookies of a request (RFC 6265 §5.4)."""

from __future__ import annotations

from typing import Any


def cookie_of(scope: Any, name: bytes) -> bytes | None:
    """The value of a cookie; None where there is none, or where there are several of the name.

    Of two with one name nobody can tell which the application set: another host below its domain may add one.

    Args:
        scope: the request's (ASGI).
        name: the cookie's.
    """
    found: bytes | None = None
    for header, value in scope["headers"]:
        if header != b"cookie":
            continue
        for pair in value.split(b";"):
            key, separator, content = pair.strip().partition(b"=")
            if separator and key == name:
                if found is not None:
                    return None
                found = content.strip(b'"')
    return found
