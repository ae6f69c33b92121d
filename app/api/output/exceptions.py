"""What becomes of an exception: every error leaves as problem details, whoever raised it."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

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


def install(app: FastAPI, known_paths: Callable[[], Iterable[str]]) -> None:
    """Put the handlers into an application.

    Args:
        app: the application.
        known_paths: its path templates, asked for when a path is unknown.
    """

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
            return respond(_unknown_path(request.url.path, known_paths()))
        kind = _BY_STATUS.get(error.status_code, ProblemType.INTERNAL_ERROR)
        detail = error.detail
        if error.status_code == 405:
            detail = f"{request.url.path} takes no {request.method}"
        return respond(ProblemError(kind, detail, headers=error.headers))

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return respond(error)

    async def on_mqtt_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, MQTTError)
        return respond(problem_of(error))

    async def on_invalid_request(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(_invalid_request(error))

    async def on_fault(request: Request, error: Exception) -> Response:
        # The server logs the stack trace, and closes the connection; what it does not know is the request.
        logger.error("%s %s failed: %r", request.method, request.url.path, error)
        return respond(
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
