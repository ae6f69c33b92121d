"""One URL decides the transport: ``mqtt`` and ``ws`` talk to a broker, ``http`` goes through a bridge."""

from __future__ import annotations

import difflib
import ssl
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from tidegate.connection import ConnectOptions, ProtocolVersion
from tidegate.errors import ConfigurationError

DEFAULT_URL: Final = "mqtt://localhost:1883"

_BROKER_SCHEMES: Final[dict[str, tuple[Literal["tcp", "websockets"], bool, int]]] = {
    "mqtt": ("tcp", False, 1883),
    "mqtts": ("tcp", True, 8883),
    "ws": ("websockets", False, 80),
    "wss": ("websockets", True, 443),
}
_BRIDGE_SCHEMES: Final = ("http", "https")
_PARAMETERS: Final = ("client_id", "keepalive", "protocol")
_PROTOCOLS: Final[dict[str, ProtocolVersion | None]] = {"auto": None, "5": 5, "3.1.1": 4}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads.

    Attributes:
        kind: ``"mqtt"`` for a broker, ``"bridge"`` for a Tidegate bridge.
        connect_options: how to reach the broker; the defaults where the URL names a bridge.
        bridge_url: the bridge's base URL without a trailing slash; empty where the URL names a broker.
    """

    kind: Literal["mqtt", "bridge"]
    connect_options: ConnectOptions = field(default_factory=ConnectOptions)
    bridge_url: str = ""


def parse_url(url: str, *, tls: ssl.SSLContext | None = None) -> Target:
    """Read a broker's or a bridge's URL.

    Args:
        url: ``mqtt://``, ``mqtts://``, ``ws://``, ``wss://`` with optional ``user:password@``, port,
            WebSocket path and the parameters ``client_id``, ``keepalive`` (seconds) and ``protocol``
            (``auto``, ``5``, ``3.1.1``); or ``http://``, ``https://``.
        tls: the context; ``mqtt`` and ``ws`` then mean the same as ``mqtts`` and ``wss``, which take the
            system's certificate authorities where it is left out.

    Raises:
        ConfigurationError: the URL cannot be used; the text never repeats its password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"the URL cannot be read: {_reason(error, url)}") from None
    if "@" in parts.path or "@" in parts.query or "@" in parts.fragment:
        raise ConfigurationError(
            "the URL has an '@' behind its host; in a user name or password write %2F for '/', %3F for '?', "
            "%23 for '#' and %40 for '@'"
        )
    if parts.scheme in _BRIDGE_SCHEMES:
        return Target("bridge", bridge_url=_bridge_url(parts))
    if parts.scheme not in _BROKER_SCHEMES:
        allowed = ", ".join(f"{scheme}://" for scheme in (*_BROKER_SCHEMES, *_BRIDGE_SCHEMES))
        raise ConfigurationError(f"the URL begins with {_scheme(url)!r}; it must begin with one of {allowed}")
    if not parts.hostname:
        raise ConfigurationError(
            f"the {parts.scheme} URL names no host, as in {parts.scheme}://broker.example"
        )
    transport, encrypted, default_port = _BROKER_SCHEMES[parts.scheme]
    if tls is not None and not encrypted:
        encrypted, default_port = True, {"tcp": 8883, "websockets": 443}[transport]
    if transport == "tcp" and parts.path not in ("", "/"):
        raise ConfigurationError(f"a path ({parts.path!r}) has no meaning in an {parts.scheme} URL")
    if parts.fragment:
        raise ConfigurationError("'#' begins a fragment, which a broker URL has no use for; write %23 for it")
    parameters = _parameters(parts.query)
    return Target(
        "mqtt",
        ConnectOptions(
            host=parts.hostname,
            port=port if port is not None else default_port,
            transport=transport,
            path=parts.path if parts.path not in ("", "/") else "/mqtt",
            tls=(tls or ssl.create_default_context()) if encrypted else None,
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            client_id=parameters.get("client_id", ""),
            protocol_version=_protocol(parameters.get("protocol", "auto")),
            keepalive_seconds=_keepalive(parameters.get("keepalive", "15")),
        ),
    )


def without_password(url: str) -> str:
    """The URL with its password, if it may have one, replaced by ``***``: fit for a log or an error text.

    Whatever stands between the first colon and the last ``@`` counts as the password, well-formed or not.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}{separator}{user}:***@{host}" if at and colon else url


def _scheme(url: str) -> str:
    head, separator, _ = url.partition("://")
    return f"{head}://" if separator else url.partition("@")[2] or url


def _reason(error: ValueError, url: str) -> str:
    """The parser's own words, unless they might quote a part of the URL that holds the password."""
    return "its host or port is malformed" if "@" in url else str(error)


def _bridge_url(parts: SplitResult) -> str:
    if not parts.hostname:
        raise ConfigurationError(
            f"the {parts.scheme} URL names no host, as in {parts.scheme}://127.0.0.1:8080"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "a bridge's URL is scheme, host, port and path alone; give a token with token= or TIDEGATE_TOKEN"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _PARAMETERS:
            near = difflib.get_close_matches(name, _PARAMETERS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_PARAMETERS)}"
            raise ConfigurationError(f"the URL has an unknown parameter {name!r}; {hint}")
        if name in parameters:
            raise ConfigurationError(f"the URL gives the parameter {name!r} twice")
        parameters[name] = value
    return parameters


def _protocol(text: str) -> ProtocolVersion | None:
    if text not in _PROTOCOLS:
        raise ConfigurationError(f"protocol={text!r} is unknown; write one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[text]


def _keepalive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65_535:
        raise ConfigurationError(f"keepalive={text!r} is not a number of seconds from 1 to 65535")
    return int(text)
