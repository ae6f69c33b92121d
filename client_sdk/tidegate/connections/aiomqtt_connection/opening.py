"""How aiomqtt's client opens its connection."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.reasoncodes import ReasonCode

from tidegate.connection import ConnectOptions, ProtocolVersion
from tidegate.connections import failures
from tidegate.connections.handshake import shake_hands
from tidegate.errors import MQTTConnectionError
from tidegate.profiles import alpn_protocol

make_properties: Callable[[int], Any] = PahoProperties


class Opening(aiomqtt.Client):
    """aiomqtt's client, with the causes of a failure to open."""

    def __init__(self, options: ConnectOptions, version: ProtocolVersion) -> None:
        will = None
        if options.will is not None:
            message = options.will.message
            will = aiomqtt.Will(message.topic, message.payload, message.qos, message.retain)
        super().__init__(
            options.address or options.host,
            options.port,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion(version),
            clean_session=options.clean_start if version < 5 else None,
            clean_start=options.clean_start if version >= 5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=_connect_properties(options) if version >= 5 else None,
            transport=options.transport,
            websocket_path=options.path if options.transport == "websockets" else None,
            tls_context=options.tls,
            keepalive=options.keepalive_seconds,
            timeout=math.inf,
            max_inflight_messages=0,
            will=will,
        )
        self._options = options
        self._version = version
        self._failure: BaseException | None = None
        self._is_in_handshake = False
        self._is_closed_early = False
        self._is_abandoned = False
        self._client.disable_logger()
        self._client.connect_timeout = options.connect_timeout_seconds
        self._client.on_log = self._on_log
        self._client._ssl_wrap_socket = self._wrap_socket  # type: ignore[method-assign,assignment]

    async def open(self) -> None:
        """Connect, and wait for CONNACK."""
        address = f"{self._options.host}:{self._options.port}"
        try:
            await self.__aenter__()
        except aiomqtt.MqttError as error:
            raise self._failed(error, address) from error
        finally:
            self._client.on_log = None
        if self._client.socket() is None:
            raise MQTTConnectionError(f"{address} closed the connection right after CONNACK")

    # What paho calls while it opens the socket, in a thread of the event loop's.

    def _client_connect(self) -> None:
        try:
            super()._client_connect()
        except OSError as error:
            self._failure = error
            raise

    def _wrap_socket(self, plain: socket.socket) -> ssl.SSLSocket:
        """The TLS handshake, in the connecting thread; where paho's fails it leaves an open socket."""
        options = self._options
        assert options.tls is not None
        self._is_in_handshake = True
        wrapped = shake_hands(
            plain,
            options.tls,
            host=options.host,
            alpn=alpn_protocol(options),
            timeout_seconds=options.connect_timeout_seconds,
        )
        self._is_in_handshake = False
        return wrapped

    def _on_log(self, client: paho.Client, userdata: Any, level: int, text: str) -> None:
        """Kept during the handshake only: paho tells the cause of a failed read nowhere else."""
        if level == paho.MQTT_LOG_ERR and self._failure is None:
            self._failure = OSError(text.partition(": ")[2] or text)

    def _failed(self, error: aiomqtt.MqttError, address: str) -> MQTTConnectionError:
        if isinstance(error, MqttConnectError):
            return failures.refused(address, error.rc.value if isinstance(error.rc, ReasonCode) else 0x80)
        if self._failure is not None:
            return failures.unreachable(address, self._failure, in_handshake=self._is_in_handshake)
        if self._is_closed_early:
            return failures.ClosedBeforeConnackError(f"{address} closed the connection without answering")
        return MQTTConnectionError(f"{address} cannot be reached: {error}")


def _connect_properties(options: ConnectOptions) -> PahoProperties:
    """The properties of CONNECT (MQTT 5 §3.1.2.11)."""
    carried: PahoProperties = make_properties(PacketTypes.CONNECT)
    if options.session_expiry_seconds:
        carried.SessionExpiryInterval = options.session_expiry_seconds
    return carried
