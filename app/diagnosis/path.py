"""The way to one broker, and the steps on it."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from app.diagnosis import steps
from app.diagnosis.advice import Kind, StepError, explain_connect, explain_tcp
from app.diagnosis.handshake import Seen, late_refusal, shake_hands
from tidegate.connection import BrokerLimits, Carry, Connection, ConnectOptions, Subscription
from tidegate.connections import aiomqtt_connection
from tidegate.errors import ConnectRefusedError, MQTTConnectionError, MQTTError
from tidegate.message import Message
from tidegate.reason_codes import describe, is_refusal

TOPIC_PREFIX: Final = "tidegate/doctor/"

_CONNECT_PART: Final = 0.6
"""Of a step's time; the rest is there to find out why CONNECT is not answered."""


class BrokerPath:
    """The way to one host, and the steps on it; also the receiver of the connection's events.

    Args:
        options: where and how to connect.
        may_reach: says of each address of the host whether it may be connected to; any, where it is left out.
        kind: what is at its end, for the advice.
    """

    def __init__(
        self,
        options: ConnectOptions,
        may_reach: Callable[[str], bool] | None = None,
        *,
        kind: Kind = "broker",
    ) -> None:
        self._may_reach = may_reach
        self._kind: Kind = kind
        self._options = options
        self._connection: Connection | None = None
        self._ended: asyncio.Queue[Message | int | MQTTError] = asyncio.Queue()

    async def read(self) -> str:
        """What the options say."""
        options = self._options
        kind = "MQTT over WebSocket" if options.transport == "websockets" else "MQTT"
        user = f", as {options.username!r}" if options.username else ""
        return f"{kind}, {options.host}, port {options.port}{', with TLS' if options.tls else ''}{user}"

    async def resolve(self) -> str:
        """Look the name up."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._options.host, self._options.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no host name"
            raise StepError(
                f"the name {self._options.host!r} has no address: {reason}",
                "Is it spelt right, and does this machine use the name server that knows it?",
            ) from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if self._may_reach is not None:
            allowed = [each for each in addresses if self._may_reach(each)]
            if not allowed:
                raise StepError(
                    f"{self._options.host} leads to an address that is not to be tested",
                    "TIDEGATE_CREDENTIALS_TEST_HOSTS may name the network that the address is of.",
                )
            # what was allowed is what is connected to: the name is not looked up again
            self._options = replace(self._options, address=allowed[0])
            addresses = allowed
        return ", ".join(addresses)

    async def reach(self) -> str:
        """Make a TCP connection."""
        host, port = self._options.host, self._options.port
        try:
            _, writer = await asyncio.open_connection(self._options.address or host, port)
        except OSError as error:
            raise explain_tcp(error, host, port, self._kind) from error
        peer = writer.get_extra_info("peername")
        writer.close()
        return f"{peer[0]}, port {peer[1]} answers"

    async def shake_hands(self) -> Seen:
        """Make a TLS handshake."""
        return await asyncio.to_thread(shake_hands, self._options)

    async def connect(self) -> str:
        """Send CONNECT, and keep the connection."""
        try:
            async with asyncio.timeout(steps.STEP_SECONDS * _CONNECT_PART):
                self._connection = await aiomqtt_connection.connect(self._options, self)
        except ConnectRefusedError as error:
            raise explain_connect(error, self._options) from error
        except (MQTTError, TimeoutError) as error:
            refusal = await asyncio.to_thread(late_refusal, self._options)
            if refusal is not None:
                raise refusal from error
            if isinstance(error, TimeoutError):
                raise
            raise explain_connect(error, self._options) from error
        limits = self._connection.limits
        version = {5: "MQTT 5", 4: "MQTT 3.1.1"}[limits.protocol_version]
        return f"accepted, {version}, QoS up to {limits.maximum_qos}"

    async def round_trip(self) -> str:
        """Publish a message and get it back."""
        connection = self._connection
        assert connection is not None
        topic = TOPIC_PREFIX + secrets.token_hex(8)
        payload = secrets.token_bytes(16)
        rights = (
            f"Give this user the right to publish and subscribe to {TOPIC_PREFIX}#, or heed only what it may."
        )
        try:
            code = (await connection.subscribe([Subscription(topic, qos=1)]))[0]
            if is_refusal(code):
                raise StepError(
                    f"the subscription to {topic} was refused: {describe(code)} (0x{code:02X})", rights
                )
            connection.publish(Message(topic, payload, qos=1), token=topic)
            acknowledged = received = False
            while not (acknowledged and received):
                event = await self._next(acknowledged)
                if isinstance(event, MQTTError):
                    raise event
                if isinstance(event, Message):
                    received = received or event.payload == payload
                elif is_refusal(event):
                    raise StepError(
                        f"the publish to {topic} was refused: {describe(event)} (0x{event:02X})", rights
                    )
                else:
                    acknowledged = True
        except MQTTError as error:
            raise StepError(str(error), "The broker's log tells why it closed the connection.") from error
        return f"published to {topic} at QoS 1 and got it back"

    async def _next(self, acknowledged: bool) -> Message | int | MQTTError:
        try:
            async with asyncio.timeout(steps.STEP_SECONDS / 2):
                return await self._ended.get()
        except TimeoutError:
            if not acknowledged:
                raise StepError("the broker acknowledges no publish", "Does the broker hang?") from None
            raise StepError(
                "the broker took subscription and publish, and delivered nothing",
                "Some brokers keep from readers what their rules forbid, without a word: look at who may "
                f"read {TOPIC_PREFIX}#.",
            ) from None

    async def close(self) -> None:
        """Close what is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    # What the connection tells.

    def on_message(self, message: Message) -> None:
        """A message arrived."""
        self._ended.put_nowait(message)

    def on_published(self, token: Any, reason_code: int) -> None:
        """A publish ended."""
        self._ended.put_nowait(reason_code)

    def on_resumed(self, limits: BrokerLimits, tokens: Sequence[object]) -> Sequence[Carry]:
        """Nothing is kept."""
        return []

    def on_lost(self, error: MQTTConnectionError) -> None:
        """The connection ended."""
        self._ended.put_nowait(error)
