"""Entries of a list of hosts: names with or without a port, addresses, and networks."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from tidegate.url import without_password

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def as_network(entry: str) -> Network | None:
    """An address, or a network as in ``10.0.0.0/8``; None for a name.

    Raises:
        ValueError: it has a slash and is no network.
    """
    if "/" in entry:
        try:
            return ipaddress.ip_network(entry)
        except ValueError:
            raise _no_host(entry) from None
    try:
        return ipaddress.ip_network(entry.strip("[]"))
    except ValueError:
        return None


def as_host(entry: str) -> tuple[str, int | None]:
    """A name, and a port where one is given.

    Raises:
        ValueError: it is neither.
    """
    host, separator, port = entry.partition(":")
    if not host or (separator and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)):
        raise _no_host(entry)
    return host.lower().rstrip("."), int(port) if separator else None


def _no_host(entry: str) -> ValueError:
    shown = without_password(entry)
    return ValueError(f"{shown!r} is no host; write broker.example, broker.example:8883 or 10.0.0.0/8")
