"""Steps of a check: each says what was seen, or why it failed and what to do.

Rules:

1. A step either went well or failed; after one that failed, the steps behind it are not tried.
2. A failure says what was seen, and what to do about it.
3. No step takes longer than ``STEP_SECONDS``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from app.diagnosis.advice import StepError
from app.diagnosis.handshake import Handshake, Seen

STEP_SECONDS: Final = 10.0

Work: TypeAlias = Callable[[], Awaitable[Seen | str]]
"""A step's work: returns what was seen, or raises StepError."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was checked.

    Attributes:
        name: what was checked.
        is_ok: whether it went well.
        milliseconds: how long it took.
        detail: what was seen.
        advice: what to do, where it failed or soon will.
        handshake: what TLS agreed on, where that was the step.
    """

    name: str
    is_ok: bool
    milliseconds: float
    detail: str
    advice: str = ""
    handshake: Handshake | None = None


def _ignore(_: Step) -> None:
    return None


@dataclass(slots=True)
class Report:
    """The steps that were taken, in order.

    Attributes:
        tell: called with each step when it ends.
        steps: those that ended.
    """

    tell: Callable[[Step], None] = _ignore
    steps: list[Step] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """Whether all went well."""
        return all(step.is_ok for step in self.steps)

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        return "All is well." if self.is_ok else f"Failed at: {self.steps[-1].name}."

    async def take(self, steps: Sequence[tuple[str, Work]]) -> bool:
        """Take steps until one fails; whether none did."""
        for name, work in steps:
            if not await self.step(name, work):
                return False
        return True

    async def step(self, name: str, work: Work) -> bool:
        """Take a step; whether it went well."""
        began_at = time.perf_counter()
        is_ok, advice, handshake = False, "", None
        try:
            async with asyncio.timeout(STEP_SECONDS):
                seen = await work()
            is_ok = True
            if isinstance(seen, Seen):
                detail, advice, handshake = seen.detail, seen.advice, seen.handshake
            else:
                detail = seen
        except TimeoutError:
            detail = f"no answer within {STEP_SECONDS:g} s"
            advice = (
                "Something on the way may drop packets: look at firewalls, and at whether the broker hangs."
            )
        except StepError as failure:
            detail, advice = str(failure), failure.advice
        milliseconds = (time.perf_counter() - began_at) * 1000
        step = Step(name, is_ok, milliseconds, detail, advice, handshake)
        self.steps.append(step)
        self.tell(step)
        return is_ok
