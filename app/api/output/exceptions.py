"""What becomes of an exception: every error leaves as problem details, whoever raised it."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.logs.context import route_of
from app.problems import CONTENT_TYPE, ProblemError, ProblemType, json_pointer, problem_of
from tidegate.errors import MQTTError

logger = logging.getLogger("tidegate.http")

_BY_STATUS: Final = {
    400: ProblemType.BAD_REQUEST,
    401: ProblemType.UNAUTHENTICATED,
    403: ProblemType.FORBIDDEN,
    404: ProblemType.NOT_FOUND,
    405: ProblemType.METHOD_NOT_ALLOWED,
    406: ProblemType.NOT_ACCEPTABLE,
    409: ProblemType.CONFLICT,
    413: ProblemType.BODY_TOO_LARGE,
    415: ProblemType.UNSUPPORTED_MEDIA_TYPE,
    422: ProblemType.INVALID_BODY,
    429: ProblemType.TOO_MANY_REQUESTS,
}
_NEAR: Final = 0.6


def install(
    app: FastAPI, known_paths: Callable[[], Iterable[str]], problems: Counter[ProblemType] | None = None
) -> None:
    """Put the handlers into an application.

    Args:
        app: the application.
        known_paths: its path templates, asked for when a path is unknown.
        problems: where the problems that were answered are counted.
    """

    def answer(problem: ProblemError) -> Response:
        if problems is not None:
            problems[problem.kind] += 1
        return respond(problem)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
            return answer(_unknown_path(request.url.path, known_paths()))
        if error.status_code == 405:
            return answer(_method_not_allowed(request, error.headers))
        kind = _BY_STATUS.get(error.status_code, ProblemType.INTERNAL_ERROR)
        return answer(ProblemError(kind, error.detail, headers=error.headers))

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return answer(error)

    async def on_mqtt_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, MQTTError)
        return answer(problem_of(error))

    async def on_invalid_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(_invalid_request(error))

    async def on_fault(request: Request, error: Exception) -> Response:
        # The server logs the stack trace, and closes the connection; what it does not know is the request.
        logger.error("%s %s failed: %r", request.method, request.url.path, error)
        return answer(
            ProblemError(
                ProblemType.INTERNAL_ERROR,
                "the bridge failed on this request; its log tells why",
                headers={"Connection": "close"},
            )
        )

    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(MQTTError, on_mqtt_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(Exception, on_fault)


def respond(problem: ProblemError) -> Response:
    """A problem as an answer."""
    return Response(
        problem.body(),
        status_code=problem.kind.status,
        headers={"Cache-Control": "no-store", **problem.headers},
        media_type=CONTENT_TYPE,
    )


def _unknown_path(path: str, known: Iterable[str]) -> ProblemError:
    """Compare the fixed part of each known path with as many segments of the path asked for."""
    best, likeness = None, _NEAR
    for template in known:
        fixed = template.partition("/{")[0]
        head = "/".join(path.rstrip("/").split("/")[: fixed.count("/") + 1])
        ratio = difflib.SequenceMatcher(None, head, fixed).ratio()
        if ratio > likeness:
            best, likeness = template, ratio
    hint = f"did you mean {best}?" if best is not None else "GET /docs shows what there is"
    return ProblemError(ProblemType.NOT_FOUND, f"there is nothing at {path}", hint=hint)


def _method_not_allowed(request: Request, headers: Mapping[str, str] | None) -> ProblemError:
    """Name all methods of the path (RFC 9110 §15.5.6); the framework names those of its first route alone."""
    template = route_of(request.scope)
    of_path = (each for each in iter_route_contexts(request.app.routes) if each.path_format == template)
    allowed = ", ".join(sorted({method for each in of_path for method in each.methods or ()}))
    if not allowed:  # no route with a template: a plain one of the framework, or a folder of files
        allowed = (headers or {}).get("Allow", "GET, HEAD")
    return ProblemError(
        ProblemType.METHOD_NOT_ALLOWED,
        f"{request.url.path} takes no {request.method}, only {allowed}",
        headers={"Allow": allowed},
    )


def _invalid_request(error: RequestValidationError) -> ProblemError:
    """Faults in the body are 422, faults in path, query and headers 400."""
    first = error.errors()[0]
    place, *rest = first["loc"]
    reason = str(first["msg"]).removeprefix("Value error, ")
    if place == "body":
        if first["type"] == "json_invalid":
            return ProblemError(ProblemType.MALFORMED_BODY, f"the body is not JSON: {first['ctx']['error']}")
        pointer = json_pointer(rest)
        return ProblemError(ProblemType.INVALID_BODY, f"{pointer or 'the body'}: {reason}", field=pointer)
    kind = ProblemType.INVALID_HEADER if place == "header" else ProblemType.INVALID_PARAMETER
    name = ".".join(str(part) for part in rest)
    return ProblemError(kind, f"{name}: {reason}", field=name)
