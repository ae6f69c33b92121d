"""Which call asks for what: the one table of access rules, and the guard that stands in front of every route.

Rules:

1. Whatever is not in the table needs a principal. What needs none is named.
2. Topics and filters are checked where they are known: by ``Gate`` and by ``Subscriptions``, for whom the
   guard leaves the principal in the request's scope.
3. A ticket is good where it is named, and is out of the query before anybody else reads it.
4. A refusal is an answer before the body is read; a WebSocket is refused before it is accepted.
5. How often comes after who. A key or token that is not known yet is looked at only where its address has
   not failed too often; one that is known gets through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.input.ticket import take_ticket
from app.api.origin import STREAM, Origins
from app.api.output.exceptions import respond
from app.api.output.handshake import deny
from app.problems import ProblemError, ProblemType
from app.security.audit import Audit, peer
from app.security.authentication import Authentication
from app.security.authorization import Authorization
from app.security.principal import ANYBODY, Permission, Principal, anybody_at
from app.security.rates import Rates, counted_as
from app.security.tickets import Purpose

PRINCIPAL: Final = "tidegate.principal"
"""Where a request keeps who makes it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a call needs.

    Attributes:
        is_public: it needs no principal.
        permission: the scope that the principal must have; None where grants of topics decide.
    """

    is_public: bool = False
    permission: Permission | None = None


PUBLIC: Final = Rule(is_public=True)
"""Anybody may, also where authentication is configured."""

GRANTS: Final = Rule()
"""The principal's grants decide, topic by topic."""


class Access:
    """The table.

    Args:
        rules: path patterns with their rules, the first that matches decides; a method may be put in front.
    """

    def __init__(self, rules: tuple[tuple[str, Rule], ...]) -> None:
        # The router's patterns end in ``$``, which lets a line break follow the path: ``/v1/status%0A``.
        self._rules = tuple(
            (re.compile(rf"(?:{pattern})\n?", re.DOTALL).fullmatch, rule) for pattern, rule in rules
        )

    def rule(self, method: str, path: str) -> Rule:
        """The rule of a request.

        Args:
            method: the HTTP method; ``GET`` for a WebSocket.
            path: the path, decoded, without what a proxy put before it.
        """
        asked = f"{method} {path}"
        for matches, rule in self._rules:
            if matches(asked):
                return rule
        return GRANTS


ACCESS: Final = Access(
    (
        (r"\S+ /v1/(topics|publish|requests)(/.*)?", GRANTS),
        (r"\S+ /v1/(subscribe|ws|tickets|principal)", GRANTS),
        (r"\S+ /v1/status", Rule(permission=Permission.STATUS_READ)),
        (r"(GET|HEAD) /v1/credentials(/.*)?", Rule(permission=Permission.CREDENTIALS_READ)),
        (r"\S+ /v1/credentials(/.*)?", Rule(permission=Permission.CREDENTIALS_WRITE)),
        (r"\S+ /metrics", Rule(permission=Permission.METRICS_READ)),
        (r"\S+ /(livez|readyz)", PUBLIC),
        (r"\S+ /(docs|openapi\.json|asyncapi\.json|static-offline-docs)(/.*)?", PUBLIC),
        (r"\S+ /console(/.*)?", PUBLIC),
    )
)


TICKETED: Final = {STREAM: Purpose.SUBSCRIBE, "/v1/ws": Purpose.WEBSOCKET}
"""Where a GET may bring a ticket, and what it has to be for."""


def _ignore(_: ProblemError) -> None:
    return None


class Guard:
    """Finds out who makes a request, and whether its route is open to them (ASGI middleware).

    Args:
        app: what stands behind.
        authentication: finds the principal.
        authorization: decides about scopes.
        origins: decides about web pages and host names.
        rates: how often a principal may make requests, and an address fail.
        audit: is told of requests that are refused here.
        on_refusal: called with the problem of each refusal, to count it.
    """

    def __init__(
        self,
        app: ASGIApp,
        authentication: Authentication,
        authorization: Authorization,
        origins: Origins,
        rates: Rates,
        audit: Audit,
        on_refusal: Callable[[ProblemError], None] = _ignore,
    ) -> None:
        self._app = app
        self._audit = audit
        self._authentication = authentication
        self._authorization = authorization
        self._origins = origins
        self._rates = rates
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, with its principal; or answer it (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        method: str = scope.get("method", "GET")
        rule = ACCESS.rule(method, path)
        if not rule.is_public:
            try:
                peer.set(scope.get("client"))
                principal = await self._admit(scope, method, path)
                if self._rates.has_headers:
                    send = self._telling(principal, send)
                    if self._rates.requests is not None:
                        self._rates.requests.take(principal.bounded_as, principal)
                if rule.permission is not None:
                    self._authorization.require_permission(principal, rule.permission, f"{method} {path}")
            except ProblemError as problem:
                self._on_refusal(problem)
                if scope["type"] == "websocket":
                    await receive()
                    await deny(receive, send, problem)
                else:
                    await respond(problem)(scope, receive, send)
                return
            scope[PRINCIPAL] = principal
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, method: str, path: str) -> Principal:
        """Who makes the request, by a name of the bridge and from a page that may."""
        principal = None
        action = "authenticate"
        try:
            ticket = take_ticket(scope) if path in TICKETED and method == "GET" else None
            self._origins.require_host(scope)
            found = self._authentication.recall(scope) if ticket is None else None
            if found is None:
                with self._attempt(_address(scope)):
                    if ticket is None:
                        found = await self._authentication.authenticate(scope)
                    else:
                        found = await self._authentication.redeem(ticket, TICKETED[path])
            elif found is ANYBODY:
                found = anybody_at(_address(scope))
            principal = found
            action = "origin"
            self._origins.require_page(scope, principal, path)
        except ProblemError as problem:
            if problem.kind is not ProblemType.TOO_MANY_REQUESTS:  # which the rate has told
                self._audit.refused(action, principal, f"{method} {path}", reason=problem.detail)
            raise
        return principal

    @contextmanager
    def _attempt(self, address: str) -> Iterator[None]:
        """Count an attempt that fails; beforehand, so that many at once are no more than one by one.

        Raises:
            ProblemError: TOO_MANY_REQUESTS; or what the attempt raises.
        """
        attempts = self._rates.attempts
        if attempts is None:
            yield
            return
        attempts.take(address)
        has_failed = False
        try:
            yield
        except ProblemError as problem:
            has_failed = problem.kind is ProblemType.UNAUTHENTICATED
            raise
        finally:
            if not has_failed:
                attempts.give_back(address)

    def _telling(self, principal: Principal, send: Send) -> Send:
        """Have the answer tell what the caller is bounded by."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._rates.headers(principal.bounded_as)]
            await send(message)

        return tell


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return counted_as(client[0]) if client else ""


def principal_of(scope: Scope) -> Principal:
    """Who makes the request, as the guard found."""
    principal: Principal = scope[PRINCIPAL]
    return principal
