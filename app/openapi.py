"""The OpenAPI 3.1 document: the framework's own routes, and those that are read by hand, in one."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.input.stream_options import SubscribeRequest
from app.api.models import BatchAnswer, PublishAnswer, PublishRequest, RetainedMessage
from app.api.operations import paths
from app.api.operations.parts import REF
from app.problems import Problem

_MODELS: Final[tuple[type[BaseModel], ...]] = (
    BatchAnswer,
    Problem,
    PublishAnswer,
    PublishRequest,
    RetainedMessage,
    SubscribeRequest,
)


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document, made once and kept with the application."""
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
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        made["paths"] = {**paths(), **_without_validation_errors(made["paths"])}
        app.openapi_schema = made
    return app.openapi_schema


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
