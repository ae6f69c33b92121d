from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tidegate import JSONFormatter, Message
from tidegate.handlers import MAX_QUEUED_MESSAGES, Dispatch, is_coroutine_function

SECONDS = 20.0


def dispatch(handler: Any, *, loop: asyncio.AbstractEventLoop | None = None) -> Dispatch:
    """The way to a handler that takes the payload alone."""
    return Dispatch(handler, JSONFormatter(), loop=loop, with_topic=False)


def _plain(payload: dict[str, Any]) -> None: ...


class _Callable:
    async def __call__(self, message: Message) -> None: ...


@pytest.mark.parametrize(
    ("handler", "expected"),
    [(_Callable(), True), (functools.partial(_Callable()), True), (_plain, False), (_Callable, False)],
    ids=repr,
)
def test_a_coroutine_function_is_known_in_every_disguise(handler: Any, expected: bool) -> None:
    """Partials and callable objects are looked through; making an object is no coroutine."""
    assert is_coroutine_function(handler) is expected


async def test_a_slow_handler_loses_the_oldest_and_the_log_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The queue is bounded, the newest messages stay, and nobody waits."""
    got: list[int] = []
    release = threading.Event()

    def handle(payload: int) -> None:
        release.wait(SECONDS)
        got.append(payload)

    slow = dispatch(handle)
    slow.receive(Message("a", b"-1"))
    await asyncio.to_thread(wait_until, lambda: not slow._messages)
    count = MAX_QUEUED_MESSAGES + 5
    for number in range(count):
        slow.receive(Message("a", b"%d" % number))
    assert "4 messages dropped" in caplog.text
    release.set()
    await asyncio.to_thread(wait_until, lambda: bool(got) and got[-1] == count - 1)
    assert got == [-1, *range(5, count)]
    slow.end()


@pytest.mark.parametrize("kind", ["function", "coroutine function", "coroutine function elsewhere"])
async def test_messages_that_come_thick_and_fast_all_arrive_in_order(kind: str) -> None:
    """They are handed over in batches, the last one too, and a lone one after a pause is not forgotten."""
    got: list[int] = []
    loop = asyncio.get_running_loop() if kind == "coroutine function" else None
    handler = got.append if kind == "function" else _Recorder(got)
    busy = dispatch(handler, loop=loop)
    count = 0
    for burst in (3000, 1, 1, 3000, 1):
        for _ in range(burst):
            busy.receive(Message("a", b"%d" % count))
            count += 1
            if count % 10 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            while len(got) < count:
                await asyncio.sleep(0.001)
    assert got == list(range(count))
    busy.end()


async def test_a_handler_that_was_ended_gets_nothing_more() -> None:
    """What was queued at the end is dropped, for both kinds of handler."""
    for make in (lambda got: got.append, _Recorder):
        got: list[Any] = []
        handler = make(got)
        ended = dispatch(handler, loop=asyncio.get_running_loop())
        ended.receive(Message("a", b"1"))
        async with asyncio.timeout(SECONDS):
            while not got:
                await asyncio.sleep(0.01)
        ended.end()
        ended.receive(Message("a", b"2"))
        await asyncio.sleep(0)
        assert got == [1]


class _Recorder:
    def __init__(self, got: list[Any]) -> None:
        self.got = got

    async def __call__(self, payload: Any) -> None:
        self.got.append(payload)


async def test_a_coroutine_handler_outlives_what_it_awaits(caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled part, or an error, ends one call and not the handler."""
    got: list[Any] = []

    async def handle(payload: str) -> None:
        if payload == "cancel":
            part = asyncio.ensure_future(asyncio.sleep(0))
            part.cancel()
            await part
        if payload == "raise":
            raise RuntimeError("boom")
        got.append(payload)

    robust = dispatch(handle, loop=asyncio.get_running_loop())
    for payload in (b"cancel", b"raise", b"work"):
        robust.receive(Message("a", payload))
    async with asyncio.timeout(SECONDS):
        while not got:
            await asyncio.sleep(0.01)
    assert got == ["work"]
    assert "was cancelled by what it awaited" in caplog.text
    assert "boom" in caplog.text
    robust.end()


@pytest.mark.parametrize("messages_before", [0, 1])
def test_a_handler_whose_loop_is_closed_is_told_in_the_log(
    messages_before: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection does not notice, and the log says once why nothing comes."""
    caplog.set_level(logging.ERROR, "tidegate")
    got: list[Any] = []

    async def start() -> Dispatch:
        made = dispatch(_Recorder(got), loop=asyncio.get_running_loop())
        for _ in range(messages_before):
            made.receive(Message("a", b"1"))
        async with asyncio.timeout(SECONDS):
            while len(got) < messages_before:
                await asyncio.sleep(0.01)
        return made

    orphan = asyncio.run(start())
    for _ in range(3):
        orphan.receive(Message("a", b"2"))
    orphan.end()
    assert got == [1] * messages_before
    assert [each.getMessage() for each in caplog.records] == [
        "handler _Recorder gets no more messages: its event loop is closed"
    ]
