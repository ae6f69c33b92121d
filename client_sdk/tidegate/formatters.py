"""Between Python values and payload bytes."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, Protocol, runtime_checkable
from uuid import UUID

from tidegate.errors import PayloadError

_BYTES: Final = (bytes, bytearray, memoryview)
"""Made once: a union that stands where it is used is made for each call."""


@runtime_checkable
class Formatter(Protocol):
    """Writes and reads payloads; any object with these two methods will do."""

    def format(self, payload: Any) -> bytes | str:
        """The payload as bytes, or as text that is sent as UTF-8."""

    def parse(self, message: bytes) -> Any:
        """What a received payload means."""


class JSONFormatter:
    """JSON both ways; the default.

    Writing takes what ``json`` takes, and datetime, date and time (ISO 8601), timedelta (seconds), UUID,
    Decimal, Enum (its value), dataclass, pydantic model, set, path, numpy scalar and array, and bytes within
    a value (base64). ``bytes`` and ``bytearray`` by themselves go out as they are, and every other value,
    text included, as JSON, so that what was published is what is received.

    Reading gives the JSON value, else text where the payload is UTF-8, else the bytes.
    """

    def format(self, payload: Any) -> bytes:
        """Write a payload.

        Raises:
            PayloadError: it holds something that JSON has no form for, NaN and infinities included.
        """
        if isinstance(payload, _BYTES):
            return bytes(payload)
        try:
            return _encode(payload).encode("utf-8")
        except (TypeError, ValueError, ArithmeticError, RecursionError, BufferError) as error:
            raise PayloadError(f"the payload cannot be written as JSON: {error}") from error

    def parse(self, message: bytes) -> Any:
        """Read a payload; never raises."""
        try:
            text = message.decode("utf-8")  # and no other encoding, which json would guess at
        except UnicodeDecodeError:
            return message
        try:
            return _decode(text)
        except (ValueError, RecursionError):
            return text


def _refuse_constant(name: str) -> None:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(name)


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, UUID | PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, set | frozenset):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("model_dump", "tolist"):  # a pydantic model; a numpy scalar or array
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    raise TypeError(f"{type(value).__name__} is not a type that JSON can carry")


_decode: Final = json.JSONDecoder(parse_constant=_refuse_constant).decode  # json.loads would make one a call

_encode: Final = json.JSONEncoder(
    default=_to_json, allow_nan=False, ensure_ascii=False, separators=(",", ":")
).encode  # json.dumps makes an encoder for each call


def to_payload(formatter: Formatter, value: Any) -> bytes:
    """Write a value with any formatter.

    Raises:
        PayloadError: the formatter failed, or gave neither bytes nor text.
    """
    try:
        written = formatter.format(value)
        if isinstance(written, str):
            return written.encode("utf-8")
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"{type(formatter).__name__} cannot write the payload: {error}") from error
    if isinstance(written, bytes):
        return written
    raise PayloadError(f"{type(formatter).__name__}.format gave {type(written).__name__}, not bytes or str")
