"""Query strings, read strictly: every name known, once, and with a value that it may have.

The same pydantic models stand in the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeVar, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.api.input.percent import percent_decode
from app.problems import ProblemError, ProblemType, did_you_mean
from tidegate.errors import TopicError
from tidegate.strings import why_not_a_string
from tidegate.topics import validate_topic

Query = TypeVar("Query", bound=BaseModel)

MAX_SECONDS: Final = 4_294_967_295
"""The longest message expiry that MQTT can carry (MQTT 5 §3.3.2.3.3)."""

TOPIC_PATTERN: Final = r"^(?!\$)[^+#\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]+$"
"""A topic to publish to, as far as an expression tells (ECMA-262)."""


def _qos(text: Any) -> int:
    if text not in ("0", "1", "2"):
        raise ValueError("it is 0, 1 or 2")
    return int(text)


def _flag(text: Any) -> bool:
    if text not in ("true", "false"):
        raise ValueError("it is true or false")
    return bool(text == "true")


def _seconds(text: Any) -> int:
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError(f"it is a number of seconds, from 0 to {MAX_SECONDS}")
    if int(text) > MAX_SECONDS:
        raise ValueError(f"it is at most {MAX_SECONDS} seconds")
    return int(text)


def _payload_format(text: Any) -> int:
    if text not in ("0", "1"):
        raise ValueError("it is 0 or 1")
    return int(text)


def _topic_name(text: str) -> str:
    validate_topic(text)
    reason = why_not_a_string(text)
    if reason is not None:
        raise ValueError(reason)
    return text


QoS = Annotated[Literal[0, 1, 2], BeforeValidator(_qos)]
Flag = Annotated[bool, BeforeValidator(_flag)]
PayloadFormat = Annotated[Literal[0, 1], BeforeValidator(_payload_format)]
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS), BeforeValidator(_seconds)]
TopicName = Annotated[
    str,
    AfterValidator(_topic_name),
    Field(json_schema_extra={"minLength": 1, "pattern": TOPIC_PATTERN}),
]

_QUERY_MODEL: Final = ConfigDict(extra="forbid", frozen=True, validate_default=False)


class NoQuery(BaseModel):
    """A call without query parameters."""

    model_config = _QUERY_MODEL


class TopicQuery(BaseModel):
    """The topic, for a client whose proxy rewrites paths."""

    model_config = _QUERY_MODEL

    topic: str | None = Field(
        None,
        description="The topic, where the path has none. Proxies merge slashes in a path, and leave a query "
        "alone; here `+` is a space: write `%2B` and `%23` for wildcards.",
        examples=["/leading/slash"],
    )


class ClearQuery(TopicQuery):
    """What may be said about clearing a retained message."""

    qos: QoS = Field(
        1, description="Quality of service of the message that clears (MQTT 5 §4.3).", examples=[1]
    )


class RetainedQuery(ClearQuery):
    """What may be said about a message to keep."""

    expiry: Seconds | None = Field(
        None,
        description="Seconds after which the broker forgets the message (MQTT 5 §3.3.2.3.3).",
        examples=[3600],
    )
    response_topic: TopicName | None = Field(
        None, description="Where an answer is expected (MQTT 5 §3.3.2.3.5).", examples=["replies/7"]
    )
    payload_format: PayloadFormat | None = Field(
        None,
        description="1 says that the payload is UTF-8 text, 0 that it is any bytes (MQTT 5 §3.3.2.3.2).",
        examples=[1],
    )


class PublishQuery(RetainedQuery):
    """What may be said about a message."""

    retain: Flag = Field(False, description="Keep the message as the topic's value (MQTT 5 §3.3.1.3).")


class BatchQuery(BaseModel):
    """What may be said about a batch."""

    model_config = _QUERY_MODEL

    results: Literal["all", "failed"] = Field(
        "all", description="What the answer lists: every message, or the failed ones.", examples=["failed"]
    )


def parse_query(raw: bytes, model: type[Query]) -> Query:
    """Read a query string; a field that is a tuple takes the values of a parameter that may repeat.

    Raises:
        ProblemError: a name is unknown (UNKNOWN_PARAMETER), or is there twice and has one value
            (REPEATED_PARAMETER); or a value is missing or not one that it can have (INVALID_PARAMETER).
    """
    known = model.model_fields
    values: dict[str, str | list[str]] = {}
    for name, value in split_query(raw):
        if name not in known:
            raise unknown_parameter(name, known)
        if get_origin(known[name].annotation) is tuple:
            several = values.setdefault(name, [])
            assert isinstance(several, list)
            several.append(value)
        elif name in values:
            raise repeated_parameter(name)
        else:
            values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid_parameter(error) from None


def unknown_parameter(name: str, known: Iterable[str]) -> ProblemError:
    """The refusal of a parameter that the call does not have."""
    return ProblemError(
        ProblemType.UNKNOWN_PARAMETER,
        f"there is no query parameter {name!r}",
        field=name,
        hint=did_you_mean(name, known),
    )


def repeated_parameter(name: str) -> ProblemError:
    """The refusal of a parameter that has one value and is there several times."""
    return ProblemError(
        ProblemType.REPEATED_PARAMETER, f"the query parameter {name!r} is there several times", field=name
    )


def _invalid_parameter(error: ValidationError) -> ProblemError:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, TopicError):
        kind = ProblemType.INVALID_PARAMETER if name == "response_topic" else ProblemType.INVALID_TOPIC
        return ProblemError(kind, str(cause), field=name)
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return ProblemError(ProblemType.INVALID_PARAMETER, f"{name} is missing", field=name)
    return ProblemError(
        ProblemType.INVALID_PARAMETER, f"{name}={first['input']!r} is not allowed: {reason}", field=name
    )


def split_query(raw: bytes) -> list[tuple[str, str]]:
    """The names and values of a query string, decoded; ``+`` is a space, as browsers write it.

    Raises:
        ProblemError: INVALID_PARAMETER where an escape is broken, something is not UTF-8, or a ``+`` stands
            where only a wildcard would.
    """
    pairs: list[tuple[str, str]] = []
    for part in raw.split(b"&"):
        if not part:
            continue
        raw_name, _, raw_value = part.partition(b"=")
        name = _decode(raw_name, "name of a query parameter")
        if name == "topic" and b"+" in raw_value.replace(b"%2F", b"/").replace(b"%2f", b"/").split(b"/"):
            raise ProblemError(
                ProblemType.INVALID_PARAMETER,
                "a '+' in a query is a space, and a level of the topic is one alone",
                field=name,
                hint="write %2B for the wildcard '+', or %20 for a space",
            )
        pairs.append((name, _decode(raw_value, name)))
    return pairs


def _decode(raw: bytes, field: str) -> str:
    return percent_decode(raw.replace(b"+", b" "), field=field, kind=ProblemType.INVALID_PARAMETER)
