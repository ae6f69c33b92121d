"""A session that the broker keeps: what comes while the connection is lost reaches the streams afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Self

import pytest
from pydantic import SecretStr, ValidationError

from app.broker.link import BrokerLink
from app.hub.event import ControlEvent, Event
from app.hub.hub import Hub
from app.hub.listener import Listener
from app.settings import Settings
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tidegate.connection import Connect, ConnectOptions, Subscription
from tidegate.message import Message
from tidegate.session import Session

WAIT_SECONDS = 15.0
NAMES = (f"keeper-{number}" for number in itertools.count())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


class Bridged:
    """A hub on a link through a proxy, a listener on ``kept/#``, and what it was offered."""

    def __init__(
        self, port: int, *, client_id: str | None = None, connect: Connect | None = None, **settings: Any
    ) -> None:
        chosen = Settings(
            broker_url=SecretStr(f"mqtt://127.0.0.1:{port}"),
            broker_client_id=next(NAMES) if client_id is None else client_id,
            broker_keepalive_seconds=3,
            **settings,
        )
        self.options = chosen.connect_options()
        self.link = BrokerLink(chosen, self.options, connect=connect)
        self.hub = Hub(self.link)
        self.link.attach(self.hub)
        self.listener = Listener(["kept/#"], qos=2, retained=False)
        self.payloads: list[bytes] = []
        self.controls: list[tuple[str, object]] = []

    async def __aenter__(self) -> Self:
        await self.link.start()
        await self.link.session.connected(WAIT_SECONDS)
        await self.hub.join(self.listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hub.close()
        await self.link.close()

    def look(self) -> None:
        """Take what the listener was offered."""
        for event in self.listener.take(1 << 20):
            if isinstance(event, Event):
                self.payloads.append(event.message.payload)
            else:
                self.controls.append((event.name, event.facts.get("state") or event.facts.get("reason")))

    def has(self, count: int) -> bool:
        """Whether so many messages were offered."""
        self.look()
        return len(self.payloads) >= count


async def publish(port: int, *payloads: bytes, qos: int = 1) -> None:
    """Publish past the bridge."""
    session = Session(ConnectOptions("127.0.0.1", port))
    await session.start()
    for payload in payloads:
        await session.publish(Message("kept/a", payload, qos))
    await session.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_what_comes_while_the_connection_is_lost_is_delivered_without_a_gap(
    mosquitto: Mosquitto, protocol: str
) -> None:
    """Down, up with the session kept, and every message of QoS 1 and 2, in order and once; no gap."""
    async with (
        FaultProxy(mosquitto.port) as proxy,
        Bridged(proxy.port, broker_protocol=protocol, broker_session_expiry_seconds=300) as bridged,
    ):
        await publish(mosquitto.port, b"before")
        await until(lambda: bridged.has(1))
        # its acknowledgement is with the broker, which would send it again otherwise (MQTT 5 §4.4)
        await bridged.link.session.ping()
        await proxy.set(Fault.REFUSE)
        proxy.reset_connections()
        await until(lambda: bridged.link.limits is None)
        await publish(mosquitto.port, b"1", b"2", b"3")
        await publish(mosquitto.port, b"4", b"5", qos=2)
        await proxy.set(Fault.PASS)
        await until(lambda: bridged.has(6))
        await publish(mosquitto.port, b"after")
        await until(lambda: bridged.has(7))
        assert [b"before", b"1", b"2", b"3", b"4", b"5", b"after"] == bridged.payloads
        assert [("broker", "down"), ("broker", "up")] == bridged.controls


async def test_a_session_that_the_broker_forgot_is_a_gap(mosquitto: Mosquitto) -> None:
    """A broker that restarts without persistence has forgotten: the stream is told, and goes on."""
    with Mosquitto() as broker:
        async with Bridged(broker.port, broker_session_expiry_seconds=300) as bridged:
            await asyncio.to_thread(broker.restart)
            await until(lambda: bridged.has(0) and ("gap", "broker_connection") in bridged.controls)
            await publish(broker.port, b"after")
            await until(lambda: bridged.has(1))
            assert [b"after"] == bridged.payloads


async def test_messages_of_qos_0_are_not_kept_and_their_listener_is_told(mosquitto: Mosquitto) -> None:
    """No broker queues QoS 0: whoever asked for no more has a gap all the same."""
    async with (
        FaultProxy(mosquitto.port) as proxy,
        Bridged(proxy.port, broker_session_expiry_seconds=300) as bridged,
    ):
        low = Listener(["low"], qos=0, retained=False)
        await bridged.hub.join(low)
        proxy.reset_connections()
        names: list[str] = []

        def sees_gap() -> bool:
            names.extend(event.name for event in low.take(1 << 20) if isinstance(event, ControlEvent))
            return "gap" in names

        await until(sees_gap)
        bridged.look()
        assert ("gap", "broker_connection") not in bridged.controls


async def test_a_filter_left_while_the_connection_is_lost_is_left_in_the_kept_session_too(
    mosquitto: Mosquitto,
) -> None:
    """The broker still has the subscription; it is ended as soon as there is a connection."""
    received: list[Message] = []
    async with FaultProxy(mosquitto.port) as proxy:
        options = ConnectOptions(
            "127.0.0.1", proxy.port, client_id=next(NAMES), session_expiry_seconds=300, keepalive_seconds=3
        )
        session = Session(options, on_message=received.append)
        await session.start()
        await session.connected(WAIT_SECONDS)
        await session.subscribe([Subscription("kept/a", qos=1), Subscription("other", qos=1)])
        await proxy.set(Fault.REFUSE)
        proxy.reset_connections()
        await until(lambda: session.limits is None)
        await session.unsubscribe(["kept/a"])
        await proxy.set(Fault.PASS)
        await session.connected(WAIT_SECONDS)
        await publish(mosquitto.port, b"unwanted")
        await session.publish(Message("other", b"mark", 1))
        await until(lambda: any(message.topic == "other" for message in received))
        assert [b"mark"] == [message.payload for message in received]
        await session.close()


async def test_a_bridge_that_stops_leaves_no_session_behind(mosquitto: Mosquitto) -> None:
    """DISCONNECT ends a session of MQTT 5; the next start begins with a clean one in any case."""
    async with Bridged(mosquitto.port, broker_session_expiry_seconds=300) as bridged:
        client_id = bridged.link.limits.client_id if bridged.link.limits else ""
    later = Session(ConnectOptions("127.0.0.1", mosquitto.port, client_id=client_id, clean_start=False))
    await later.start()
    limits = await later.connected(WAIT_SECONDS)
    assert limits.session_present is False
    await later.close()


def test_a_kept_session_needs_a_client_id() -> None:
    """Refused at the start, with what to set."""
    with pytest.raises(ValidationError, match="TIDEGATE_BROKER_CLIENT_ID"):
        Settings(broker_session_expiry_seconds=60)
