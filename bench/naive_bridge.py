"""The bridge that one writes first: a FastAPI route, aiomqtt as it comes, and a queue a client.

It is a reference for figures. What it gets wrong besides is no concern here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse

BROKER_PORT_VARIABLE = "BENCH_BROKER_PORT"

queues: set[asyncio.Queue[str]] = set()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one connection, and hand each message to every queue."""
    async with aiomqtt.Client("127.0.0.1", int(os.environ[BROKER_PORT_VARIABLE])) as client:
        app.state.client = client
        await client.subscribe("bench/#")
        receiving = asyncio.create_task(_receive(client))
        yield
        receiving.cancel()


async def _receive(client: aiomqtt.Client) -> None:
    async for message in client.messages:
        assert isinstance(message.payload, bytes)
        for queue in queues:
            queue.put_nowait(message.payload.decode())


app = FastAPI(lifespan=lifespan)


@app.post("/v1/topics/{topic:path}")
async def publish(topic: str, request: Request) -> dict[str, str]:
    """Publish the body, and wait for what aiomqtt waits for."""
    await request.app.state.client.publish(topic, await request.body(), qos=1)
    return {"topic": topic}


@app.get("/v1/subscribe")
async def subscribe() -> EventSourceResponse:
    """Follow all messages."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def events() -> AsyncIterator[str]:
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(events())
