"""Where to connect and how: arguments win over ``configure``, ``configure`` over the environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict, Unpack

from tidegate.connection import Connect, ConnectOptions
from tidegate.errors import ConfigurationError
from tidegate.formatters import Formatter, JSONFormatter
from tidegate.tls import TLS, make_context
from tidegate.transports.transport import Transport
from tidegate.url import DEFAULT_URL, parse_url

Token = str | Callable[[], str | Awaitable[str]] | None

URL_VARIABLE: Final = "TIDEGATE_URL"
TOKEN_VARIABLE: Final = "TIDEGATE_TOKEN"  # noqa: S105 - the name of a variable
TLS_VARIABLE: Final = "TIDEGATE_TLS"

_DEFAULT_FORMATTER: Final = JSONFormatter()


class Where(TypedDict, total=False):
    """The keyword arguments, beside ``url``, of everything that connects; ``Options`` says what they mean."""

    host: str | None
    port: int | None
    username: str | None
    password: str | None
    client_id: str | None
    tls: TLS
    token: Token
    formatter: Formatter | None
    connect: Connect | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a client was told about where and how to connect; None stands for not told.

    Attributes:
        url: a broker's or a bridge's URL.
        host: the broker's host, for a direct connection; wins over the URL's, and over a whole URL of a lower
            rank.
        port: the broker's TCP port; wins over the URL's. Where neither says one: 8883 with TLS, else 1883.
        username: the broker's user name.
        password: the broker's password.
        client_id: the client identifier (MQTT 5 §3.1.3.1).
        tls: a context, a bundle or its path, a mapping of files, or True for the system's authorities.
        token: a bridge's bearer token, or a function or coroutine function that gives one for each request,
            and another where the bridge refuses it.
        formatter: what writes and reads payloads.
        connect: what opens broker connections; an in-memory broker's in tests.
    """

    url: str | None = None
    host: str | None = None
    port: int | None = None
    username: str | None = None
    password: str | None = None
    client_id: str | None = None
    tls: TLS = None
    token: Token = None
    formatter: Formatter | None = None
    connect: Connect | None = None

    def __repr__(self) -> str:
        """Without anything that may be secret."""
        return f"Options(host={self.host!r}, port={self.port!r}, client_id={self.client_id!r}, …)"

    def key(self) -> tuple[object, ...]:
        """What tells two sets of options apart; those that are the same may share a connection."""
        plain = (self.url, self.host, self.port, self.username, self.password, self.client_id)
        others = (self.tls, self.token, self.formatter, self.connect)
        return (*plain, *map(_comparable, others))

    def connection_key(self, broker: ConnectOptions) -> tuple[object, ...]:
        """What tells apart two clients that name one client identifier, however they were told.

        Args:
            broker: what these options lead to.
        """
        tls = None if isinstance(self.tls, bool) else _comparable(self.tls)
        return replace(broker, tls=None), broker.tls is not None, tls, _comparable(self.connect)

    def over(self, lower: Options) -> Options:
        """These options, filled up with those of a lower rank."""
        told = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        if self.host is not None or self.url is not None:
            place = self.host or self.url
            if (lower.host or lower.url) not in (None, place):
                # what proves who calls was meant for the other place
                lower = replace(lower, username=None, password=None, client_id=None, token=None, tls=None)
            lower = replace(lower, url=None, host=None, port=None)
        return replace(lower, **told)

    def broker_host(self) -> str | None:
        """The host of the broker that these options lead to; None where it is a bridge.

        Raises:
            ConfigurationError: the URL cannot be used.
        """
        target = parse_url(DEFAULT_URL if self.url is None else self.url)
        if self.host is not None:
            return self.host
        return target.connect_options.host if target.kind == "mqtt" else None

    def make_transport(self) -> Transport:
        """The transport that these options lead to; nothing connects yet.

        Raises:
            ConfigurationError: they cannot be used together.
            TLSError: a certificate file cannot be used.
        """
        context = make_context(self.tls)
        target = parse_url(DEFAULT_URL if self.url is None else self.url, tls=context)
        if target.kind == "bridge" and self.host is None:
            self._refuse_broker_options()
            from tidegate.transports.bridge import BridgeTransport  # noqa: PLC0415 - brings an HTTP client

            return BridgeTransport(target.bridge_url, token=self.token, tls=context)
        from tidegate.transports.direct import DirectTransport  # noqa: PLC0415

        options = target.connect_options
        given: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "username": self.username,
            "password": self.password,
            "client_id": self.client_id,
            "tls": context,
        }
        if context is not None and self.port is None and (self.url is None or target.kind == "bridge"):
            given["port"] = 8883
        told = {name: value for name, value in given.items() if value is not None}
        return DirectTransport(replace(options, **told), connect=self.connect)

    def _refuse_broker_options(self) -> None:
        for name in ("port", "username", "password", "client_id", "connect"):
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{name} has no meaning through a bridge, which has its own connection to the broker"
                )


def _comparable(value: object) -> object:
    """Something hashable, equal for what means the same; keeps alive what only its identity tells apart."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), str(each)) for name, each in value.items()))
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


_lock = threading.Lock()
_configured = Options()
_generation = 0


def configure(url: str | None = None, **where: Unpack[Where]) -> None:
    """Say once where decorators and clients connect; what is left out here comes from the environment.

    A call replaces what an earlier one said.

    Args:
        url: a broker's or a bridge's URL.
        where: the rest, as ``Options`` describes it.

    Raises:
        ConfigurationError: the URL cannot be used.
    """
    global _configured, _generation  # noqa: PLW0603 - said once for the process, like the environment
    if url is not None:
        parse_url(url)
    options = Options(url=url, **where)
    with _lock:
        _configured = options
        _generation += 1


def generation() -> int:
    """How often ``configure`` was called: what was resolved in an earlier generation may be out of date."""
    return _generation


def resolve(options: Options) -> Options:
    """Fill options up from ``configure``, then ``TIDEGATE_URL``, ``TIDEGATE_TOKEN`` and ``TIDEGATE_TLS``."""
    environment = Options(
        url=os.environ.get(URL_VARIABLE) or None,
        token=os.environ.get(TOKEN_VARIABLE) or None,
        tls=os.environ.get(TLS_VARIABLE) or None,
    )
    found = options.over(_configured.over(environment))
    return found if found.formatter is not None else replace(found, formatter=_DEFAULT_FORMATTER)
