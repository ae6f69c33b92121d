"""``POST /v1/publish/batch``: many messages, as a JSON array or one a line (NDJSON).

Rules:

1. An array is read whole, within the bounds of a body, before the first message is sent; a body that is no
   array sends nothing.
2. Lines are published as they arrive, and a body of them has no end that it must come to: no more is read
   than is in work. What went before a body that breaks off is published.
3. A message that cannot be taken fails alone, as it would by itself.
4. No body holds the loop, and every answer goes to its reader within a bound on the time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import msgspec
from msgspec import Raw
from starlette.types import Receive, Scope, Send

from app.api.access import principal_of
from app.api.input.body import BodyReader, require_json
from app.api.input.headers import read_headers, refuse_idempotency_key, refuse_mqtt_headers
from app.api.input.lines import Lines
from app.api.input.negotiation import preferred
from app.api.input.publish_request import read_message, require_carriable
from app.api.input.query import BatchQuery, parse_query
from app.api.output.batch_answer import (
    NDJSON,
    BatchAnswer,
    BatchWriter,
    LinesAnswer,
    batch_answer,
    brief_body,
)
from app.api.output.once import Once
from app.api.output.refusals import malformed_body
from app.api.raw_route import RawRoute
from app.connections.http import ABORT
from app.problems import ProblemError, ProblemType
from app.publishing.batch import Batch
from app.publishing.gate import Gate
from app.publishing.idempotency import fingerprint_of_body
from app.publishing.outcomes import Outcomes
from app.security.authorization import Authorization
from app.security.principal import Principal
from app.settings import Settings
from tidegate.message import NO_PROPERTIES, Message

PATH: Final = "/v1/publish/batch"
JSON: Final = "application/json"

YIELDS_EVERY: Final = 200
"""Messages after which the requests of others have their turn, whatever becomes of these."""

Items = list[bytes | ProblemError]

_is_ndjson: Final = re.compile(rb"\s*application/x-ndjson\s*(?:;|$)", re.IGNORECASE).match
_read_array: Final = msgspec.json.Decoder(list[Raw]).decode


class BatchRoute(RawRoute):
    """The call.

    Args:
        gate: the way to the broker.
        bodies: how bodies are read.
        once: how an Idempotency-Key is honoured.
        authorization: knows whether the caller may go on.
        settings: the bounds on messages and on slow readers.
    """

    path = PATH
    path_format = PATH
    methods = ("POST",)

    def __init__(
        self, gate: Gate, bodies: BodyReader, once: Once, authorization: Authorization, settings: Settings
    ) -> None:
        super().__init__()
        self._gate = gate
        self._bodies = bodies
        self._once = once
        self._authorization = authorization
        self._publish_timeout_seconds = settings.publish_timeout_seconds
        self._max_waiting = settings.max_waiting
        self._send_timeout_seconds = settings.stream_send_timeout_seconds

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        query = parse_query(scope["query_string"], BatchQuery)
        headers = read_headers(scope["headers"])
        refuse_mqtt_headers(headers, "write it into the member 'properties' of each message")
        form = preferred(scope["headers"], (JSON, NDJSON))
        if headers.content_type is not None and _is_ndjson(headers.content_type):
            parts = self._lines(principal_of(scope), receive)
        else:
            require_json(
                headers.content_type, f"send Content-Type: {JSON} for an array, or {NDJSON} for lines"
            )
            body = await self._bodies.read(receive, headers.content_length)
            if form == JSON:
                await self._answer_array(scope, receive, send, body, query, headers.idempotency_key)
                return
            parts = _once(split_array(body))
        refuse_idempotency_key(headers, "lines are published and answered as they come, and nothing is kept")
        await self._publish_lines(scope, receive, send, parts, query, form)

    async def _answer_array(
        self, scope: Scope, receive: Receive, send: Send, body: bytes, query: BatchQuery, key: str | None
    ) -> None:
        outcomes = Outcomes(lists_successes=query.results == "all")
        writes = partial(self._writer, scope, receive)
        principal = principal_of(scope)

        async def work(channel: Send) -> None:
            await writes(channel).write(await self._publish_array(principal, body, outcomes))

        if key is None:
            await work(send)
        else:
            fingerprint = fingerprint_of_body(f"POST {PATH}?results={query.results}", body)
            await self._once.answer(
                writes(send).write_whole,
                principal,
                key,
                fingerprint,
                2,
                work,
                _answer_late,
                keeps=lambda: outcomes.may_have_sent,
                brief=lambda: brief_body(outcomes),
            )

    async def _publish_array(self, principal: Principal, body: bytes, outcomes: Outcomes) -> BatchAnswer:
        items = split_array(body)
        if not items:
            raise _no_messages()
        batch = self._begin(principal, outcomes)
        try:
            await self._add(batch, items)
            await batch.finish()
        finally:
            batch.abandon()
        return batch_answer(outcomes)

    async def _publish_lines(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        parts: AsyncIterator[Items],
        query: BatchQuery,
        form: str,
    ) -> None:
        outcomes = Outcomes(lists_successes=query.results == "all")
        batch = self._begin(principal_of(scope), outcomes)
        writer = self._writer(scope, receive, send)
        lines = LinesAnswer(send, batch, outcomes) if form == NDJSON else None
        cut: ProblemError | None = None
        try:
            try:
                async for items in parts:
                    await self._add(batch, items)
                    if lines is not None:
                        lines.wake()
            except ProblemError as problem:
                cut = problem
            await batch.finish()
            if not outcomes.count and cut is None:
                raise _no_messages()
            if lines is None:
                await writer.write(batch_answer(outcomes, cut))
            else:
                await writer.end(lines, outcomes, cut)
        finally:
            if lines is not None:
                await lines.cancel()
            batch.abandon()

    def _writer(self, scope: Scope, receive: Receive, send: Send) -> BatchWriter:
        abort = scope.get(ABORT, _nothing)
        return BatchWriter(receive, send, abort, timeout_seconds=self._send_timeout_seconds)

    def _begin(self, principal: Principal, outcomes: Outcomes) -> Batch:
        return Batch(
            self._gate,
            principal,
            outcomes,
            publish_timeout_seconds=self._publish_timeout_seconds,
            max_waiting=self._max_waiting,
        )

    async def _lines(self, principal: Principal, receive: Receive) -> AsyncIterator[Items]:
        lines = Lines(self._bodies.max_bytes)
        async for part in self._bodies.stream(receive):
            self._authorization.require_current(principal)
            yield lines.feed(part)
        yield lines.end()

    async def _add(self, batch: Batch, items: Items) -> None:
        for number, item in enumerate(items, 1):
            await batch.add(self._read(item))
            if not number % YIELDS_EVERY:
                await asyncio.sleep(0)

    def _read(self, item: bytes | ProblemError) -> Message | ProblemError:
        if isinstance(item, ProblemError):
            return item
        try:
            message = read_message(item)
            if message.properties is not NO_PROPERTIES:
                require_carriable(message, self._gate.limits)
        except ProblemError as problem:
            return problem
        return message


def split_array(body: bytes) -> Items:
    """The elements of a JSON array, each as it is written.

    Raises:
        ProblemError: MALFORMED_BODY where it is not JSON, INVALID_BODY where it is no array.
    """
    try:
        return [bytes(each) for each in _read_array(body)]
    except msgspec.ValidationError:
        raise ProblemError(
            ProblemType.INVALID_BODY,
            "the body is no array",
            field="",
            hint=f"POST /v1/publish takes a single message; for one a line send Content-Type: {NDJSON}",
        ) from None
    except msgspec.DecodeError as error:
        problem = malformed_body(str(error).removeprefix("JSON is malformed: "))
        problem.hint = f"one message a line is Content-Type: {NDJSON}"
        raise problem from None
    except RecursionError:
        raise malformed_body("it is nested too deep") from None


async def _answer_late(send: Send, reason_code: int) -> None:
    raise AssertionError(f"{reason_code}, {send}: each message of a batch has an outcome of its own")


def _no_messages() -> ProblemError:
    return ProblemError(
        ProblemType.INVALID_BODY, "there is no message in the body", field="", hint="was it lost on the way?"
    )


async def _once(items: Items) -> AsyncIterator[Items]:
    yield items


def _nothing() -> None:
    """A server without a way to abort."""
