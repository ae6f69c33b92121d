"""What the operations of several calls have in common."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from app.api.input.query import TopicQuery
from app.problems import ProblemType, documented

REF: Final = "#/components/schemas/"
EXAMPLE_TOPIC: Final = "sensors/7/temperature"

QUERY_PROBLEMS: Final = (
    ProblemType.UNKNOWN_PARAMETER,
    ProblemType.REPEATED_PARAMETER,
    ProblemType.INVALID_PARAMETER,
)
BROKER_PROBLEMS: Final = (
    ProblemType.INVALID_TOPIC,
    ProblemType.UNSUPPORTED,
    ProblemType.NOT_GRANTED,
    ProblemType.NOT_AUTHORIZED,
    ProblemType.QUOTA_EXCEEDED,
    ProblemType.INTERNAL_ERROR,
    ProblemType.REFUSED_BY_BROKER,
    ProblemType.BROKER_UNAVAILABLE,
)


def example_of(model: type[BaseModel]) -> Any:
    """The first example that a model gives."""
    return model.model_json_schema()["examples"][0]


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The parameters that a query model reads; the topic that the path may have instead is not among them."""
    schema = model.model_json_schema()
    parameters = []
    for name, found in schema["properties"].items():
        if issubclass(model, TopicQuery) and name == "topic":
            continue
        described = dict(found)
        for variant in described.pop("anyOf", ()):
            if variant.get("type") != "null":
                described.update(variant)
        if described.get("default", ...) is None:
            del described["default"]
        described.pop("title", None)
        parameter = {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": described.pop("description"),
        }
        examples = described.pop("examples", None)
        if examples:
            parameter["example"] = examples[0]
        parameters.append({**parameter, "schema": described})
    return parameters


def problems(kinds: tuple[ProblemType, ...]) -> dict[str, Any]:
    """The error answers of a call, by status."""
    return {str(status): each for status, each in documented(*dict.fromkeys(kinds)).items()}
