"""The OpenAPI 3.1 document: the framework's own routes, and those that are read by hand, in one.

What a call asks of its caller is written from the table of access rules, so that it can't be forgotten.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.access import ACCESS, TICKETED
from app.api.credential_models import TestAnswer
from app.api.input.stream_options import SubscribeRequest
from app.api.models import BatchAnswer, PublishAnswer, PublishRequest, RetainedMessage
from app.api.operations import paths
from app.api.operations.parts import REF
from app.api.principal import PrincipalAnswer
from app.api.status import Status
from app.api.tickets import TicketAnswer, TicketRequest
from app.problems import CONTENT_TYPE, Problem, ProblemType, documented

_MODELS: Final[tuple[type[BaseModel], ...]] = (
    BatchAnswer,
    Problem,
    PublishAnswer,
    PublishRequest,
    RetainedMessage,
    SubscribeRequest,
    TicketAnswer,
    TicketRequest,
)


_TAGS: Final = {
    "publish": "Messages to the broker.",
    "retained": "What the broker keeps for a topic.",
    "request": "A message, and the reply of whoever it is for.",
    "subscribe": "Topics as a stream. Each event and each frame is described by AsyncAPI: `/asyncapi.json`.",
    "security": "Who the caller is, and tickets for browsers.",
    "credentials": "TLS credentials for the broker.",
    "status": "Where the bridge stands.",
    "health": "For probes.",
}


def document(app: FastAPI, *, cookie: str = "") -> dict[str, Any]:
    """The whole document, made once and kept with the application.

    Args:
        app: the application.
        cookie: the name of the cookie that may hold a token; empty where none may.
    """
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        _, models = models_json_schema(
            [(model, "validation") for model in _MODELS], ref_template=REF + "{model}"
        )
        schemas.update(models["$defs"])
        for shown in (PrincipalAnswer, Status, TestAnswer):  # the framework takes their nulls out
            schemas[shown.__name__]["examples"] = shown.model_json_schema()["examples"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        made["paths"] = {**paths(), **_without_validation_errors(made["paths"])}
        made["components"]["securitySchemes"] = _security_schemes(cookie)
        made["info"]["license"] = {"name": "MIT", "url": "https://spdx.org/licenses/MIT.html"}
        made["tags"] = [{"name": name, "description": about} for name, about in _TAGS.items()]
        for path, item in made["paths"].items():
            for method, operation in item.items():
                _add_access(operation, method, path)
                _add_examples(operation, schemas)
        app.openapi_schema = made
    return app.openapi_schema


def _security_schemes(cookie: str) -> dict[str, Any]:
    """The ways to show who one is; the cookie has the name that it is configured with."""
    named = {"type": "apiKey", "in": "cookie", "name": cookie or COOKIE_SETTING, "description": _COOKIE}
    return {**_SECURITY_SCHEMES, "cookie": named}


COOKIE_SETTING: Final = "TIDEGATE_JWT_COOKIE"
"""Stands for the name of the cookie where none is configured."""

_COOKIE: Final = (
    f"A JWT in the cookie that `{COOKIE_SETTING}` names, where it is set: for pages of an application that "
    "sets it. Calls that change something have to come from a page that may make them."
)
_SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key or a JWT, where the bridge is configured to ask for one.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "A ticket of `POST /v1/tickets`, good once: for browsers, whose EventSource and "
        "WebSocket can set no header.",
    },
}


_RATE_HEADERS: Final = {
    "RateLimit-Policy": {
        "description": "What the caller is bounded by, where that is configured: `q` in `w` seconds.",
        "schema": {"type": "string"},
        "example": '"publishes";q=100;w=1',
    },
    "RateLimit": {
        "description": "What is left of it: `r`, and more in `t` seconds.",
        "schema": {"type": "string"},
        "example": '"publishes";r=99;t=1',
    },
}
"""draft-ietf-httpapi-ratelimit-headers."""


def _add_access(operation: dict[str, Any], method: str, path: str) -> None:
    """Write down what the access rules ask of a call's caller."""
    rule = ACCESS.rule(method.upper(), path)
    if rule.is_public:
        operation["security"] = []
        return
    operation["security"] = [{"bearer": []}, {"cookie": []}]
    answers = operation["responses"]
    _add_problem(answers, ProblemType.UNAUTHENTICATED)
    _add_problem(answers, ProblemType.UNKNOWN_HOST)
    if method != "get" or path in TICKETED:  # a web page of another origin
        _add_problem(answers, ProblemType.FORBIDDEN)
    if path in TICKETED and method == "get":
        operation["security"].append({"ticket": []})
    _add_problem(answers, ProblemType.AUTHENTICATION_UNAVAILABLE)
    _add_problem(answers, ProblemType.TOO_MANY_REQUESTS)
    for status, answer in answers.items():
        if str(status).startswith("2"):
            answer["headers"] = {**answer.get("headers", {}), **_RATE_HEADERS}
    if rule.permission is not None:
        _add_problem(answers, ProblemType.FORBIDDEN)
        needed = f"Needs the scope `{rule.permission.value}` where authentication is configured."
        operation["description"] = "\n\n".join(filter(None, (operation.get("description"), needed)))


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Show a request and its answers by the first example of the model, where the operation has none."""
    places = [operation.get("requestBody", {}), *operation["responses"].values()]
    for content in (each.get("content", {}) for each in places):
        for shown in content.values():
            name = shown.get("schema", {}).get("$ref", "").removeprefix(REF)
            if name and not shown.keys() & {"example", "examples"}:
                shown["example"] = schemas[name]["examples"][0]


def _add_problem(answers: dict[str, Any], kind: ProblemType) -> None:
    """Add a problem to the answers of a call, beside others of its status."""
    (made,) = documented(kind).values()
    answer = answers.setdefault(str(kind.status), made)
    examples = answer["content"][CONTENT_TYPE]["examples"]
    if kind.slug not in examples:
        examples.update(made["content"][CONTENT_TYPE]["examples"])
        answer["description"] += "\n\n" + made["description"]


def _without_validation_errors(documented: dict[str, Any]) -> dict[str, Any]:
    """The framework's own 422 never leaves: faults outside a body are 400 here."""
    for operations in documented.values():
        for operation in operations.values():
            answers = operation["responses"]
            content = answers.get("422", {}).get("content", {})
            if (
                content.get("application/json", {}).get("schema", {}).get("$ref")
                == REF + "HTTPValidationError"
            ):
                del answers["422"]
    return documented
