"""Routes that read a request from ASGI itself, without the framework's dependencies.

They stand in front of the framework's router and of the layers that only its own routes need, as the
innermost middleware of the application. That is less to run for each publish, and less to keep for each
stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.input.path import after_prefix
from app.api.output.exceptions import respond
from app.logs.context import ROUTE
from app.problems import ProblemError, ProblemType, problem_of
from tidegate.errors import MQTTError

REST: Final = "tidegate.rest"
"""Where a request keeps what follows the route's path, still percent-encoded."""


class RawRoutes:
    """Hands a request to the first of these routes that matches, and others on (ASGI middleware).

    Args:
        app: the rest of the application.
        routes: the routes.
        problems: where the problems that were answered are counted.
    """

    def __init__(
        self, app: ASGIApp, routes: Sequence[BaseRoute], problems: Counter[ProblemType] | None = None
    ) -> None:
        self._app = app
        self._routes = routes
        self._problems = Counter[ProblemType]() if problems is None else problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with problem details where the route refuses (ASGI)."""
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                try:
                    await route.handle(scope, receive, send)
                except (ProblemError, MQTTError) as error:
                    problem = error if isinstance(error, ProblemError) else problem_of(error)
                    self._problems[problem.kind] += 1
                    await respond(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class RawRoute(BaseRoute, ABC):
    """A route at a fixed path; a subclass answers.

    Attributes:
        path: the path, without a trailing slash.
        path_format: the path as the document and traces show it.
        methods: what it takes, in the order of the Allow header.
        takes_rest: whether more may follow the path, after a slash.
    """

    path: ClassVar[str]
    path_format: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    takes_rest: ClassVar[bool] = False

    def __init__(self) -> None:
        self._raw_path = self.path.encode("ascii")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the raw path is this route's, whatever the method."""
        if scope["type"] != "http":
            return Match.NONE, {}
        rest = after_prefix(scope, self._raw_path)
        if rest is None or (rest and not self.takes_rest):
            return Match.NONE, {}
        return Match.FULL, {REST: rest, ROUTE: self.path_format}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """No path is made from a name here."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI).

        Raises:
            ProblemError: METHOD_NOT_ALLOWED, or what the answer raises.
        """
        method = scope["method"]
        if method not in self.methods:
            raise ProblemError(
                ProblemType.METHOD_NOT_ALLOWED,
                f"{self.path} takes no {method}, only {', '.join(self.methods)}",
                headers={"Allow": ", ".join(self.methods)},
            )
        try:
            await self.answer(scope, receive, send)
        except ClientDisconnect:
            return

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with one of the methods."""
