"""What the session needs of an MQTT client: one network connection, behind a small protocol.

Rules for an implementation:

1. ``connect`` returns after a CONNACK with a success, or raises from the error tree; it never retries.
2. ``publish`` never blocks and never awaits: it hands the packet to the connection's own output. What becomes
   of it is told once through ``ConnectionEvents.on_published``, with the token that ``publish`` was given:
   for QoS 0 when the bytes are with the socket, for QoS 1 and 2 with the broker's final reason code.
   A 3.1.1 acknowledgement has no code and counts as 0x00.
3. The implementation does not bound what is in flight; the session does (MQTT 5 §4.9).
4. ``on_message`` is called synchronously in the order of arrival, before the message is acknowledged.
5. When the connection ends without ``close``, ``on_lost`` is called once; tokens not yet told are the
   session's to settle, and nothing is called after it.
6. Where CONNACK says that the broker kept the session, ``on_resumed`` is called once, before ``connect``
   returns, with the tokens of the QoS 1 and 2 messages that earlier connections left unanswered in
   ``SessionMemory``, in the order of sending. What it answers decides over each exchange (``Carry``).
7. All calls are made on the event loop that ``connect`` ran on, and all events are called on it.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, Protocol

from tidegate.errors import MQTTConnectionError
from tidegate.message import Message

ProtocolVersion = Literal[4, 5]
"""4 is MQTT 3.1.1, 5 is MQTT 5: the numbers that CONNECT carries (MQTT 5 §3.1.2.2)."""

ProfileChoice = Literal["auto", "generic", "aws-iot"]
"""A kind of broker, or ``auto`` to find it out (``tidegate.profiles``)."""

DEFAULT_KEEPALIVE_SECONDS: Final = 15


@dataclass(frozen=True, slots=True)
class Will:
    """The message that the broker publishes when the connection ends without DISCONNECT (MQTT 5 §3.1.2.5)."""

    message: Message


@dataclass(slots=True)
class SessionMemory:
    """What a connection leaves to the next one of the same session (MQTT 5 §4.1).

    Attributes:
        received: QoS 2 messages received and not released, as the implementation keeps them (§4.3.3).
        sent: QoS 1 and 2 messages sent and not answered for good, with their tokens, as it keeps them (§4.4).
        last_packet_id: the packet identifier used last (§2.2.1).
    """

    received: Any = None
    sent: Any = None
    last_packet_id: int = 0


class Carry(Enum):
    """What becomes of an exchange that an earlier connection of the session left unfinished (MQTT 5 §4.4).

    Whatever it is, the message is not sent as a new one: the broker may remember its packet identifier.
    """

    CONTINUE = "continue"
    """It goes on now: PUBLISH again, marked as a duplicate, or PUBREL where PUBREC was seen."""
    HOLD = "hold"
    """It waits; ``publish`` with the same token goes on with it."""
    DROP = "drop"
    """Nobody waits for it: it is not published again. A PUBREL is, since that ends the broker's part."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to reach a broker and what to say in CONNECT.

    Attributes:
        host: name or address.
        port: TCP port.
        transport: plain ``tcp``, or MQTT within a WebSocket (MQTT 5 §6).
        path: the WebSocket's path.
        tls: the context to use; None for a connection without TLS.
        username: user name of CONNECT.
        password: password of CONNECT; kept out of ``repr``.
        client_id: client identifier; empty for one made up by the session.
        protocol_version: 5, 4, or None for 5 first and 4 where the broker has no 5.
        keepalive_seconds: the Keep Alive of CONNECT (§3.1.2.10).
        clean_start: forget an earlier session (§3.1.2.4).
        session_expiry_seconds: how long the broker keeps the session after a disconnect (§3.1.2.11.2).
        connect_timeout_seconds: bound on name look-up, TCP, TLS and CONNACK together.
        will: published by the broker if this client vanishes.
        memory: what earlier connections of the session left; None where it ends with its connection.
        profile: the kind of broker, where its host name and CONNACK do not tell (``tidegate.profiles``).
        address: where to connect in place of looking ``host`` up, which TLS verifies all the same; not for
            WebSockets.
    """

    host: str = "localhost"
    port: int = 1883
    transport: Literal["tcp", "websockets"] = "tcp"
    path: str = "/mqtt"
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    client_id: str = ""
    protocol_version: ProtocolVersion | None = None
    keepalive_seconds: int = DEFAULT_KEEPALIVE_SECONDS
    clean_start: bool = True
    session_expiry_seconds: int = 0
    connect_timeout_seconds: float = 10.0
    will: Will | None = None
    memory: SessionMemory | None = field(default=None, repr=False, compare=False)
    profile: ProfileChoice = "auto"
    address: str | None = None


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What CONNACK said (MQTT 5 §3.2.2.3), with the standard's defaults where it was silent.

    The last five are no part of CONNACK: they come from the broker's profile (``tidegate.profiles``).

    Attributes:
        protocol_version: the version in use.
        session_present: the broker kept a session under this client identifier (§3.2.2.1.1).
        client_id: the client identifier in use.
        receive_maximum: QoS 1 and 2 messages that may be in flight toward the broker.
        maximum_qos: the highest QoS that the broker takes.
        retain_available: whether retained messages are taken.
        maximum_packet_size: in bytes, or None for no limit.
        wildcard_available: whether ``+`` and ``#`` may be subscribed to.
        subscription_identifiers_available: whether SUBSCRIBE may carry an identifier.
        shared_available: whether ``$share`` may be subscribed to.
        topic_alias_maximum: highest topic alias that the broker takes; 0 for none.
        keepalive_seconds: the Keep Alive in force.
        profile: the kind of broker.
        maximum_payload_bytes: bytes of payload in a PUBLISH, or None for no limit.
        maximum_topic_bytes: bytes of UTF-8 in a topic name or filter, or None for what MQTT allows.
        maximum_topic_slashes: slashes in a topic name or filter, or None for what MQTT allows.
        maximum_filters: topic filters in one SUBSCRIBE.
    """

    protocol_version: ProtocolVersion = 5
    session_present: bool = False
    client_id: str = ""
    receive_maximum: int = 65_535
    maximum_qos: int = 2
    retain_available: bool = True
    maximum_packet_size: int | None = None
    wildcard_available: bool = True
    subscription_identifiers_available: bool = True
    shared_available: bool = True
    topic_alias_maximum: int = 0
    keepalive_seconds: int = DEFAULT_KEEPALIVE_SECONDS
    profile: str = "generic"
    maximum_payload_bytes: int | None = None
    maximum_topic_bytes: int | None = None
    maximum_topic_slashes: int | None = None
    maximum_filters: int = 100


@dataclass(frozen=True, slots=True)
class Subscription:
    """One topic filter of a SUBSCRIBE and its options (MQTT 5 §3.8.3.1).

    Attributes:
        filter: the topic filter.
        qos: the highest QoS at which messages are wanted.
        identifier: the subscription identifier, 1 to 268,435,455, or None (§3.8.2.1.2); left out on 3.1.1.
        retain_handling: 0 send retained messages, 1 only if the subscription is new, 2 do not (left out on
            3.1.1).
        retain_handling_again: the same for when it is made again, because the broker forgot the session; None
            for as it was.
        retain_as_published: keep the publisher's retain flag on live messages (left out on 3.1.1).
        no_local: do not send back what this connection published (left out on 3.1.1).
    """

    filter: str
    qos: int = 0
    identifier: int | None = None
    retain_handling: Literal[0, 1, 2] = 0
    retain_handling_again: Literal[0, 1, 2] | None = None
    retain_as_published: bool = False
    no_local: bool = False


class ConnectionEvents(Protocol):
    """What a connection tells its owner."""

    def on_message(self, message: Message, /) -> None:
        """A message arrived."""

    def on_published(self, token: Any, reason_code: int, /) -> None:
        """The publish with this token ended with this reason code (0x80 and above: refused)."""

    def on_resumed(self, limits: BrokerLimits, tokens: Sequence[Any], /) -> Sequence[Carry]:
        """The broker kept the session: what becomes of the exchange of each of these tokens, in order."""

    def on_lost(self, error: MQTTConnectionError, /) -> None:
        """The connection ended, and not by ``close``."""


class Connection(Protocol):
    """One live connection to a broker."""

    @property
    def limits(self) -> BrokerLimits:
        """What the broker said in CONNACK."""

    def publish(self, message: Message, token: Any) -> None:
        """Send PUBLISH (§3.3), or go on with the exchange that is held for this token.

        Args:
            message: what to send.
            token: what ``on_published`` is told; hashable, and of one message alone.

        Raises:
            NotConnectedError: the connection is gone already.
        """

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> list[int]:
        """Send SUBSCRIBE and return a reason code for each filter, in order (§3.9.3).

        All filters of one call carry the identifier of the first. Raises MQTTConnectionError.
        """

    async def unsubscribe(self, filters: Sequence[str]) -> list[int]:
        """Send UNSUBSCRIBE and return a reason code for each filter (§3.11.3); all 0x00 on 3.1.1."""

    async def ping(self) -> None:
        """Make one round trip to the broker. Raises MQTTConnectionError if the connection ends meanwhile."""

    async def close(self, *, ends_session: bool = False) -> None:
        """Flush what is queued, send DISCONNECT, and close; a second call does nothing.

        Args:
            ends_session: the broker need not keep the session (§3.14.2.2.2); has no use on 3.1.1.
        """


class Connect(Protocol):
    """Opens connections; the point at which another MQTT client can stand in."""

    async def __call__(self, options: ConnectOptions, events: ConnectionEvents) -> Connection:
        """Open one connection.

        Raises:
            ConnectRefusedError: the broker answered with a refusing reason code.
            TLSError: the handshake failed.
            MQTTTimeoutError: no CONNACK within ``connect_timeout_seconds``.
            MQTTConnectionError: anything else that kept the connection from being made.
        """
