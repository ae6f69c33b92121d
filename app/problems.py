"""Problem details for every error answer (RFC 9457): one table of types, one way to write them.

Rules:

1. ``ProblemType`` is the one table of types. Its names are promises: clients compare ``type``.
2. Any layer may raise ``ProblemError``; only the HTTP side turns it into an answer.
3. An ``MQTTError`` becomes a problem through ``problem_of`` and nowhere else.
4. A problem tells the caller what to change (``field``, ``hint``) and never shows a stack trace.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from app.problem_types import ProblemType
from tidegate.errors import (
    MQTTError,
    MQTTTimeoutError,
    NotConnectedError,
    OutcomeUnknownError,
    PayloadError,
    QueueFullError,
    RefusedError,
    TopicError,
    UnsupportedError,
)
from tidegate.reason_codes import describe

__all__ = [
    "CONTENT_TYPE",
    "Problem",
    "ProblemError",
    "ProblemType",
    "did_you_mean",
    "documented",
    "json_pointer",
    "problem_of",
]

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2


class Problem(BaseModel):
    """What went wrong, for programs (`type`) and for people (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:tidegate:problem:unknown-parameter",
                    "title": "Unknown parameter",
                    "status": 400,
                    "detail": "there is no query parameter 'qso'",
                    "field": "qso",
                    "hint": "did you mean 'qos'?",
                }
            ]
        }
    )

    type: str = Field(description="What to compare: stable from version to version.")
    title: str = Field(description="The type in words.")
    status: int = Field(description="The HTTP status again.")
    detail: str = Field(description="What is wrong with this request.")
    field: str | None = Field(None, description="The parameter, the header, or a JSON pointer into the body.")
    hint: str | None = Field(None, description="What to do about it.")
    reason_code: int | None = Field(None, description="The broker's MQTT 5 reason code (MQTT 5 §2.4).")
    reason: str | None = Field(None, description="That reason code's name.")


class ProblemError(Exception):
    """An answer with problem details.

    Args:
        kind: the type of the problem.
        detail: what is wrong with this request, for people.
        field: the parameter, header or JSON pointer that is at fault.
        hint: what to do about it.
        reason_code: the broker's reason code, where it gave one.
        headers: further headers of the answer.

    Attributes:
        nothing_sent: set where the broker gave a reason code, and yet nothing was published.
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        reason_code: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.hint = hint
        self.reason_code = reason_code
        self.headers = dict(headers or {})
        self.nothing_sent = False
        if kind.status == 503:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))

    def members(self) -> dict[str, Any]:
        """The problem as a JSON object; members without a value are left out."""
        members: dict[str, Any] = {
            "type": self.kind.uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "field": self.field,
            "hint": self.hint,
            "reason_code": self.reason_code,
            "reason": None if self.reason_code is None else describe(self.reason_code),
        }
        return {name: value for name, value in members.items() if value is not None}

    def body(self) -> bytes:
        """The problem as it is sent; a lone surrogate, which UTF-8 cannot carry, shows as a question mark."""
        members = self.members()
        for name in ("detail", "field", "hint"):
            if name in members:
                members[name] = members[name].encode("utf-8", "replace").decode("utf-8")
        return orjson.dumps(members)


_REASONS: Final[dict[int, ProblemType]] = {
    0x87: ProblemType.NOT_AUTHORIZED,
    0x90: ProblemType.INVALID_TOPIC,
    0x8F: ProblemType.INVALID_TOPIC,
    0x95: ProblemType.PACKET_TOO_LARGE,
    0x96: ProblemType.QUOTA_EXCEEDED,
    0x97: ProblemType.QUOTA_EXCEEDED,
    0x99: ProblemType.INVALID_PAYLOAD,
    0x9A: ProblemType.UNSUPPORTED,
    0x9B: ProblemType.UNSUPPORTED,
    0x9E: ProblemType.UNSUPPORTED,
    0xA2: ProblemType.UNSUPPORTED,
}
"""Refusing reason codes that the caller can do something about; any other is REFUSED_BY_BROKER."""

_ERRORS: Final[tuple[tuple[type[MQTTError], ProblemType], ...]] = (
    (TopicError, ProblemType.INVALID_TOPIC),
    (UnsupportedError, ProblemType.UNSUPPORTED),
    (PayloadError, ProblemType.INVALID_PAYLOAD),
    (RefusedError, ProblemType.REFUSED_BY_BROKER),
    (NotConnectedError, ProblemType.BROKER_UNAVAILABLE),
    (QueueFullError, ProblemType.QUEUE_FULL),
    (OutcomeUnknownError, ProblemType.OUTCOME_UNKNOWN),
    (MQTTTimeoutError, ProblemType.BROKER_TIMEOUT),
    (MQTTError, ProblemType.BROKER_UNAVAILABLE),
)


def problem_of(error: MQTTError) -> ProblemError:
    """The problem that an error of the SDK is for an HTTP caller."""
    kind = next(kind for error_type, kind in _ERRORS if isinstance(error, error_type))
    if error.reason_code is not None:
        kind = _REASONS.get(error.reason_code, kind)
    field = "topic" if kind is ProblemType.INVALID_TOPIC else None
    return ProblemError(kind, str(error), field=field, reason_code=error.reason_code)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is unknown: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(names)}" if names else "there are none here"


def json_pointer(location: Iterable[int | str]) -> str:
    """A location as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def documented(*kinds: ProblemType) -> dict[int | str, dict[str, Any]]:
    """The error answers of a call for its OpenAPI document, one entry a status (FastAPI's ``responses=``)."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in sorted(kinds, key=lambda each: each.status):
        answer = answers.setdefault(
            kind.status,
            {
                "description": "",
                "content": {
                    CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        titles = [answer["description"], f"`{kind.slug}`: {kind.meaning}"]
        answer["description"] = "\n\n".join(title for title in titles if title)
        answer["content"][CONTENT_TYPE]["examples"][kind.slug] = {
            "summary": kind.title,
            "value": ProblemError(kind, kind.meaning).members(),
        }
        if kind.status in (429, 503):
            answer["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            }
    return answers
