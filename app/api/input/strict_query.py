"""For the framework's own routes: a query parameter that the OpenAPI document does not name is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from fastapi import Request

from app.api.input.query import repeated_parameter, unknown_parameter


class StrictQuery:
    """A dependency of every route.

    Args:
        document: gives the OpenAPI document; asked once a call is made, when all routes are there.
    """

    def __init__(self, document: Callable[[], dict[str, Any]]) -> None:
        self._document = document
        self._known: dict[tuple[str, str], dict[str, bool] | None] = {}

    async def __call__(self, request: Request) -> None:
        """Check one request.

        Raises:
            ProblemError: UNKNOWN_PARAMETER, or REPEATED_PARAMETER where a parameter has one value.
        """
        if not request.scope["query_string"]:
            return
        known = self._parameters(request.scope["route"].path_format, request.method.lower())
        if known is None:
            return
        for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
            if name not in known:
                raise unknown_parameter(name, known)
            if count > 1 and not known[name]:
                raise repeated_parameter(name)

    def _parameters(self, path: str, method: str) -> dict[str, bool] | None:
        """The names that a call knows and whether each may repeat; None for a call without a document."""
        key = (path, method)
        if key not in self._known:
            operation = self._document().get("paths", {}).get(path, {}).get(method)
            self._known[key] = (
                None
                if operation is None
                else {
                    each["name"]: _is_list(each["schema"])
                    for each in operation.get("parameters", ())
                    if each["in"] == "query"
                }
            )
        return self._known[key]


def _is_list(schema: dict[str, Any]) -> bool:
    return any(each.get("type") == "array" for each in (schema, *schema.get("anyOf", ())))
