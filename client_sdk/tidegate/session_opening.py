"""How a session opens one connection after the other: under one client identifier, and with one memory."""

from __future__ import annotations

import secrets
from dataclasses import replace

from tidegate.connection import (
    BrokerLimits,
    Connect,
    Connection,
    ConnectionEvents,
    ConnectOptions,
    SessionMemory,
)
from tidegate.profiles import check_client_id, find_profile, narrowed


class SessionOpening:
    """Opens the connections of one session.

    Args:
        options: where and how to connect; a client identifier is made up where there is none.
        connect: what opens connections; aiomqtt where it is left out.

    Attributes:
        options: the options in use.
        keeps_session: whether the session outlives its connections (MQTT 5 §4.1).

    Raises:
        ConfigurationError: the client identifier, or the broker profile, cannot be used.
    """

    def __init__(self, options: ConnectOptions, connect: Connect | None) -> None:
        client_id = options.client_id or f"tidegate-{secrets.token_hex(6)}"
        check_client_id(client_id, options.host, options.profile)
        self.options = replace(options, client_id=client_id)
        self.keeps_session = bool(options.session_expiry_seconds)
        self._connect = connect
        self._memory = SessionMemory() if self.keeps_session else None
        self._is_new = True

    @property
    def profile(self) -> str:
        """The kind of broker, as far as it is known without a connection."""
        return find_profile(self.options.host, self.options.profile).name

    def limits_of(self, connection: Connection) -> BrokerLimits:
        """What CONNACK said, within the limits of the broker's profile."""
        return narrowed(connection.limits, self.options.host, self.options.profile)

    def other(self, options: ConnectOptions) -> SessionOpening:
        """The opening of another session, by the same means.

        Raises:
            ConfigurationError: the client identifier, or the broker profile, cannot be used.
        """
        return SessionOpening(options, self._connect)

    def successor(self, options: ConnectOptions) -> SessionOpening:
        """The opening that goes on with this session, reached in another way.

        Raises:
            ConfigurationError: the client identifier, or the broker profile, cannot be used.
        """
        opening = SessionOpening(replace(options, client_id=self.options.client_id), self._connect)
        opening._memory = self._memory
        opening._is_new = self._is_new
        return opening

    async def open(self, events: ConnectionEvents) -> Connection:
        """Open a connection: the first begins clean, each later one continues; raises as ``Connect`` does."""
        if not self.keeps_session:
            return await self._connect_once(self.options, events)
        if self._is_new and self.options.clean_start:
            # A clean session ends with its connection on 3.1.1, and with Mosquitto's process on MQTT 5: this
            # one clears what there was, no more.
            cleared = await self._connect_once(replace(self.options, session_expiry_seconds=0), events)
            await cleared.close()
        options = replace(self.options, clean_start=False, memory=self._memory)
        connection = await self._connect_once(options, events)
        self._is_new = False
        return connection

    async def _connect_once(self, options: ConnectOptions, events: ConnectionEvents) -> Connection:
        if self._connect is not None:
            return await self._connect(options, events)
        from tidegate.connections import aiomqtt_connection  # noqa: PLC0415 - loaded where it is used

        return await aiomqtt_connection.connect(options, events)
