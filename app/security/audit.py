"""The audit log: who did what to which topic, allowed or refused, and by which rule.

Rules:

1. Every refusal is recorded, up to a bound a second; what is beyond it is counted, and the count recorded.
2. What is allowed is recorded, but for reads of status and metrics; of publishes a sample.
3. A record names a principal, its way to show itself and the id of its key or token. It never holds a secret
   or a payload.
4. Who comes too often (429) is recorded apart: once in ``THROTTLED_SECONDS`` for each caller and bound, with
   how often. It takes no room from other refusals, and strangers take none from callers who are known.
5. Records go to the logger ``tidegate.audit``, their members beside the text (``extra=``): refusals as
   warnings, the rest as information.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Any, Final

from app.problems import ProblemError
from app.security.principal import Principal

logger = logging.getLogger("tidegate.audit")

MAX_TEXT: Final = 200
"""Characters of a topic or a reason that a record shows."""

WINDOW_SECONDS: Final = 1.0

THROTTLED_SECONDS: Final = 10.0
"""For how long the refusals of one caller by one bound are counted before the record says how many."""
MAX_THROTTLED: Final = 100
"""So many callers and bounds have a record of their own in that time, and so many addresses of strangers."""

peer: Final[ContextVar[tuple[str, int] | None]] = ContextVar("peer", default=None)
"""The address and port of the connection that the request at hand came by."""


class Throttled:
    """Counts who was refused for coming too often, and records it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Count] = {}
        self._strangers: dict[tuple[str, str], _Count] = {}
        self._beyond = 0
        self._end: asyncio.TimerHandle | None = None

    def note(self, bound: str, owner: str, principal: Principal | None, problem: ProblemError) -> None:
        """Count one refusal.

        Args:
            bound: the setting that refuses.
            owner: whom it counts for: ``Principal.bounded_as``, or an address.
            principal: who asked; None where that is not known.
            problem: the refusal.
        """
        counts = self._strangers if principal is None else self._known
        found = counts.get((bound, owner))
        if found is not None:
            found.refused += 1
        elif len(counts) < MAX_THROTTLED:
            counts[bound, owner] = _Count(_who(principal), problem.detail)
        else:
            self._beyond += 1
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(
                THROTTLED_SECONDS, self.record, context=Context()
            )

    def record(self) -> None:
        """Write what was counted, and begin anew."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        for counts in (self._known, self._strangers):
            for (bound, _), count in counts.items():
                logger.warning(
                    "%s refused %d times: %s",
                    bound,
                    count.refused,
                    _shown(count.reason),
                    extra={
                        "action": "throttle",
                        "decision": "refused",
                        "target": bound,
                        "reason": _shown(count.reason),
                        "refused": count.refused,
                        **count.who,
                    },
                )
            counts.clear()
        if self._beyond:
            logger.warning(
                "%d more refusals of further callers who came too often",
                self._beyond,
                extra={"action": "throttle", "decision": "refused", "unrecorded": self._beyond},
            )
            self._beyond = 0


@dataclass(slots=True)
class _Count:
    """How often one bound refused one caller; who it was and why, as of the first time."""

    who: dict[str, Any]
    reason: str
    refused: int = 1


class Audit:
    """Writes the records.

    Args:
        publish_sample: the share of allowed publishes that are recorded, 0.0 to 1.0.
        max_refusals: refusals that are recorded a second.

    Attributes:
        refusals: how many there were, by action, since the start; also those beyond the bound.
        throttled: is told of who came too often.
    """

    def __init__(self, *, publish_sample: float = 0.0, max_refusals: int = 50) -> None:
        self._publish_sample = publish_sample
        self._max_refusals = max_refusals
        self._window_ends_at = 0.0
        self._in_window = 0
        self._unrecorded = 0
        self._summary: asyncio.TimerHandle | None = None
        self.refusals: dict[str, int] = {}
        self.throttled = Throttled()

    def samples_publish(self) -> bool:
        """Whether the next allowed publish is one to record."""
        sample = self._publish_sample
        return sample > 0 and random.random() < sample  # noqa: S311 - a sample, and no secret

    def allowed(self, action: str, principal: Principal, target: str, *, rule: str, **more: Any) -> None:
        """Record what was allowed.

        Args:
            action: what was done: ``publish``, ``subscribe``, ``read``, or a scope.
            principal: who did it.
            target: the topic or filter, or the call.
            rule: what allowed it: the filter of a grant, or a scope.
            more: further members.
        """
        logger.info(
            "%s allowed: %s",
            action,
            _shown(target),
            extra={
                "action": action,
                "decision": "allowed",
                "target": _shown(target),
                "rule": _shown(rule),
                **_who(principal),
                **more,
            },
        )

    def refused(
        self, action: str, principal: Principal | None, target: str, *, reason: str, **more: Any
    ) -> None:
        """Record what was refused.

        Args:
            action: what was asked for; ``authenticate`` where nobody knows who asked.
            principal: who asked; None where that is not known.
            target: the topic or filter, or the call.
            reason: why not.
            more: further members.
        """
        self.refusals[action] = self.refusals.get(action, 0) + 1
        if not self._has_room():
            self._unrecorded += 1
            return
        logger.warning(
            "%s refused: %s: %s",
            action,
            _shown(target),
            _shown(reason),
            extra={
                "action": action,
                "decision": "refused",
                "target": _shown(target),
                "reason": _shown(reason),
                **_who(principal),
                **more,
            },
        )

    def close(self) -> None:
        """Record how many refusals were not recorded, and who came too often; and end."""
        if self._summary is not None:
            self._summary.cancel()
            self._summary = None
        self._tell_of_the_rest()
        self.throttled.record()

    def _has_room(self) -> bool:
        now = time.monotonic()
        if now >= self._window_ends_at:
            self._tell_of_the_rest()
            self._window_ends_at = now + WINDOW_SECONDS
            self._in_window = 0
        self._in_window += 1
        if self._in_window <= self._max_refusals:
            return True
        if self._summary is None:
            # A burst may be all that comes: its count is recorded all the same, and in no request's name.
            self._summary = asyncio.get_running_loop().call_later(
                WINDOW_SECONDS, self._end_window, context=Context()
            )
        return False

    def _end_window(self) -> None:
        self._summary = None
        self._tell_of_the_rest()

    def _tell_of_the_rest(self) -> None:
        if not self._unrecorded:
            return
        logger.warning(
            "%d more refusals were not recorded: more than %d a second",
            self._unrecorded,
            self._max_refusals,
            extra={"decision": "refused", "unrecorded": self._unrecorded},
        )
        self._unrecorded = 0


def _who(principal: Principal | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if principal is not None:
        found["principal"] = principal.subject
        found["source"] = principal.source.value
        if principal.credential_id is not None:
            found["credential_id"] = principal.credential_id
    address = peer.get()
    if address is not None:
        found["peer"] = address[0]
    return found


def _shown(text: str) -> str:
    """A text from outside, bounded, without what would break a line or hide in one."""
    shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    return shown if shown.isprintable() else ascii(shown)[1:-1]
