"""The line of listeners that have something to write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from app.hub import flusher as module
from app.hub.flusher import SHORT_SECONDS, SLICE, Flusher


class Recorder:
    """A writer that notes when it was its turn.

    Args:
        name: what it notes.
        log: where.
        then: what it does besides.
    """

    def __init__(self, name: object, log: list[object], then: Callable[[], None] | None = None) -> None:
        self._name = name
        self._log = log
        self._then = then

    def schedule(self) -> None:
        """Nobody asks for it here."""

    def write(self) -> None:
        """Note it."""
        self._log.append(self._name)
        if self._then is not None:
            self._then()


class Clock:
    """A clock that goes on by so much with each look at it."""

    def __init__(self, step_seconds: float) -> None:
        self._step_seconds = step_seconds
        self._now = 0.0

    def __call__(self) -> float:
        """The time, in seconds."""
        self._now += self._step_seconds
        return self._now


@pytest.fixture
async def later(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], None]]]:
    """What the running loop was asked to do later, instead of being done."""
    asked: list[tuple[float, Callable[[], None]]] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda seconds, callback: asked.append((seconds, callback)))
    return asked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no round takes long unless a test says so."""
    monkeypatch.setattr(module, "perf_counter", Clock(0.0))


async def turn() -> None:
    """One turn of the loop."""
    await asyncio.sleep(0)


async def test_nothing_is_written_in_the_turn_of_whoever_delivers() -> None:
    """Adding costs nothing; the write comes with the next turn of the loop."""
    log: list[object] = []
    flusher = Flusher()
    flusher.add(Recorder(1, log))
    assert log == []
    await turn()
    assert log == [1]


async def test_all_are_written_in_order_a_slice_in_each_turn() -> None:
    """However many wait, the loop has a turn for others in between."""
    log: list[object] = []
    flusher = Flusher()
    count = 2 * SLICE + 5
    for number in range(count):
        flusher.add(Recorder(number, log))
    lengths = []
    for _ in range(4):
        await turn()
        lengths.append(len(log))
    assert lengths == [SLICE, 2 * SLICE, count, count]
    assert log == list(range(count))


async def test_who_comes_during_a_round_is_written_in_the_next() -> None:
    """A writer that has something again at once does not keep the others waiting."""
    log: list[object] = []
    flusher = Flusher()
    again = Recorder("again", log)
    flusher.add(Recorder("first", log, lambda: flusher.add(again)))
    for number in range(SLICE):
        flusher.add(Recorder(number, log))
    for _ in range(3):
        await turn()
    assert log == ["first", *range(SLICE), "again"]


async def test_a_writer_that_raises_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and the line goes on, in this round and after it."""
    log: list[object] = []
    flusher = Flusher()

    def fail() -> None:
        raise RuntimeError("the connection is odd")

    with caplog.at_level(logging.ERROR, "tidegate.streams"):
        for number in range(3):
            flusher.add(Recorder(number, log, fail if number == 1 else None))
        await turn()
        flusher.add(Recorder("next", log))
        await turn()
    assert log == [0, 1, 2, "next"]
    assert ["writing to a stream failed"] == [each.message for each in caplog.records]
    assert "the connection is odd" in caplog.text


async def test_after_a_long_round_it_rests_for_as_long(
    later: list[tuple[float, Callable[[], None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the loop's time is left for reading and for requests; what comes meanwhile goes together."""
    monkeypatch.setattr(module, "perf_counter", Clock(0.5))
    log: list[object] = []
    flusher = Flusher()
    flusher.add(Recorder(1, log))
    await turn()
    for number in (2, 3):
        flusher.add(Recorder(number, log))
        await turn()
    assert log == [1]
    assert [seconds for seconds, _ in later] == [0.5]
    later.pop()[1]()
    assert log == [1, 2, 3]


async def test_the_length_of_a_round_is_that_of_all_its_slices(
    later: list[tuple[float, Callable[[], None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many short slices make a long round."""
    monkeypatch.setattr(module, "perf_counter", Clock(SHORT_SECONDS / 2))
    flusher = Flusher()
    log: list[object] = []
    for number in range(3 * SLICE):
        flusher.add(Recorder(number, log))
    for _ in range(4):
        await turn()
    assert len(log) == 3 * SLICE
    assert [seconds for seconds, _ in later] == [pytest.approx(1.5 * SHORT_SECONDS)]


async def test_after_a_short_round_there_is_no_rest(
    later: list[tuple[float, Callable[[], None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bridge that has little to do writes without delay."""
    monkeypatch.setattr(module, "perf_counter", Clock(SHORT_SECONDS / 2))
    flusher = Flusher()
    log: list[object] = []
    for number in range(3):
        flusher.add(Recorder(number, log))
        await turn()
        await turn()
        assert log == list(range(number + 1))
    assert later == []


async def test_after_a_rest_with_nothing_to_do_it_begins_anew(
    later: list[tuple[float, Callable[[], None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that ran empty while the flusher rested is written again when it fills."""
    monkeypatch.setattr(module, "perf_counter", Clock(0.5))
    flusher = Flusher()
    log: list[object] = []
    flusher.add(Recorder(1, log))
    await turn()
    while later:
        monkeypatch.setattr(module, "perf_counter", Clock(0.0))
        later.pop()[1]()
    flusher.add(Recorder(2, log))
    await turn()
    assert log == [1, 2]
