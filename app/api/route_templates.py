"""The template of a path that no route saw: what the guard refused, what CORS answered, files of a folder.

A request that was routed has its template with it (``app.logs.context``). For others it is found here, the
slow way, so that a refusal counts for the call that was refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.logs.context import NO_ROUTE, ROUTE, route_of


class RouteTemplates:
    """Finds templates.

    Args:
        raw_routes: the routes that read the raw path; they are asked first, as for an answer.
        routes: the framework's, which are looked at when the first template is needed.
    """

    def __init__(self, raw_routes: Sequence[BaseRoute], routes: Sequence[BaseRoute]) -> None:
        self._raw_routes = raw_routes
        self._routes = routes
        self._known: list[tuple[re.Pattern[str], str]] = []

    def find(self, scope: Scope) -> str:
        """The template of a request's path, or ``none`` where nothing is there."""
        found = route_of(scope)
        if found != NO_ROUTE:
            return found
        for route in self._raw_routes:
            match, matched = route.matches(scope)
            if match is Match.FULL:
                return str(matched[ROUTE])
        path: str = scope["path"]
        root: str = scope.get("app_root_path", scope.get("root_path", ""))
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        if not self._known:
            contexts = iter_route_contexts(self._routes)
            self._known = [(each.path_regex, each.path_format) for each in contexts if each.path_format]
        return next((template for pattern, template in self._known if pattern.match(path)), NO_ROUTE)
