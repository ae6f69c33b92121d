"""Made-up sensors that publish through the SDK, so that there is something to look at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass, replace
from typing import Final

from tidegate.connection import ConnectOptions
from tidegate.errors import MQTTError
from tidegate.message import Message, Properties
from tidegate.session import Session

_JSON: Final = Properties(content_type="application/json")


@dataclass(frozen=True, slots=True)
class Sensor:
    """What a sensor measures and how it tells.

    Attributes:
        topic: the topic that it publishes to.
        quantity: the name of the value in its JSON, which is the unit.
        usual: the value around which it wanders.
        step: how far it moves at a time, as a standard deviation.
        qos: the quality of service.
        retain: whether the broker keeps the last value.
    """

    topic: str
    quantity: str
    usual: float
    step: float
    qos: int
    retain: bool

    def next(self, value: float) -> float:
        """The value after this one: a random step, drawn back a little to the usual."""
        return value + random.gauss(0.0, self.step) + 0.05 * (self.usual - value)

    def message(self, value: float) -> Message:
        """The message that tells a value."""
        payload = json.dumps({self.quantity: round(value, 2)}).encode()
        return Message(self.topic, payload, self.qos, self.retain, _JSON)


SENSORS: Final = (
    Sensor("demo/kitchen/temperature", "celsius", 21.0, 0.15, 1, True),
    Sensor("demo/kitchen/humidity", "percent", 45.0, 0.6, 0, False),
    Sensor("demo/cellar/temperature", "celsius", 12.5, 0.08, 1, True),
    Sensor("demo/cellar/humidity", "percent", 68.0, 0.4, 0, False),
    Sensor("demo/roof/temperature", "celsius", 8.0, 0.4, 1, True),
)


async def run_sensors(options: ConnectOptions) -> None:
    """Publish until cancelled.

    Args:
        options: how to reach the broker; the client identifier is left aside, since it is the bridge's.
    """
    session = Session(replace(options, client_id=""), publish_timeout_seconds=5.0)
    await session.start()
    try:
        async with asyncio.TaskGroup() as group:
            for sensor in SENSORS:
                group.create_task(_run(sensor, session), name=sensor.topic)
    finally:
        await session.close(flush_seconds=0.5)


async def _run(sensor: Sensor, session: Session) -> None:
    value = sensor.usual
    while True:
        value = sensor.next(value)
        message = sensor.message(value)
        limits = session.limits
        if limits is not None and limits.protocol_version < 5:
            message = replace(message, properties=Properties())
        with contextlib.suppress(MQTTError):  # a sensor has its next value to tell
            await session.publish(message)
        await asyncio.sleep(random.uniform(1.0, 2.0))  # noqa: S311 - made up, and no secret
