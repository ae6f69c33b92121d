"""Which brokers a credential may be tried at: whoever may ask the bridge to connect could use it as a probe.

Rules:

1. The configured broker may always be tried, whatever its address.
2. Any other host has to be in the list of the settings, by name, before its name is even looked up.
3. Its address may not be of this machine, of the link, or of a private or special network, unless the list
   has that address, or a network that it is in. What was checked is connected to: the name is looked up once.
4. User name and password of the settings are for the configured broker alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from app.settings.hosts import Network, as_host, as_network
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError
from tidegate.url import parse_url


class ForbiddenTargetError(Exception):
    """A broker that is not on the list; the text says how to put it there."""


class Targets:
    """The brokers that may be tried.

    Args:
        allowed: names with or without a port, addresses, and networks.
        configured: how the configured broker is reached.

    Raises:
        ValueError: an entry cannot be read.
    """

    def __init__(self, allowed: Iterable[str], configured: ConnectOptions) -> None:
        self._configured = configured
        self._hosts: set[tuple[str, int | None]] = set()
        self._networks: list[Network] = []
        for entry in allowed:
            network = as_network(entry)
            if network is not None:
                self._networks.append(network)
            else:
                self._hosts.add(as_host(entry))

    def options_for(self, url: str) -> ConnectOptions:
        """How to reach the broker of a URL; without TLS settings.

        Raises:
            ConfigurationError: it is not the URL of a broker with TLS.
            ForbiddenTargetError: it is not on the list.
        """
        parsed = parse_url(url)
        if parsed.kind != "mqtt":
            raise ConfigurationError("this is the URL of a bridge; a broker's begins with mqtts")
        options = parsed.connect_options
        configured = self._configured
        if _place(options) == _place(configured):
            return configured
        if options.tls is None or options.transport != "tcp":
            raise ConfigurationError("a credential is tried at a broker with TLS: begin its URL with mqtts")
        if not self._is_listed(options):
            raise ForbiddenTargetError(
                f"{options.host}, port {options.port}, is neither the configured broker nor listed in "
                "TIDEGATE_CREDENTIALS_TEST_HOSTS"
            )
        return replace(options, connect_timeout_seconds=configured.connect_timeout_seconds)

    def is_configured_address(self, options: ConnectOptions) -> bool:
        """Whether these lead to the configured broker."""
        return _place(options) == _place(self._configured)

    def may_reach(self, address: str) -> bool:
        """Whether the address of a listed host may be connected to."""
        found = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None)
        found = found if mapped is None else mapped
        if any(found.version == each.version and found in each for each in self._networks):
            return True
        return found.is_global and not (found.is_multicast or found.is_reserved)

    def _is_listed(self, options: ConnectOptions) -> bool:
        host = options.host.lower().rstrip(".")
        if (host, None) in self._hosts or (host, options.port) in self._hosts:
            return True
        address = as_network(host)
        return address is not None and any(
            each.version == address.version and address.network_address in each for each in self._networks
        )


def _place(options: ConnectOptions) -> tuple[str, int, str]:
    return options.host.lower().rstrip("."), options.port, options.transport
