"""Writing the answer to a publish: parts that repeat are made once."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.types import Send

from tidegate.message import Message
from tidegate.reason_codes import NAMES, describe

JSON_CONTENT_TYPE: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
"""An answer that is its caller's alone."""


def _tail(qos: int, retain: bool, reason_code: int) -> bytes:
    return b',"qos":%d,"retain":%b,"reason_code":%d,"reason":%b}' % (
        qos,
        b"true" if retain else b"false",
        reason_code,
        orjson.dumps(describe(reason_code)),
    )


_TAILS: Final = {
    (qos, retain, reason_code): _tail(qos, retain, reason_code)
    for qos in (0, 1, 2)
    for retain in (False, True)
    for reason_code in NAMES
}


async def answer_publish(send: Send, message: Message, reason_code: int) -> None:
    """Tell that a message was handed over (QoS 0: 202) or that the broker took it (QoS 1 and 2: 200).

    Args:
        send: the answer's channel (ASGI).
        message: what was published.
        reason_code: the broker's reason code, below 0x80.
    """
    key = (message.qos, message.retain, reason_code)
    body = b'{"topic":%b%b' % (orjson.dumps(message.topic), _TAILS.get(key) or _tail(*key))
    await answer(send, 200 if message.qos else 202, [JSON_CONTENT_TYPE], body)


async def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Write one whole answer; its length is added to the headers."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})
