"""The template of a path that no route saw: what the guard refused, what CORS answered, files of a folder.

A request that was routed has its template with it (``app.logs.context``). For others it is found here, the
slow way, so that a refusal counts for the call that was refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from app.logs.context import NO_ROUTE, ROUTE, route_of

_PARAMETER: Final = re.compile(r"\\\{(\w+)\\\}")


class RouteTemplates:
    """Finds templates.

    Args:
        raw_routes: the routes that read the raw path, asked first.
        documented: gives the templates of the OpenAPI document; asked for when the first is needed.
        routes: the framework's, of which those of its own leave nothing in the scope.
    """

    def __init__(
        self,
        raw_routes: Sequence[BaseRoute],
        documented: Callable[[], Iterable[str]],
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self._raw_routes = raw_routes
        self._documented = documented
        self._routes = routes
        self._known: list[tuple[re.Pattern[str], str]] | None = None

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
        for each in self._routes:
            if isinstance(each, Route | Mount) and each.path_regex.match(path):
                return each.path_format
        if self._known is None:
            self._known = [(_pattern(each), each) for each in self._documented()]
        return next((template for pattern, template in self._known if pattern.fullmatch(path)), NO_ROUTE)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub("[^/]+", re.escape(template)))
