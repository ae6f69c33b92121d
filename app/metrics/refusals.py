"""How often somebody was refused, for who they are or for what they may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, Metric

MAX_REASONS: Final = 32
OTHER: Final = "other"
AUTHENTICATE: Final = "authenticate"
"""The action of who was refused for who they are."""


class AuthenticationRefusals:
    """Counts refusals, for whoever checks callers; ``count`` may be handed to it as a plain function.

        refusals = AuthenticationRefusals()
        Guard(…, on_refusal=refusals.count)

    Attributes:
        counted: how many there were, by reason.
    """

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """A caller was refused.

        Args:
            reason: one of a few fixed words, such as ``expired`` or ``unknown_key``; never anything that the
                caller sent. Beyond ``MAX_REASONS`` different ones, more are counted as ``other``.
        """
        if reason not in self.counted and len(self.counted) >= MAX_REASONS:
            reason = OTHER
        self.counted[reason] += 1


def refusal_metrics(refusals: AuthenticationRefusals, not_allowed: Mapping[str, int]) -> Iterator[Metric]:
    """Both sorts.

    Args:
        refusals: for who they are.
        not_allowed: for what they may, by action.
    """
    unknown = CounterMetricFamily(
        "tidegate_authentication_refusals", "Callers refused for who they are.", labels=("reason",)
    )
    for reason, count in refusals.counted.items():
        unknown.add_metric((reason,), count)
    yield unknown
    forbidden = CounterMetricFamily(
        "tidegate_authorization_refusals", "What callers asked for and may not.", labels=("action",)
    )
    for action, count in not_allowed.items():
        if action != AUTHENTICATE:
            forbidden.add_metric((action,), count)
    yield forbidden
