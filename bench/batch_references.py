"""What the batch route is measured against: the same kind of FastAPI route over other clients, or over none.

The broker's port comes in the environment, as BENCH_BROKER_PORT.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
from fastapi import FastAPI
from fastapi_mqtt import FastMQTT, MQTTConfig
from pydantic import BaseModel

PORT = int(os.environ.get("BENCH_BROKER_PORT", "1883"))


class Item(BaseModel):
    """One message, as a FastAPI user would declare it."""

    topic: str
    payload: str
    qos: int = 1


class Result(BaseModel):
    """What became of one message."""

    index: int
    qos: int


class Results(BaseModel):
    """The answer to a batch."""

    accepted: int
    results: list[Result]


def answer(items: list[Item]) -> Results:
    """Everything was accepted."""
    results = [Result(index=index, qos=item.qos) for index, item in enumerate(items)]
    return Results(accepted=len(results), results=results)


no_op = FastAPI()


@no_op.post("/v1/publish/batch")
async def accept(items: list[Item]) -> Results:
    """Validates the body and publishes nothing."""
    return answer(items)


mqtt = FastMQTT(config=MQTTConfig(host="127.0.0.1", port=PORT))


@asynccontextmanager
async def _with_fastapi_mqtt(_: FastAPI) -> AsyncIterator[None]:
    await mqtt.mqtt_startup()
    yield
    await mqtt.mqtt_shutdown()


over_fastapi_mqtt = FastAPI(lifespan=_with_fastapi_mqtt)


@over_fastapi_mqtt.post("/v1/publish/batch")
async def publish_with_fastapi_mqtt(items: list[Item]) -> Results:
    """Hands the messages over; fastapi-mqtt awaits no acknowledgement."""
    for item in items:
        mqtt.publish(item.topic, item.payload, qos=item.qos)
    return answer(items)


@asynccontextmanager
async def _with_aiomqtt(app: FastAPI) -> AsyncIterator[None]:
    async with aiomqtt.Client("127.0.0.1", PORT, max_inflight_messages=0) as client:
        app.state.client = client
        yield


over_aiomqtt = FastAPI(lifespan=_with_aiomqtt)


@over_aiomqtt.post("/v1/publish/batch")
async def publish_with_aiomqtt(items: list[Item]) -> Results:
    """Publishes all at once, and waits for every acknowledgement."""
    client: Any = over_aiomqtt.state.client
    await asyncio.gather(*(client.publish(item.topic, item.payload, qos=item.qos) for item in items))
    return answer(items)
