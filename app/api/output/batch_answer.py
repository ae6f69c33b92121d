"""The answer to a batch: counts, results, and a status that tells whether anything failed.

The answer to millions of messages is written in parts, each made when the one before was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import orjson
from starlette.types import Receive, Send

from app.api.output.answer import JSON_CONTENT_TYPE
from app.problems import CONTENT_TYPE, ProblemError
from app.publishing.batch import Batch
from app.publishing.outcomes import Outcomes

NDJSON: Final = "application/x-ndjson"
PART: Final = 1000
"""Results in one part of an answer."""
PART_BYTES: Final = 65_536
"""Bytes in one part of an answer that is made already."""


class BatchAnswer(NamedTuple):
    """An answer in JSON; its body is made part by part."""

    status: int
    headers: list[tuple[bytes, bytes]]
    parts: Iterator[bytes]


def batch_answer(outcomes: Outcomes, cut: ProblemError | None = None) -> BatchAnswer:
    """The answer to a batch that is through.

    Args:
        outcomes: of its messages.
        cut: why the rest of the body was not read, where it was not.
    """
    problem = cut or _problem_of_all(outcomes)
    if problem is None:
        status = 207 if outcomes.failed else 200 if outcomes.acknowledged else 202
        return BatchAnswer(status, [JSON_CONTENT_TYPE], _parts(outcomes.totals(), outcomes))
    members = orjson.loads(problem.body()) if cut is not None else _members_of_all(problem, outcomes)
    headers = [(b"content-type", CONTENT_TYPE.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return BatchAnswer(problem.kind.status, headers, _parts({**members, **outcomes.totals()}, outcomes))


def brief_body(outcomes: Outcomes) -> bytes:
    """The body of ``batch_answer(outcomes)`` without its results, for a key under which they are too many."""
    problem = _problem_of_all(outcomes)
    members = {} if problem is None else _members_of_all(problem, outcomes)
    counts = {"accepted": outcomes.accepted, "failed": outcomes.failed}
    return orjson.dumps({**members, **counts, "results_kept": False, "results": []})


def _problem_of_all(outcomes: Outcomes) -> ProblemError | None:
    return None if outcomes.accepted else outcomes.first_problem


def _members_of_all(problem: ProblemError, outcomes: Outcomes) -> dict[str, Any]:
    members: dict[str, Any] = orjson.loads(problem.body())
    if outcomes.failed > 1:
        members.pop("field", None)
        members["detail"] = f"none of {outcomes.failed} messages was accepted; the first: {members['detail']}"
    return members


def _parts(members: dict[str, Any], outcomes: Outcomes) -> Iterator[bytes]:
    """The members and the results as one JSON object; never empty."""
    lines = outcomes.take(PART)
    part = orjson.dumps(members)[:-1] + b',"results":[' + b",".join(lines)
    while len(lines) == PART:
        yield part
        lines = outcomes.take(PART)
        part = b"," + b",".join(lines) if lines else b""
    yield part + b"]}"


class BatchWriter:
    """Writes the answer to a batch that is through.

    Args:
        receive, send: the request's channel (ASGI).
        abort: closes the connection at once.
        timeout_seconds: how long the client may take nothing.
    """

    def __init__(
        self, receive: Receive, send: Send, abort: Callable[[], None], *, timeout_seconds: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._abort = abort
        self._timeout_seconds = timeout_seconds

    async def write(self, found: BatchAnswer) -> None:
        """Write it part by part; a client that takes nothing loses its connection."""
        part = next(found.parts)
        following = next(found.parts, None)
        headers = found.headers
        if following is None:
            headers = [*headers, (b"content-length", b"%d" % len(part))]
        try:
            await self._write({"type": "http.response.start", "status": found.status, "headers": headers})
            await self._write_part(part)
            while following is not None:
                part, following = following, next(found.parts, None)
                await self._write_part(part)
            await self._write({"type": "http.response.body"})  # waits for the reader of the last part
        except TimeoutError:
            await self._give_up()

    async def write_whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write an answer that is made already in the same way."""
        parts = (body[place : place + PART_BYTES] for place in range(0, max(len(body), 1), PART_BYTES))
        await self.write(BatchAnswer(status, headers, parts))

    async def end(self, lines: LinesAnswer, outcomes: Outcomes, cut: ProblemError | None) -> None:
        """Let an answer in lines come to its end, and write the counts as its last line."""
        try:
            await self._see_through(lines)
            if cut is not None and not lines.has_begun:
                await self.write(batch_answer(outcomes, cut))
                return
            last = outcomes.totals()
            if cut is not None:
                last["problem"] = orjson.Fragment(cut.body())
            await lines.begin()
            await self._write({"type": "http.response.body", "body": orjson.dumps(last) + b"\n"})
        except TimeoutError:
            await self._give_up()

    async def _see_through(self, lines: LinesAnswer) -> None:
        """Wait for what is left to be written; raises TimeoutError where the client takes nothing of it."""
        task = lines.end()
        while not task.done():
            taken = lines.parts_taken
            await asyncio.wait([task], timeout=self._timeout_seconds)
            if not task.done() and lines.parts_taken == taken:
                raise TimeoutError
        task.result()

    async def _write_part(self, part: bytes) -> None:
        await self._write({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)  # a reader that is fast is no reason to hold the loop

    async def _write(self, message: dict[str, Any]) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            await self._send(message)

    async def _give_up(self) -> None:
        self._abort()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class LinesAnswer:
    """An answer that is written while the body still comes in: a result a line (NDJSON).

    A client may send its whole body before it reads anything. So nothing waits for the answer to be taken but
    the task that writes it; meanwhile outcomes wait in their small form.

    Args:
        send: the request's channel (ASGI).
        batch: the batch.
        outcomes: its outcomes.

    Attributes:
        has_begun: the status is sent.
        parts_taken: grows while the client reads.
    """

    def __init__(self, send: Send, batch: Batch, outcomes: Outcomes) -> None:
        self._send = send
        self._batch = batch
        self._outcomes = outcomes
        self._has_work = asyncio.Event()
        self._is_ending = False
        self.has_begun = False
        self.parts_taken = 0
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Messages were added."""
        self._has_work.set()

    def end(self) -> asyncio.Task[None]:
        """No more are added; gives the task that writes what is left."""
        self._is_ending = True
        self._has_work.set()
        return self._task

    async def begin(self) -> None:
        """Send the status, once. The connection ends with the answer: the body may stop before its end."""
        if not self.has_begun:
            self.has_begun = True
            headers = [
                (b"content-type", NDJSON.encode()),
                (b"x-accel-buffering", b"no"),
                (b"connection", b"close"),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def cancel(self) -> None:
        """Write no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            lines = self._outcomes.take(PART)
            if lines:
                await self.begin()
                body = b"\n".join(lines) + b"\n"
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                self.parts_taken += 1
                await asyncio.sleep(0)  # a reader that is fast is no reason to hold the loop
            elif self._batch.is_outstanding:
                await self._batch.settle()
            elif self._is_ending:
                return
            else:
                self._has_work.clear()
                await self._has_work.wait()
