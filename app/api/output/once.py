"""Answering a request that carries an ``Idempotency-Key`` from the first outcome under that key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.types import Send

from app.api.input.idempotency_key import IDEMPOTENCY_REPLAYED
from app.api.output.answer import answer, answer_publish
from app.publishing.idempotency import Idempotency, NothingSentError, fingerprint_of
from app.publishing.idempotency_store import Answer
from app.security.principal import Principal
from tidegate.errors import refusal
from tidegate.message import Message

_REPLAYED: Final = (IDEMPOTENCY_REPLAYED.lower().encode(), b"true")

Write = Callable[[int, list[tuple[bytes, bytes]], bytes], Awaitable[None]]


def _always() -> bool:
    return True


def _nothing() -> None:
    return None


class Once:
    """The one way in which a route honours the key; requests without one do not come here.

        if headers.idempotency_key is not None:
            await self._once.publish(send, headers.idempotency_key, "POST /v1/publish", message, work)

    Args:
        idempotency: what does work once.
    """

    def __init__(self, idempotency: Idempotency) -> None:
        self._idempotency = idempotency

    async def publish(
        self,
        send: Send,
        principal: Principal,
        key: str,
        operation: str,
        message: Message,
        work: Callable[[Send], Awaitable[None]],
    ) -> None:
        """Answer a request that publishes one message.

        Args:
            send: the answer's channel (ASGI).
            principal: whose key it is.
            key: the key.
            operation: the method and the path, as the document has it.
            message: what the request asks to publish, whatever the connection to the broker can carry.
            work: publishes and answers, or raises.

        Raises:
            ProblemError: what ``Idempotency.once`` raises.
        """
        late = partial(_answer_late, message)
        await self.answer(
            partial(answer, send),
            principal,
            key,
            fingerprint_of(operation, message),
            message.qos,
            work,
            late,
        )

    async def answer(
        self,
        write: Write,
        principal: Principal,
        key: str,
        fingerprint: bytes,
        qos: int,
        work: Callable[[Send], Awaitable[None]],
        late: Callable[[Send, int], Awaitable[None]],
        *,
        keeps: Callable[[], bool] = _always,
        brief: Callable[[], bytes | None] = _nothing,
    ) -> None:
        """Answer any request that publishes.

        Args:
            write: writes the answer, from its status, headers and body.
            principal: whose key it is; another one's same key is another key.
            key: the key.
            fingerprint: the digest of the request.
            qos: the QoS of what it publishes; of several messages the highest.
            work: publishes and answers, or raises.
            late: answers, or raises, once OutcomeUnknownError was raised and the broker's reason code came
                after all.
            keeps: asked when the work is done: whether its answer is kept, since something may be sent.
            brief: asked then too: what is kept for a body that is too large to keep, where there is such.

        Raises:
            ProblemError: what ``Idempotency.once`` raises.
        """
        found, is_replayed = await self._idempotency.once(
            key,
            fingerprint,
            qos=qos,
            scope=principal.identity,
            work=partial(_record, work, keeps, brief),
            late=lambda reason_code: _record(lambda channel: late(channel, reason_code), _always, _nothing),
        )
        headers = [*found.headers, _REPLAYED] if is_replayed else list(found.headers)
        await write(found.status, headers, found.body)


async def _answer_late(message: Message, send: Send, reason_code: int) -> None:
    if reason_code >= 0x80:
        raise refusal("publish", reason_code, topic=message.topic, qos=message.qos)
    await answer_publish(send, message, reason_code)


async def _record(
    write: Callable[[Send], Awaitable[None]],
    keeps: Callable[[], bool],
    brief: Callable[[], bytes | None],
) -> Answer:
    """What somebody sends as an answer, kept instead of sent; raises NothingSentError where it is to go."""
    start: dict[str, Any] = {}
    parts: list[bytes] = []

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            start.update(event)
        else:
            parts.append(event.get("body", b""))

    await write(send)
    headers = tuple((name, value) for name, value in start["headers"] if name != b"content-length")
    found = Answer(start["status"], headers, b"".join(parts), brief())
    if not keeps():
        raise NothingSentError(found)
    return found
