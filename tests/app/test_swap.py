"""The bridge's connection is swapped under its streams: what they are told, and what not."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest

from tests.app.test_persistent_session import Bridged, publish, until
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tidegate.connection import Connection, ConnectionEvents, ConnectOptions
from tidegate.connections import aiomqtt_connection
from tidegate.errors import ConnectRefusedError, MQTTConnectionError, MQTTError

NAMES = (f"swapped-{number}" for number in itertools.count())


async def test_streams_are_told_nothing(mosquitto: Mosquitto) -> None:
    """Several swaps, with a client identifier that is made up: messages, and no word of it."""
    async with Bridged(mosquitto.port, client_id="") as bridged:
        for number in range(4):
            await publish(mosquitto.port, b"%d" % number)
            await bridged.link.swap(bridged.options)
        await until(lambda: bridged.has(4))
        assert ([b"0", b"1", b"2", b"3"], []) == (bridged.payloads, bridged.controls)


async def test_a_client_identifier_of_its_own_is_kept(mosquitto: Mosquitto) -> None:
    """The bridge goes over to a temporary identifier and back, and its streams notice neither."""
    async with Bridged(mosquitto.port) as bridged:
        name = bridged.options.client_id
        await bridged.link.swap(bridged.options)
        assert bridged.link.limits is not None
        assert name == bridged.link.limits.client_id
        await publish(mosquitto.port, b"after")
        await until(lambda: bridged.has(1))
        assert ([b"after"], []) == (bridged.payloads, bridged.controls)


async def test_a_broker_that_takes_no_other_identifier(mosquitto: Mosquitto) -> None:
    """The bridge leaves its connection before it makes the next: streams are told, and go on."""

    async def connect(options: ConnectOptions, events: ConnectionEvents) -> Connection:
        if options.client_id != name:
            raise ConnectRefusedError("client identifier not valid", reason_code=0x85)
        return await aiomqtt_connection.connect(options, events)

    name = next(NAMES)
    async with Bridged(mosquitto.port, client_id=name, connect=connect) as bridged:
        await bridged.link.swap(bridged.options)
        await until(lambda: bridged.has(0) and bool(bridged.controls))
        await publish(mosquitto.port, b"after")
        await until(lambda: bridged.has(1))
        assert [b"after"] == bridged.payloads
        assert [("broker", "down"), ("broker", "up"), ("gap", "broker_connection")] == bridged.controls


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_session_that_the_broker_keeps_goes_on(mosquitto: Mosquitto, protocol: str) -> None:
    """Down, and up with the session kept; every message of QoS 1 and 2, in order and once, and no gap."""
    async with Bridged(
        mosquitto.port, broker_session_expiry_seconds=300, broker_protocol=protocol
    ) as bridged:
        numbers = [b"%d" % number for number in range(300)]
        sending = asyncio.create_task(publish(mosquitto.port, *numbers, qos=2))
        for count in (20, 60, 100):
            await until(lambda count=count: bridged.has(count))  # type: ignore[misc]
            await bridged.link.swap(bridged.options)
        await sending
        await until(lambda: bridged.has(300))
        assert numbers == bridged.payloads
        assert [("broker", "down"), ("broker", "up")] * 3 == bridged.controls


async def test_a_kept_session_stays_with_what_works(mosquitto: Mosquitto) -> None:
    """What does not even connect beside the session in use is refused before anything is left."""
    async with Bridged(mosquitto.port, broker_session_expiry_seconds=300) as bridged:
        with pytest.raises(MQTTConnectionError):
            await bridged.link.swap(replace(bridged.options, port=1))
        await publish(mosquitto.port, b"after")
        await until(lambda: bridged.has(1))
        assert ([b"after"], []) == (bridged.payloads, bridged.controls)


async def test_a_swap_without_a_connection_makes_one(mosquitto: Mosquitto) -> None:
    """A bridge that cannot connect is swapped to what works; what fails leaves it trying as before."""
    async with FaultProxy(mosquitto.port) as proxy, Bridged(proxy.port, client_id="") as bridged:
        await proxy.set(Fault.REFUSE)
        await until(lambda: bridged.link.limits is None)
        with pytest.raises(MQTTError):
            await bridged.link.swap(replace(bridged.options, port=1))
        await bridged.link.swap(replace(bridged.options, port=mosquitto.port))
        await publish(mosquitto.port, b"after")
        await until(lambda: bridged.has(1))
        assert [b"after"] == bridged.payloads


async def test_a_failed_swap_without_a_connection_goes_on_trying(mosquitto: Mosquitto) -> None:
    """The old way is tried on, and works again as soon as it does."""
    async with FaultProxy(mosquitto.port) as proxy, Bridged(proxy.port) as bridged:
        await proxy.set(Fault.REFUSE)
        await until(lambda: bridged.link.limits is None)
        with pytest.raises(MQTTError):
            await bridged.link.swap(replace(bridged.options, port=1))
        await proxy.set(Fault.PASS)
        await until(lambda: bridged.link.limits is not None)
