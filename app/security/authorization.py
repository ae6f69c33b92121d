"""The one place that decides whether a principal may do what it asks for.

Rules:

1. Every call that publishes, follows, reads or looks asks here; a route decides nothing by itself.
2. A refusal names what the caller asked for and what it is granted itself, and nothing of anybody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.problems import ProblemError, ProblemType
from app.security.grants import Grant, Grants
from app.security.principal import Permission, Principal
from tidegate.message import Message


class Authorization:
    """Decides."""

    def require_publish(self, principal: Principal, message: Message, *, field: str = "topic") -> None:
        """Let a message be published, or refuse it.

        Args:
            principal: who publishes.
            message: what, to a valid topic name.
            field: where the topic came from, for the problem.

        Raises:
            ProblemError: NOT_GRANTED; RESERVED_TOPIC where the topic begins with ``$``.
        """
        reason = principal.grants.why_not_publish(message.topic, message.qos, retain=message.retain)
        if reason is not None:
            raise _refusal("publish to", message.topic, reason, field=field)

    def require_subscribe(self, principal: Principal, topic_filter: str, qos: int, *, field: str) -> None:
        """Let a filter be followed or read, or refuse it.

        Args:
            principal: who asks.
            topic_filter: a valid topic filter.
            qos: the highest QoS asked for.
            field: where the filter came from, for the problem.

        Raises:
            ProblemError: NOT_GRANTED.
        """
        reason = principal.grants.why_not_subscribe(topic_filter, qos)
        if reason is not None:
            raise _refusal("subscribe to", topic_filter, reason, field=field)

    def narrow(
        self, principal: Principal, publish: Sequence[str] | None, subscribe: Sequence[str] | None
    ) -> Grants:
        """Part of what a principal is granted.

        Args:
            principal: whose grants.
            publish: filters to publish to, valid and not shared; None for all that is granted.
            subscribe: filters to follow, valid; None for all that is granted.

        Raises:
            ProblemError: NOT_GRANTED, with a JSON pointer to the filter; RESERVED_TOPIC as above.
        """
        grants = principal.grants
        if publish is None and subscribe is None:
            return grants
        return Grants(
            grants.publish if publish is None else _all_within(grants.publish_within, publish, "publish"),
            grants.subscribe
            if subscribe is None
            else _all_within(grants.subscribe_within, subscribe, "subscribe"),
        )

    def require_permission(self, principal: Principal, permission: Permission) -> None:
        """Let a call that needs a scope be made, or refuse it.

        Raises:
            ProblemError: FORBIDDEN.
        """
        if permission.value not in principal.scopes:
            raise ProblemError(
                ProblemType.FORBIDDEN,
                f"the call needs the scope {permission.value}, which is not granted",
                hint=f"use an API key or a token with the scope {permission.value}",
            )


def _all_within(
    within: Callable[[str], tuple[Grant, ...]], filters: Sequence[str], member: str
) -> list[Grant]:
    found: list[Grant] = []
    for index, each in enumerate(filters):
        part = within(each)
        if not part:
            raise _refusal(f"{member} to", each, "no grant covers it", field=f"/{member}/{index}")
        found += part
    return found


def _refusal(action: str, topic: str, reason: str, *, field: str) -> ProblemError:
    if action == "publish to" and topic.startswith("$"):
        return ProblemError(
            ProblemType.RESERVED_TOPIC,
            f"{topic!r} begins with '$': publishing there needs a grant that names it",
            field=field,
        )
    return ProblemError(
        ProblemType.NOT_GRANTED,
        f"you may not {action} {topic!r}: {reason}",
        field=field,
        hint="GET /v1/principal shows what you are granted",
    )
