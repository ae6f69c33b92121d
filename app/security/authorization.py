"""The one place that decides whether a principal may do what it asks for.

Rules:

1. Every call that publishes, follows, reads or looks asks here; a route decides nothing by itself.
2. A refusal names what the caller asked for and what it is granted itself, and nothing of anybody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from app.problems import ProblemError, ProblemType
from app.security.audit import Audit
from app.security.authentication import Authentication, Ended
from app.security.grants import Grant, Grants
from app.security.principal import Permission, Principal
from tidegate.message import Message

_ENDED: Final = {Ended.EXPIRED: "expired", Ended.REVOKED: "been revoked"}

_OFTEN: Final = frozenset({Permission.STATUS_READ, Permission.METRICS_READ})
"""What a monitor asks for all the time; only its refusals are recorded."""


class Authorization:
    """Decides.

    Args:
        authentication: knows whether a principal is still good.
        audit: is told of what was decided.
    """

    def __init__(self, authentication: Authentication, audit: Audit) -> None:
        self._authentication = authentication
        self._audit = audit

    def require_current(self, principal: Principal) -> None:
        """Let a principal go on that was good when its request began, or refuse it.

        Raises:
            ProblemError: UNAUTHENTICATED where it has expired or was revoked since.
        """
        ended = self._authentication.why_ended(principal)
        if ended is not None:
            raise ProblemError(
                ProblemType.UNAUTHENTICATED,
                f"the API key or token was good when the request began, and has {_ENDED[ended]} since",
            )

    def require_publish(self, principal: Principal, message: Message, *, field: str = "topic") -> None:
        """Let a message be published, or refuse it.

        Args:
            principal: who publishes.
            message: what, to a valid topic name.
            field: where the topic came from, for the problem.

        Raises:
            ProblemError: NOT_GRANTED; RESERVED_TOPIC where the topic begins with ``$``.
        """
        topic, qos, retain = message.topic, message.qos, message.retain
        reason = principal.grants.why_not_publish(topic, qos, retain=retain)
        if reason is not None:
            self._audit.refused("publish", principal, topic, reason=reason, qos=qos, retain=retain)
            raise _refusal("publish to", topic, reason, field=field)
        if self._audit.samples_publish():
            rule = principal.grants.allows_publish(topic, qos, retain=retain)
            self._audit.allowed("publish", principal, topic, rule=rule, qos=qos, retain=retain)

    def require_subscribe(
        self, principal: Principal, topic_filter: str, qos: int, *, field: str, action: str = "subscribe"
    ) -> None:
        """Let a filter be followed or read, or refuse it.

        Args:
            principal: who asks.
            topic_filter: a valid topic filter.
            qos: the highest QoS asked for.
            field: where the filter came from, for the problem.
            action: what the audit log calls it: ``subscribe``, ``read`` or ``reply``.

        Raises:
            ProblemError: NOT_GRANTED.
        """
        reason = principal.grants.why_not_subscribe(topic_filter, qos)
        if reason is not None:
            self._audit.refused(action, principal, topic_filter, reason=reason, qos=qos)
            raise _refusal("subscribe to", topic_filter, reason, field=field)
        if self._authentication.is_required:
            rule = principal.grants.allows_subscribe(topic_filter, qos)
            self._audit.allowed(action, principal, topic_filter, rule=rule, qos=qos)

    def narrow(
        self, principal: Principal, publish: Sequence[str] | None, subscribe: Sequence[str] | None
    ) -> Grants | None:
        """Part of what a principal is granted; None for all of it.

        Args:
            principal: whose grants.
            publish: filters to publish to, valid and not shared; None for all that is granted.
            subscribe: filters to follow, valid; None for all that is granted.

        Raises:
            ProblemError: NOT_GRANTED, with a JSON pointer to the filter; RESERVED_TOPIC as above.
        """
        grants = principal.grants
        if publish is None and subscribe is None:
            return None
        return Grants(
            grants.publish
            if publish is None
            else self._all_within(principal, grants.publish_within, publish, "publish"),
            grants.subscribe
            if subscribe is None
            else self._all_within(principal, grants.subscribe_within, subscribe, "subscribe"),
        )

    def require_permission(self, principal: Principal, permission: Permission, call: str) -> None:
        """Let a call that needs a scope be made, or refuse it.

        Args:
            principal: who makes it.
            permission: the scope.
            call: the method and the path, for the audit log.

        Raises:
            ProblemError: FORBIDDEN.
        """
        if permission.value in principal.scopes:
            if self._authentication.is_required and permission not in _OFTEN:
                self._audit.allowed(permission.value, principal, call, rule=permission.value)
        else:
            self._audit.refused(permission.value, principal, call, reason="the scope is not granted")
            raise ProblemError(
                ProblemType.FORBIDDEN,
                f"the call needs the scope {permission.value}, which is not granted",
                hint=f"use an API key or a token with the scope {permission.value}",
            )

    def _all_within(
        self,
        principal: Principal,
        within: Callable[[str], tuple[Grant, ...]],
        filters: Sequence[str],
        member: str,
    ) -> list[Grant]:
        found: list[Grant] = []
        for index, each in enumerate(filters):
            part = within(each)
            if not part:
                reason = "no grant covers it"
                self._audit.refused("ticket", principal, each, reason=reason)
                raise _refusal(f"{member} to", each, reason, field=f"/{member}/{index}")
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
