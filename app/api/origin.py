"""Whose page a request comes from, and by which name it found the bridge.

A browser sends what makes a request good by itself: a cookie, a client certificate, or nothing at all where
the bridge asks nobody who they are. Any page can have it do so.

Rules:

1. What the browser says counts, and it can't be made to say anything else: ``Sec-Fetch-Site`` (W3C Fetch
   Metadata) where it is there, else ``Origin`` against ``Host``. What a proxy adds does not.
2. Programs say neither, and are not asked.
3. Pages of other origins are refused whatever changes something or opens a stream, unless the settings list
   them. What they may read is for CORS.
4. A name that an attacker has in the DNS, and points at the bridge, makes the attacker's page one of the
   bridge's own origin. So where nobody is asked who they are, ``Host`` has to be an address or a known name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from starlette.types import Scope

from app.problems import ProblemError, ProblemType
from app.security.authentication import AMBIENT
from app.security.principal import Principal, Source

STREAM: Final = "/v1/subscribe"

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})
_parts: Final = re.compile(r"(\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d*)?").fullmatch
_REMEMBERED: Final = 64
"""Values of ``Host`` that are known to be good."""


class Origins:
    """Decides.

    Args:
        listed: origins whose pages may do as the bridge's own do.
        hosts: names by which the bridge is known, besides addresses and those of this machine; None where
            any name will do.
    """

    def __init__(self, listed: Iterable[str], hosts: Iterable[str] | None) -> None:
        self._listed = frozenset(each.encode("latin-1") for each in listed)
        self._hosts = None if hosts is None else frozenset(each.lower() for each in hosts)
        self._known: set[bytes] = set()

    def require_host(self, scope: Scope) -> None:
        """Refuse a request for a host that is not the bridge.

        Raises:
            ProblemError: UNKNOWN_HOST.
        """
        if self._hosts is None:
            return
        for name, value in scope["headers"]:
            if name == b"host" and value not in self._known:
                if not self._is_own(value.decode("latin-1")):
                    raise ProblemError(
                        ProblemType.UNKNOWN_HOST,
                        f"{value.decode('latin-1')!r} is no name of this bridge",
                        field="Host",
                        hint="use its address or localhost, or add the name to TIDEGATE_ALLOWED_HOSTS",
                    )
                if len(self._known) < _REMEMBERED:
                    self._known.add(value)

    def require_page(self, scope: Scope, principal: Principal, path: str) -> None:
        """Refuse a request of a web page of another origin.

        Args:
            scope: the request's (ASGI).
            principal: who makes it.
            path: its path, decoded.

        Raises:
            ProblemError: FORBIDDEN for a page that is neither the bridge's own nor listed.
        """
        if scope["type"] != "websocket":  # a browser lets any page open one to anywhere (RFC 6455 §10.2)
            if scope["method"] in _READING and path != STREAM:
                return
            if principal.source is not Source.NONE and AMBIENT not in scope:
                return
        origin = site = host = b""
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"host":
                host = value
        if origin in self._listed:
            return
        if site in _OWN_SITES or not (site or origin) or (not site and origin.partition(b"://")[2] == host):
            return
        whose = origin.decode("latin-1") or "another origin"
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"web pages of {whose} may not do this",
            field="Origin" if origin else "Sec-Fetch-Site",
            hint="add the origin to TIDEGATE_CORS_ORIGINS",
        )

    def _is_own(self, host: str) -> bool:
        assert self._hosts is not None
        found = _parts(host.lower())
        if found is None:
            return False
        name: str = found[2] or found[3].removesuffix(".")
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
