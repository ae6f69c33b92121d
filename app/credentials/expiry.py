"""How long certificates are good for, and who is told when the end comes near.

Rules:

1. A bundle ends with the first of its certificates to end that is needed: the client's, its chain, and the
   authorities, of which the last to end counts, since an old root beside a new one is usual.
2. At 30, 14, 7 and 1 days before the end, and after it, a line is logged: once for each certificate and
   threshold in a process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tidegate.bundles import Bundle, Certificate

THRESHOLDS: Final = (30, 14, 7, 1, 0)
"""Days before the end at which it is told, and the end itself."""

CHECK_SECONDS: Final = 3600.0
"""How often the days are counted."""

logger = logging.getLogger("tidegate.credentials")


@dataclass(frozen=True, slots=True)
class End:
    """When a bundle stops being good.

    Attributes:
        certificate: the one that ends.
        kind: what it is, in words.
        at: the moment, in UTC.
        days_left: whole days until then; negative once it is over.
    """

    certificate: Certificate
    kind: str
    at: datetime
    days_left: int

    @property
    def warning(self) -> str | None:
        """What to say about it, where the end is near or over."""
        what = f"the {self.kind} ({self.certificate.label})"
        if self.days_left < 0:
            return f"{what} has expired, on {self.at:%Y-%m-%d}: put a renewed one in its place"
        if self.days_left <= max(THRESHOLDS):
            return f"{what} expires in {_days(self.days_left)}, on {self.at:%Y-%m-%d}: renew it"
        return None


def end_of(bundle: Bundle, now: datetime | None = None) -> End | None:
    """When a bundle ends; None where it has no certificates, as with the system's authorities."""
    moment = now or datetime.now(UTC)
    found: list[tuple[Certificate, str]] = []
    if bundle.certificate is not None:
        found.append((bundle.certificate, "client certificate"))
    found += [(each, "certificate of the chain") for each in bundle.chain]
    if bundle.authorities:
        last = max(bundle.authorities, key=lambda each: each.not_after)
        found.append((last, "certificate of the authority"))
    if not found:
        return None
    certificate, kind = min(found, key=lambda pair: pair[0].not_after)
    return End(certificate, kind, certificate.not_after, certificate.days_left(moment))


class Reminders:
    """Tells of ends that are near, each once for a threshold."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int]] = set()

    def look(self, end: End | None) -> None:
        """Log what is due; of several thresholds that are passed, the nearest."""
        if end is None:
            return
        passed = [each for each in THRESHOLDS if end.days_left <= each]
        if not passed:
            return
        due = -1 if end.days_left < 0 else min(passed)
        if (end.certificate.fingerprint, due) not in self._told:
            self._told.add((end.certificate.fingerprint, due))
            logger.log(logging.ERROR if due <= 1 else logging.WARNING, "%s", end.warning)


def _days(count: int) -> str:
    return "less than a day" if count < 1 else "1 day" if count == 1 else f"{count} days"
