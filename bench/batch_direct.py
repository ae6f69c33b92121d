"""``python -m bench.batch_direct PORT QOS SENDERS SECONDS``: batches through the SDK's session alone.

Prints one line of JSON: messages a second, and what a message costs this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

import uvloop

from tidegate.connection import ConnectOptions
from tidegate.message import Message
from tidegate.session import Session

BATCH: Final = 100
PAYLOAD: Final = b"x" * 100


async def _send(session: Session, qos: int, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        for future in [session.submit(Message("bench/a", PAYLOAD, qos)) for _ in range(BATCH)]:
            await future
        count += BATCH
    return count


async def main(port: int, qos: int, senders: int, seconds: int) -> None:
    """Connect, send, print."""
    session = Session(ConnectOptions(host="127.0.0.1", port=port))
    await session.start()
    await session.connected(10)
    began, spent = time.monotonic(), time.process_time()
    counts = await asyncio.gather(*(_send(session, qos, began + seconds) for _ in range(senders)))
    passed, spent = time.monotonic() - began, time.process_time() - spent
    await session.close()
    print(json.dumps({"rate": sum(counts) / passed, "cpu_microseconds": spent / sum(counts) * 1e6}))


if __name__ == "__main__":
    uvloop.run(main(*(int(each) for each in sys.argv[1:])))
