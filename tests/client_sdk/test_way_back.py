from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tidegate import async_publish
from tidegate.background import engine
from tidegate.memory import MemoryBroker
from tidegate.way_back import WayBack, way_back_to

SECONDS = 20.0


class Waiting:
    """Stands for a coroutine that waits."""

    def __init__(self, finish: Callable[[], None]) -> None:
        self.finish = finish


def count_wakings(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each time that another thread wakes the loop, from now on."""
    wakings: list[Any] = []
    wake = loop.call_soon_threadsafe

    def counted(call: Callable[..., Any], *arguments: Any, **named: Any) -> asyncio.Handle:
        wakings.append(call)
        return wake(call, *arguments, **named)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    return wakings


def test_outcomes_of_one_turn_wake_a_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are told in their order, at the price of one waking."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakings = count_wakings(loop, monkeypatch)
        way = way_back_to(loop)
        way.waiting = 50
        told: list[int] = []
        all_told = asyncio.Event()

        async def have_outcomes() -> None:
            for number in range(50):
                way.tell(loop, Waiting(lambda number=number: told.append(number)))  # type: ignore[misc]
            way.tell(loop, Waiting(all_told.set))

        async def count() -> int:  # on the engine, behind whatever its turn left to do
            return len(wakings)

        engine.submit(have_outcomes())
        await asyncio.wait_for(all_told.wait(), SECONDS)
        assert told == list(range(50))
        assert await asyncio.wrap_future(engine.submit(count())) == 1

    asyncio.run(main())


def test_who_waits_alone_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody whose outcome it could come with, so that the engine's turn is not waited for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakings = count_wakings(loop, monkeypatch)
        way = way_back_to(loop)
        way.waiting = 1
        told = asyncio.Event()

        async def have_outcome() -> None:
            way.tell(loop, Waiting(told.set))
            in_the_same_turn.append(len(wakings))

        in_the_same_turn: list[int] = []
        engine.submit(have_outcome())
        await asyncio.wait_for(told.wait(), SECONDS)
        assert in_the_same_turn == [1]

    asyncio.run(main())


def test_who_is_left_by_an_interruption_is_told_when_the_loop_goes_on() -> None:
    """Ctrl-C in the middle of many outcomes costs the others nothing."""
    loop = asyncio.new_event_loop()
    told: list[int] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def have_outcomes() -> None:
        way = WayBack()
        way.waiting = 2
        way.tell(loop, Waiting(interrupt))
        way.tell(loop, Waiting(lambda: told.append(1)))
        way.tell(loop, Waiting(loop.stop))

    try:
        engine.submit(have_outcomes()).result(SECONDS)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert told == []
        loop.call_later(SECONDS, loop.stop)
        loop.run_forever()
        assert told == [1]
    finally:
        loop.close()


def test_a_loop_that_is_closed_is_told_nothing_and_let_go() -> None:
    """An outcome that comes too late is dropped, with what it would have held."""
    loop = asyncio.new_event_loop()
    way = way_back_to(loop)
    loop.close()

    async def have_outcome(gone: asyncio.AbstractEventLoop) -> None:
        way.tell(gone, Waiting(gone.stop))

    engine.submit(have_outcome(loop)).result(SECONDS)
    reference = weakref.ref(loop)
    del loop
    gc.collect()
    assert reference() is None


def test_nobody_counts_as_waiting_when_all_calls_have_ended() -> None:
    """Neither a call that succeeds nor one that is cancelled stays counted."""
    broker = MemoryBroker()

    @async_publish("back/counted", connect=broker.connect)
    async def reading() -> int:
        return 1

    async def main() -> None:
        way = way_back_to(asyncio.get_running_loop())
        await asyncio.gather(*(reading() for _ in range(10)))
        assert way.waiting == 0
        broker.freeze()
        call = asyncio.create_task(reading())
        while not way.waiting:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert way.waiting == 0
        broker.thaw()

    asyncio.run(main())
