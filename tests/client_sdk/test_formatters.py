from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from tidegate import Formatter, JSONFormatter, PayloadError
from tidegate.formatters import to_payload


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Reading:
    at: date
    colour: Colour


class Model(BaseModel):
    at: datetime
    readings: list[Reading]


class _Scalar:
    """What a numpy scalar looks like from outside."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value


NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}'),
        ("text", b'"text"'),
        ("grün", '"grün"'.encode()),
        (NOON, b'"2026-01-31T12:00:00+00:00"'),
        (date(2026, 1, 31), b'"2026-01-31"'),
        (time(12, 30), b'"12:30:00"'),
        (timedelta(minutes=1.5), b"90.0"),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Decimal("21.5"), b"21.5"),
        (Decimal("1E+3"), b"1000"),
        (Colour.RED, b'"red"'),
        (Level.HIGH, b"3"),
        (PurePosixPath("a/b"), b'"a/b"'),
        ({"raw": b"\x00\xff"}, b'{"raw":"AP8="}'),
        ([bytearray(b"a")], b'["YQ=="]'),
        ({1}, b"[1]"),
        (frozenset(), b"[]"),
        ((1, 2), b"[1,2]"),
        (_Scalar(7), b"7"),
        ([_Scalar([1, 2])], b"[[1,2]]"),
        (Reading(NOON.date(), Colour.RED), b'{"at":"2026-01-31","colour":"red"}'),
        (
            Model(at=NOON, readings=[Reading(NOON.date(), Colour.RED)]),
            b'{"at":"2026-01-31T12:00:00+00:00","readings":[{"at":"2026-01-31","colour":"red"}]}',
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_have_one_form(value: Any, written: bytes) -> None:
    """Each type that the formatter takes is written in the form that it promises."""
    assert written == JSONFormatter().format(value)


@pytest.mark.parametrize("octets", [b"", b"\x00\xff", b'{"a": 1}', b"plain"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_go_out_as_they_are(octets: bytes, kind: type) -> None:
    """Nothing is put around bytes, whatever they hold."""
    assert octets == JSONFormatter().format(kind(octets))


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        {"deep": [float("inf")]},
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        _Scalar(float("nan")),
        object(),
        Reading,
        "\ud800",
        {("a", "b"): 1},
        lambda: None,
    ],
    ids=repr,
)
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    """NaN, infinities, lone surrogates and strangers are an error of the caller, and never invalid JSON."""
    with pytest.raises(PayloadError) as caught:
        JSONFormatter().format(value)
    assert caught.value.fault == "caller"


def test_a_value_that_holds_itself_is_refused() -> None:
    """A circle is an error and not an overflow."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(PayloadError):
        JSONFormatter().format(circle)


@given(JSON_VALUES)
def test_what_was_published_is_what_is_received(value: Any) -> None:
    """Every JSON value, text included, survives the way there and back."""
    formatter = JSONFormatter()
    assert value == formatter.parse(formatter.format(value))


@given(st.binary() | st.text().map(str.encode))
@example(b'"')
@example(b'"\\ud800"')
def test_reading_never_fails(octets: bytes) -> None:
    """Anything that arrives is JSON, text, or the bytes themselves."""
    value = JSONFormatter().parse(octets)
    if isinstance(value, bytes):
        assert value == octets
        with pytest.raises(UnicodeDecodeError):
            octets.decode()
    elif value != octets.decode():
        assert value == json.loads(octets.decode())


@pytest.mark.parametrize(
    ("octets", "value"),
    [
        (b"", ""),
        (b"on", "on"),
        (b"21.5", 21.5),
        (b" [1] ", [1]),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
        (b"[NaN]", "[NaN]"),
        (b"1\x00", "1\x00"),
        (b"\xff\xfe1\x00", b"\xff\xfe1\x00"),
        (b"\xef\xbb\xbf1", "\ufeff1"),
        (b"[" * 100_000, "[" * 100_000),
    ],
    ids=repr,
)
def test_only_json_in_utf8_is_read_as_json(octets: bytes, value: Any) -> None:
    """NaN is no JSON, another encoding is not guessed at, and depth without end is text."""
    assert value == JSONFormatter().parse(octets)


class _Upper:
    def format(self, payload: Any) -> str:
        return str(payload).upper()

    def parse(self, message: bytes) -> str:
        return message.decode().lower()


class _Gives:
    def __init__(self, value: Any) -> None:
        self.value = value

    def format(self, payload: Any) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def parse(self, message: bytes) -> Any:
        return message


def test_any_object_with_the_two_methods_is_a_formatter() -> None:
    """Nothing is to be inherited from, and text that it gives goes out as UTF-8."""
    assert isinstance(_Upper(), Formatter)
    assert "GRÜN".encode() == to_payload(_Upper(), "grün")


@pytest.mark.parametrize("value", [None, 7, "\ud800", RuntimeError("boom")], ids=repr)
def test_a_formatter_that_fails_is_a_payload_error(value: Any) -> None:
    """What it raises, and what it gives that is no payload, comes out as one kind of error that names it."""
    with pytest.raises(PayloadError, match="_Gives"):
        to_payload(_Gives(value), 1)


def test_a_formatters_own_payload_error_stays() -> None:
    """A formatter that knows what is wrong is not talked over."""
    error = PayloadError("the schema says no")
    with pytest.raises(PayloadError) as caught:
        to_payload(_Gives(error), 1)
    assert caught.value is error
