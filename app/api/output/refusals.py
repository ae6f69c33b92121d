"""Refusals that several calls share, and those made of what pydantic found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from app.problems import ProblemError, ProblemType, did_you_mean, json_pointer

MAX_DEPTH: Final = 200
"""How deep JSON may be nested: as pydantic has it. msgspec goes as deep as the stack of the moment allows."""


def empty_retained() -> ProblemError:
    """The refusal of a retained message without a payload."""
    return ProblemError(
        ProblemType.EMPTY_RETAINED,
        "a retained message without a payload would clear the topic's value",
        hint="send DELETE /v1/topics/{topic} to clear it, or a body to set it",
    )


def without_properties(
    field: str, *, hint: str = "leave it out, or connect the bridge to a broker with MQTT 5"
) -> ProblemError:
    """The refusal of a property on a connection that has none."""
    return ProblemError(
        ProblemType.UNSUPPORTED,
        f"{field} needs MQTT 5, and the connection to the broker speaks MQTT 3.1.1; nothing was sent",
        field=field,
        hint=hint,
    )


def malformed_body(reason: str, *, what: str = "the body") -> ProblemError:
    """The refusal of something that is not JSON, or nested too deep to be read."""
    hint = None
    if any(word in reason for word in ("recursion", "depth", "too deep")):
        hint = f"JSON is read to {MAX_DEPTH} levels; POST /v1/topics/{{topic}} takes any payload as it is"
    return ProblemError(ProblemType.MALFORMED_BODY, f"{what} is not JSON: {reason}", hint=hint)


def invalid_body(error: ValidationError, model: type[BaseModel]) -> ProblemError:
    """The refusal of a body that is JSON, but not the model's; of one that is not JSON, MALFORMED_BODY."""
    found = error.errors(include_url=False, include_input=False)
    # A member that is not known may be a typo of one that is missing.
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    if first["type"] == "json_invalid":
        return malformed_body(first["ctx"]["error"])
    pointer = json_pointer(first["loc"])
    hint = None
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return ProblemError(
            ProblemType.INVALID_BODY,
            f"there is no member {first['loc'][-1]!r}",
            field=pointer,
            hint=did_you_mean(str(first["loc"][-1]), known),
        )
    if len(found) > 1:
        hint = f"{len(found) - 1} more: {', '.join(json_pointer(each['loc']) for each in found[1:6])}"
    reason = first["msg"].removeprefix("Value error, ")
    return ProblemError(
        ProblemType.INVALID_BODY, f"{pointer or 'the body'}: {reason}", field=pointer, hint=hint
    )


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    fields = model.model_fields
    for part in location:
        annotation: Any = fields[str(part)].annotation
        inner = next(each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields"))
        fields = inner.model_fields
    return [each.alias or name for name, each in fields.items()]
