"""One face for the brokers that the behaviour of a connection is tested on, and a client that records."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import iotcore

from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort
from tidegate.connection import (
    BrokerLimits,
    Carry,
    Connect,
    Connection,
    ConnectOptions,
    ProtocolVersion,
    Subscription,
)
from tidegate.connections.aiomqtt_connection import connect as connect_by_aiomqtt
from tidegate.errors import MQTTConnectionError
from tidegate.memory import MemoryBroker
from tidegate.message import Message

SECONDS: Final = 10.0
"""How long anything is waited for before the test fails."""

DENIED: Final = "denied/#"
"""What nobody may publish to or subscribe to, on a broker that has rules."""

MARKERS: Final = "end/"


class Broker(Protocol):
    """A broker that a test may do anything to."""

    @property
    def connect(self) -> Connect:
        """What opens connections."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""

    def kill(self) -> None:
        """End it at once."""

    def freeze(self) -> None:
        """Keep connections open, and answer nothing."""

    def thaw(self) -> None:
        """Answer again."""


class MosquittoBroker:
    """Mosquitto, reached by aiomqtt."""

    def __init__(self, process: Mosquitto) -> None:
        self.connect: Connect = connect_by_aiomqtt
        self.address = (process.host, process.port)
        self.kill = process.kill
        self.freeze = process.pause
        self.thaw = process.resume


class IotcoreBroker:
    """iotcore (rumqttd), reached by aiomqtt."""

    def __init__(self, process: iotcore.Broker, port: int) -> None:
        self.connect: Connect = connect_by_aiomqtt
        self.address = (LOOPBACK, port)
        self._process = process

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)
        self._process.stop()

    def freeze(self) -> None:
        """Stop the process."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        process = self._process._process
        if process is not None:
            process.send_signal(number)


class InMemoryBroker:
    """A ``MemoryBroker``."""

    def __init__(self, memory: MemoryBroker) -> None:
        self.connect: Connect = memory.connect
        self.address = (LOOPBACK, 1883)
        self.kill = memory.stop
        self.freeze = memory.freeze
        self.thaw = memory.thaw


@contextmanager
def mosquitto_broker(passwords: dict[str, str] | None) -> Iterator[Broker]:
    """Start Mosquitto; with passwords it has no further rules."""
    with Mosquitto(passwords=passwords, denied=DENIED if passwords is None else None) as process:
        yield MosquittoBroker(process)
        process.resume()


@contextmanager
def iotcore_broker(passwords: dict[str, str] | None) -> Iterator[Broker]:
    """Start iotcore with a listener for MQTT 5; it has no rules for topics."""
    with ReservedPort() as reserved, tempfile.TemporaryDirectory() as directory:
        lines = [
            "id = 0",
            "[router]",
            "id = 0",
            "max_connections = 100",
            "max_outgoing_packet_count = 200",
            "max_segment_size = 1048576",
            "max_segment_count = 10",
            "[v5.1]",
            'name = "loopback"',
            f'listen = "{LOOPBACK}:{reserved.number}"',
            "next_connection_delay_ms = 1",
            "[v5.1.connections]",
            "connection_timeout_ms = 5000",
            "max_payload_size = 1048576",
            "max_inflight_count = 1000",
            "dynamic_filters = true",
        ]
        if passwords is not None:
            lines += ["[v5.1.connections.auth]", *(f'{user} = "{word}"' for user, word in passwords.items())]
        path = Path(directory) / "rumqttd.toml"
        path.write_text("\n".join(lines))
        with iotcore.Broker(config_path=str(path)) as process:
            broker = IotcoreBroker(process, reserved.number)
            yield broker
            broker.thaw()


@contextmanager
def memory_broker(passwords: dict[str, str] | None) -> Iterator[Broker]:
    """Make a broker in memory."""

    def authorize(action: str, topic: str, options: ConnectOptions) -> int:
        return 0x87 if topic.startswith("denied/") else 0

    yield InMemoryBroker(MemoryBroker(passwords=passwords, authorize=authorize))


StartBroker = Callable[[dict[str, str] | None], AbstractContextManager[Broker]]

BROKERS: Final[dict[str, tuple[StartBroker, ProtocolVersion]]] = {
    "mosquitto-5": (mosquitto_broker, 5),
    "mosquitto-3.1.1": (mosquitto_broker, 4),
    "iotcore-5": (iotcore_broker, 5),
    "memory-5": (memory_broker, 5),
    "memory-3.1.1": (memory_broker, 4),
}
"""Each broker with the protocol version to speak to it."""


class Client:
    """One connection, and everything that it told."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.outcomes: dict[Any, list[int]] = defaultdict(list)
        self.losses: list[MQTTConnectionError] = []
        self.resumed: list[Any] = []
        self.carries: dict[Any, Carry] = {}
        self.told_after_end = 0
        self.connection: Connection
        self._change = asyncio.Event()
        self._count = 0

    # What the connection tells.

    def on_message(self, message: Message) -> None:
        """Keep a message."""
        self._note()
        self.messages.put_nowait(message)

    def on_published(self, token: Any, reason_code: int) -> None:
        """Keep an outcome."""
        self._note()
        self.outcomes[token].append(reason_code)

    def on_resumed(self, limits: BrokerLimits, tokens: Sequence[Any]) -> Sequence[Carry]:
        """Answer what the test decided for each token; go on with it where it decided nothing."""
        self._note()
        self.resumed += tokens
        return [self.carries.get(token, Carry.CONTINUE) for token in tokens]

    def on_lost(self, error: MQTTConnectionError) -> None:
        """Keep the loss."""
        self._note()
        self.losses.append(error)

    def _note(self) -> None:
        self.told_after_end += bool(self.losses)
        self._change.set()

    # What tests ask.

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was told meets a condition."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._change.clear()
                await self._change.wait()

    async def publish(self, message: Message) -> int:
        """Publish, and return the reason code that was told."""
        token = object()
        self.connection.publish(message, token)
        await self.until(lambda: token in self.outcomes)
        return self.outcomes[token][0]

    async def publish_numbers(self, topic: str, count: int, *, qos: int) -> None:
        """Publish 0, 1, 2 …, with no more in flight than the broker allows; the last are not waited for."""
        window = self.connection.limits.receive_maximum
        for number in range(count):
            await self.until(lambda sent=number: sent - len(self.outcomes) < window)  # type: ignore[misc]
            self.connection.publish(Message(topic, b"%d" % number, qos=qos), number)

    async def subscribe(self, *subscriptions: Subscription) -> list[int]:
        """Subscribe, and return the reason codes."""
        async with asyncio.timeout(SECONDS):
            return await self.connection.subscribe(subscriptions)

    async def unsubscribe(self, *filters: str) -> list[int]:
        """Unsubscribe, and return the reason codes."""
        async with asyncio.timeout(SECONDS):
            return await self.connection.unsubscribe(filters)

    async def message(self) -> Message:
        """The next message that is no marker of ``collect``: wildcards bring copies of those too."""
        async with asyncio.timeout(SECONDS):
            while (message := await self.messages.get()).topic.startswith(MARKERS):
                pass
            return message

    async def collect(self, publisher: Client | None = None, *, qos: int = 1) -> list[Message]:
        """The messages that came before a marker that is published now.

        Args:
            publisher: the client whose messages are in question; this one where it is left out.
            qos: that of the messages in question, since brokers keep the order of each QoS.
        """
        self._count += 1
        marker = f"{MARKERS}{id(self)}/{self._count}"
        await self.subscribe(Subscription(marker, qos=qos))
        await (publisher or self).publish(Message(marker, b"end", qos=qos))
        found: list[Message] = []
        async with asyncio.timeout(SECONDS):
            while (message := await self.messages.get()).topic != marker:
                if not message.topic.startswith(MARKERS):
                    found.append(message)
        await self.unsubscribe(marker)
        return found
