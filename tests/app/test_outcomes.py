"""What a batch's outcomes and lines keep, beside lists that keep everything."""

from __future__ import annotations

import itertools
import json
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.input.lines import Lines
from app.problems import ProblemError, ProblemType
from app.publishing import outcomes as outcomes_module
from app.publishing.outcomes import Outcomes

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([0, 16, 0x7F])),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 5),
    ),
    max_size=60,
)


def problem(detail: str) -> ProblemError:
    """A problem that differs by its detail."""
    return ProblemError(ProblemType.INVALID_BODY, detail)


def taken(outcomes: Outcomes, limit: int = 1000) -> list[dict[str, Any]]:
    """All that waits, taken so many at a time."""
    found: list[dict[str, Any]] = []
    while part := outcomes.take(limit):
        found += map(json.loads, part)
    return found


@given(steps=STEPS, lists_successes=st.booleans(), freed_after=st.integers(1, 10))
def test_outcomes_come_back_in_their_order(steps: list[Any], lists_successes: bool, freed_after: int) -> None:
    """Whenever they are taken, and however many at a time: each once, at its index, as it was told."""
    outcomes = Outcomes(lists_successes=lists_successes)
    expected: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes_module, "_TAKEN_MAX", freed_after)
        for step in steps:
            if isinstance(step, int):
                found += map(json.loads, outcomes.take(step))
            elif isinstance(step, str):
                expected.append({"index": outcomes.count, "problem": problem(step).members()})
                outcomes.fail(problem(step))
            else:
                qos, code = step
                if lists_successes:
                    expected.append({"index": outcomes.count, "qos": qos, "reason_code": code})
                outcomes.accept(qos, code)
        found += taken(outcomes, 3)
    for each in found:
        each.pop("reason", None)
    assert expected == found
    failed = sum(isinstance(step, str) for step in steps)
    accepted = sum(isinstance(step, tuple) for step in steps)
    assert {"accepted": accepted, "failed": failed} == outcomes.totals()


def test_what_is_beyond_the_bound_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first so many of each sort are listed, and the totals say how many are not."""
    monkeypatch.setattr(outcomes_module, "MAX_LISTED", 3)
    outcomes = Outcomes()
    for _ in range(4):
        outcomes.accept(1, 0)
    for _ in range(5):
        outcomes.fail(problem("a"))
    assert [0, 1, 2, 4, 5, 6] == [each["index"] for each in taken(outcomes)]
    assert {"accepted": 4, "failed": 5, "left_out": 3} == outcomes.totals()


def test_problems_that_are_too_many_lose_their_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep their type, and the totals say how many there are."""
    monkeypatch.setattr(outcomes_module, "MAX_PROBLEM_BYTES", 300)
    outcomes = Outcomes()
    for index in range(10):
        outcomes.fail(problem(f"detail {index}"))
    found = taken(outcomes)
    assert {problem("").kind.uri} == {each["problem"]["type"] for each in found}
    kept = sum("detail" in each["problem"]["detail"] for each in found)
    assert 0 < kept < 10
    assert 10 - kept == outcomes.totals()["abridged"]


@given(steps=STEPS, lists_successes=st.booleans())
def test_failures_that_take_too_much_are_counted(steps: list[Any], lists_successes: bool) -> None:
    """Whatever is left out, the others stand at their index, and when all was taken there is room again."""
    outcomes = Outcomes(lists_successes=lists_successes)
    accepted: list[int] = []
    failed: list[int] = []
    found: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcomes_module, "MAX_PROBLEM_BYTES", 200)
        patch.setattr(outcomes_module, "MAX_FAILURE_BYTES", 600)
        for step in steps:
            if isinstance(step, int):
                found += map(json.loads, outcomes.take(step))
            elif isinstance(step, str):
                failed.append(outcomes.count)
                outcomes.fail(problem(step))
            else:
                accepted.append(outcomes.count)
                outcomes.accept(*step)
        found += taken(outcomes, 3)
        last = outcomes.count
        outcomes.fail(problem("a"))
        assert [{"index": last, "problem": problem("a").members()}] == taken(outcomes)
    told = [each["index"] for each in found]
    assert sorted(told) == told
    assert (accepted if lists_successes else []) == [each["index"] for each in found if "problem" not in each]
    failures = [each["index"] for each in found if "problem" in each]
    assert set(failures) <= set(failed)
    assert len(failed) - len(failures) == outcomes.totals().get("left_out", 0)


class Body:
    """Stands for what a body was read into."""


def test_what_was_read_is_let_go() -> None:
    """The first problem is kept, and not the frames in which it came about, which hold the body."""
    outcomes = Outcomes()

    def read(body: Body) -> None:
        try:
            int(repr(body))
        except ValueError:
            raise problem("bad") from None

    body = Body()
    alive = weakref.ref(body)
    try:
        read(body)
    except ProblemError as error:
        outcomes.fail(error)
    del body
    assert outcomes.first_problem is not None
    assert alive() is None


def test_failures_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones too: the first in full, then by their type, and the rest is counted."""
    monkeypatch.setattr(outcomes_module, "MAX_PROBLEM_BYTES", 1000)
    monkeypatch.setattr(outcomes_module, "MAX_FAILURE_BYTES", 3000)
    outcomes = Outcomes()
    for _ in range(100):
        outcomes.fail(problem("the same"))
    outcomes.accept(1, 0)
    lines = outcomes.take(1000)
    totals = outcomes.totals()
    *failures, last = map(json.loads, lines)
    in_full = [each for each in failures if each["problem"]["detail"] == "the same"]
    assert 100 == last["index"]
    assert failures[: len(in_full)] == in_full
    assert len(failures) - len(in_full) == totals["abridged"] > 0
    assert 100 - len(failures) == totals["left_out"] > 0
    assert sum(map(len, lines[: len(in_full)])) <= 1000
    assert sum(map(len, lines[:-1])) <= 3000


@given(
    rows=st.lists(
        st.sampled_from([b"", b" ", b"\r", b"abc", b"abcde", b"abcdef", b"abcdefghijkl"]), max_size=9
    ),
    cuts=st.lists(st.integers(0, 60), max_size=9),
    is_ended=st.booleans(),
)
def test_lines_wherever_a_body_is_cut(rows: list[bytes], cuts: list[int], is_ended: bool) -> None:
    """The same lines come out, in whatever parts a body arrives; one too long is known as such."""
    body = b"\n".join(rows) + (b"\n" if is_ended else b"")
    lines = Lines(max_bytes=5)
    found: list[bytes | ProblemError] = []
    places = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        found += lines.feed(body[begin:end])
    found += lines.end()
    told = [each if isinstance(each, bytes) else each.kind for each in found]
    assert [
        row if len(row) <= 5 else ProblemType.BODY_TOO_LARGE for row in rows if row and not row.isspace()
    ] == told
