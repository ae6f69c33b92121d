"""What the bridge is measured against: the least that a server can do with the same request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

ANSWER = b'{"topic":"bench/a","qos":1,"retain":false,"reason_code":0,"reason":"Success"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


class Reading(BaseModel):
    """The body that wrk sends, as a FastAPI user would declare it."""

    value: float
    unit: str
    note: str


class Accepted(BaseModel):
    """The answer, as a FastAPI user would declare it."""

    topic: str
    qos: int
    retain: bool
    reason_code: int
    reason: str


fastapi_route = FastAPI()


@fastapi_route.post("/v1/topics/{topic:path}")
async def accept(topic: str, reading: Reading) -> Accepted:
    """Validates the body and publishes nothing."""
    del reading
    return Accepted(topic=topic, qos=1, retain=False, reason_code=0, reason="Success")


async def raw_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers; no route, no check."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
