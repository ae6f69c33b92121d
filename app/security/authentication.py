"""The one place that turns a request into a principal.

Rules:

1. Without a way to show who one is, everybody is ``ANYBODY``. With one, whoever shows nothing is refused.
2. Each way looks at the requests that are meant for it, and at no other: the first that says so decides.
3. A refusal tells the caller what is wrong with what it sent, and nothing of what would be right.
4. A request that brings a ticket is judged by the ticket alone.
5. What was found for a token is kept by the way that found it, and for no longer than it holds.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from enum import Enum
from typing import Any, Final, Protocol

from app.problems import ProblemError, ProblemType
from app.security.authorization_header import has_authorization
from app.security.principal import ANYBODY, Principal, anybody_at
from app.security.tickets import Purpose, Tickets

Scope = MutableMapping[str, Any]

AMBIENT: Final = "tidegate.ambient"
"""The key of the ASGI scope that is set where a browser adds what shows who one is, whatever page asks."""


class Ended(Enum):
    """Why a principal that was good is good no more."""

    EXPIRED = "expired"
    REVOKED = "revoked"


class Method(Protocol):
    """A way to show who one is."""

    challenge: str
    """What ``WWW-Authenticate`` says of it (RFC 9110 §11.6.1); empty where a header can't ask for it."""

    def recall(self, scope: Scope) -> Principal | None:
        """The principal of a request whose token was seen before and still holds; never waits."""

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The principal of a request, or None where it carries nothing for this way.

        Raises:
            ProblemError: UNAUTHENTICATED where what it carries is not good; the detail says why.
        """

    def why_ended(self, principal: Principal) -> Ended | None:
        """Whether a principal that this way found is good no more; None for those of others. Never waits."""

    async def close(self) -> None:
        """Release what is held."""


class Part(Protocol):
    """What ways lean on and what runs beside them, such as a file that is watched."""

    @property
    def fault(self) -> str | None:
        """What is wrong with it now, in words; None where nothing is."""

    def start(self) -> None:
        """Begin; in a running event loop."""

    async def close(self) -> None:
        """End, and release what is held."""


class Authentication:
    """All ways together.

    Args:
        methods: the ways, in the order in which they are asked.
        parts: what they lean on.
        tickets: the tickets that principals were given.
    """

    def __init__(
        self, methods: Sequence[Method] = (), parts: Sequence[Part] = (), *, tickets: Tickets | None = None
    ) -> None:
        self._methods = tuple(methods)
        self._parts = tuple(parts)
        self._tickets = tickets
        challenges = dict.fromkeys(each.challenge for each in self._methods if each.challenge)
        self._challenge = ", ".join(challenges)

    @property
    def is_required(self) -> bool:
        """Whether a request has to show who makes it."""
        return bool(self._methods)

    @property
    def faults(self) -> list[str]:
        """What is wrong with what the ways lean on: what they knew before holds meanwhile."""
        return [part.fault for part in self._parts if part.fault is not None]

    def with_tickets(self, tickets: Tickets) -> Authentication:
        """The same ways, and tickets."""
        return Authentication(self._methods, self._parts, tickets=tickets)

    def start(self) -> None:
        """Begin to watch what the ways lean on; in a running event loop."""
        for part in self._parts:
            part.start()

    def recall(self, scope: Scope) -> Principal | None:
        """The principal of a request that needs no more than a look; never waits."""
        if not self._methods:
            return ANYBODY
        for method in self._methods:
            principal = method.recall(scope)
            if principal is not None:
                return principal
        return None

    async def authenticate(self, scope: Scope) -> Principal:
        """The principal of a request.

        Args:
            scope: the request's (ASGI).

        Raises:
            ProblemError: UNAUTHENTICATED where there is none.
        """
        if not self._methods:
            return ANYBODY
        try:
            for method in self._methods:
                principal = await method.authenticate(scope)
                if principal is not None:
                    return principal
        except ProblemError as problem:
            if problem.kind is ProblemType.UNAUTHENTICATED and self._challenge:
                problem.headers.setdefault("WWW-Authenticate", self._challenge)
            raise
        headers = {"WWW-Authenticate": self._challenge} if self._challenge else {}
        raise ProblemError(
            ProblemType.UNAUTHENTICATED,
            "what the Authorization header carries is nothing that the bridge takes"
            if has_authorization(scope)
            else "the request does not show who makes it",
            field="Authorization",
            hint="send Authorization: Bearer with an API key or a token",
            headers=headers,
        )

    async def redeem(self, ticket: str, purpose: Purpose) -> Principal:
        """The principal that a ticket makes; the ticket is used up, whatever comes of it.

        Args:
            ticket: the ticket.
            purpose: what it is used for.

        Raises:
            ProblemError: UNAUTHENTICATED where it is not good, or not for this; TICKETS_UNAVAILABLE.
        """
        found = None if self._tickets is None else await self._tickets.redeem(ticket)
        if found is None:
            refusal = "the ticket is unknown: it was used before, or its time is over"
        elif found.purpose is not purpose:
            refusal = f"the ticket is for {found.purpose.words}, and this is {purpose.words}"
        else:
            try:
                asked_by = self.recall(found.scope) or await self.authenticate(found.scope)
            except ProblemError as problem:
                if problem.kind is not ProblemType.UNAUTHENTICATED:
                    raise
                refusal = f"what the ticket was asked for with is good no more: {problem.detail}"
            else:
                client = found.scope["client"]
                if asked_by is ANYBODY and client is not None:
                    asked_by = anybody_at(client[0])
                principal = found.principal(asked_by)
                if principal is not None:
                    return principal
                refusal = "what the ticket was asked for is granted no more"
        raise ProblemError(
            ProblemType.UNAUTHENTICATED,
            refusal,
            field="ticket",
            hint="a ticket is good once; ask for one by POST /v1/tickets each time you connect",
            headers={"WWW-Authenticate": self._challenge or "Bearer"},
        )

    def why_ended(self, principal: Principal) -> Ended | None:
        """Why a principal that was good is good no more; None where it still is. Never waits.

        The principal of a ticket is good for as long as the one that asked for it.
        """
        principal = principal.asked_by or principal
        if principal.has_expired():
            return Ended.EXPIRED
        for method in self._methods:
            ended = method.why_ended(principal)
            if ended is not None:
                return ended
        return None

    async def close(self) -> None:
        """Release what the ways hold."""
        for method in self._methods:
            await method.close()
        for part in self._parts:
            await part.close()
        if self._tickets is not None:
            await self._tickets.close()
