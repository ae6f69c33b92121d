"""What became of the messages of a batch, in their order, and small: a batch may have millions.

Rules:

1. Everything is counted. What is also listed waits here until it is taken: two bytes for a message that the
   broker took, about twenty for one that failed.
2. Equal problems are kept once, and written each time. When what waits would make ``MAX_PROBLEM_BYTES`` of
   them, a further one is listed by its type alone, and counted as abridged.
3. At most ``MAX_LISTED`` of each sort wait, and at most ``MAX_FAILURE_BYTES`` of failures, as they will be
   written; what is beyond is counted as left out.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

import orjson

from app.problems import ProblemError, ProblemType
from app.publishing.idempotency import says_that_nothing_was_sent
from tidegate.reason_codes import describe

MAX_LISTED: Final = 1_000_000
MAX_PROBLEM_BYTES: Final = 1_048_576
MAX_FAILURE_BYTES: Final = 8_388_608

_TAKEN_MAX: Final = 50_000
"""When so many were taken, their room is freed."""

_FAILURE_BYTES: Final = 28
"""What a failure takes beside its problem, about."""

_FAILED: Final = 0
"""Stands in the place of a message that failed."""
_LEFT_OUT: Final = 1
"""Stands in the place of one that failed and is not listed."""


class Outcomes:
    """The outcomes of one batch; told in order, and taken in order.

    Args:
        lists_successes: whether the messages that the broker took are listed too.

    Attributes:
        accepted: messages that were handed over (QoS 0) or that the broker took (QoS 1 and 2).
        failed: all others.
        acknowledged: those accepted that the broker acknowledged.
        first_problem: why the first one failed.
        may_have_sent: whether any message was sent, or may have been.
    """

    def __init__(self, *, lists_successes: bool = True) -> None:
        self._lists_successes = lists_successes
        self.accepted = 0
        self.failed = 0
        self.acknowledged = 0
        self.first_problem: ProblemError | None = None
        self.may_have_sent = False
        self._left_out = 0
        self._abridged = 0
        self._kinds: dict[tuple[int, int], int] = {}
        self._tails: list[bytes] = [b"", b""]
        self._begin()

    def _begin(self) -> None:
        """Nothing waits to be taken."""
        self._first_index = 0
        self._codes = array("H")
        self._codes_taken = 0
        self._failed_at = array("Q")
        self._failed_with = array("L")
        self._failures_taken = 0
        self._problems: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._abridged_numbers: dict[ProblemType, int] = {}
        self._failure_bytes = 0
        self._abridges = False

    @property
    def count(self) -> int:
        """How many messages have an outcome."""
        return self.accepted + self.failed

    def accept(self, qos: int, reason_code: int) -> None:
        """The next message was accepted."""
        if self._lists_successes:
            code = self._kinds.get((qos, reason_code))
            if not self._append(self._add_kind(qos, reason_code) if code is None else code):
                self._left_out += 1
        self.accepted += 1
        self.may_have_sent = True
        if qos:
            self.acknowledged += 1

    def fail(self, problem: ProblemError) -> None:
        """The next message failed."""
        if self.first_problem is None:
            self.first_problem = problem.with_traceback(None)  # its frames hold the whole body
            problem.__context__ = None
        if not says_that_nothing_was_sent(problem):
            self.may_have_sent = True
        number = self._keep(problem) if len(self._failed_at) < MAX_LISTED else None
        if self._lists_successes:
            self._append(_LEFT_OUT if number is None else _FAILED)
        if number is None:
            self._left_out += 1
        else:
            self._failed_at.append(self.count)
            self._failed_with.append(number)
        self.failed += 1

    def take(self, limit: int) -> list[bytes]:
        """What is next in order, at most so many, as JSON objects; empty where nothing waits."""
        codes, tails = self._codes, self._tails
        lines: list[bytes] = []
        while len(lines) < limit and self._codes_taken < len(codes):
            start = self._codes_taken
            end = self._codes_taken = min(start + limit - len(lines), len(codes))
            lines += [
                b'{"index":%d%b' % (index, tails[code]) if code else self._take_failure()
                for index, code in enumerate(codes[start:end], self._first_index + start)
                if code != _LEFT_OUT
            ]
        if self._codes_taken == len(codes):
            more = min(limit - len(lines), len(self._failed_at) - self._failures_taken)
            lines += [self._take_failure() for _ in range(more)]
            if self._failures_taken == len(self._failed_at):
                self._begin()
        self._free_taken()
        return lines

    def totals(self) -> dict[str, Any]:
        """The counts, as they stand in an answer."""
        totals = {"accepted": self.accepted, "failed": self.failed}
        if self._left_out:
            totals["left_out"] = self._left_out
        if self._abridged:
            totals["abridged"] = self._abridged
        return totals

    def _append(self, code: int) -> bool:
        """Take the next place; False where there is none."""
        if not self._codes:
            self._first_index = self.count
        if len(self._codes) >= MAX_LISTED:
            return False
        self._codes.append(code)
        return True

    def _add_kind(self, qos: int, reason_code: int) -> int:
        facts = {"qos": qos, "reason_code": reason_code, "reason": describe(reason_code)}
        self._tails.append(b"," + orjson.dumps(facts)[1:])
        code = self._kinds[qos, reason_code] = len(self._tails) - 1
        return code

    def _keep(self, problem: ProblemError) -> int | None:
        """The number under which a problem is written; None where it is not."""
        number: int | None
        if not self._abridges:
            number = self._number(problem.body())
            size = _FAILURE_BYTES + len(self._problems[number])
            if self._failure_bytes + size <= MAX_PROBLEM_BYTES:
                self._failure_bytes += size
                return number
            self._abridges = True
        number = self._abridged_numbers.get(problem.kind)
        if number is None:
            number = self._number(ProblemError(problem.kind, problem.kind.meaning).body())
            self._abridged_numbers[problem.kind] = number
        size = _FAILURE_BYTES + len(self._problems[number])
        if self._failure_bytes + size > MAX_FAILURE_BYTES:
            return None
        self._failure_bytes += size
        self._abridged += 1
        return number

    def _number(self, body: bytes) -> int:
        number = self._numbers.get(body)
        if number is None:
            number = self._numbers[body] = len(self._problems)
            self._problems.append(body)
        return number

    def _free_taken(self) -> None:
        if self._codes_taken >= _TAKEN_MAX:
            del self._codes[: self._codes_taken]
            self._first_index += self._codes_taken
            self._codes_taken = 0
        if self._failures_taken >= _TAKEN_MAX:
            del self._failed_at[: self._failures_taken]
            del self._failed_with[: self._failures_taken]
            self._failures_taken = 0

    def _take_failure(self) -> bytes:
        place = self._failures_taken
        self._failures_taken += 1
        return b'{"index":%d,"problem":%b}' % (
            self._failed_at[place],
            self._problems[self._failed_with[place]],
        )
