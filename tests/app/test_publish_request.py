"""Reading a message from JSON: what is taken, what is refused, and that a payload stays as it was written."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.input.publish_request import read_message
from app.api.models import PublishRequest
from app.api.output.refusals import MAX_DEPTH
from app.problems import ProblemError, ProblemType

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
PIECES = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"1", b"-", b".", b"e", b"\\", b"\\u", b"\\ud800", b"\xff"),
    *(b"NaN", b"Infinity", b" ", b"\t", b"\n", b"\x00", b"\xc3\xa9", b'"topic":"b",', b'"qos":1,', b"true"),
    *(b'"to\\u0070ic":"c",', b"01", b"1.", b"\x0c", b"'", b"/*x*/", b"\xef\xbb\xbf"),
]


def refuse_constant(name: str) -> NoReturn:
    """JSON has no NaN (RFC 8259 §6)."""
    raise ValueError(name)


def members_of(text: bytes) -> list[tuple[str, Any]]:
    """The members of an object as the standard library reads them; raises ValueError."""
    found = json.loads(text.decode(), object_pairs_hook=list, parse_constant=refuse_constant, parse_int=float)
    assert isinstance(found, list)
    return found


@given(value=VALUES, places=st.lists(st.tuples(st.integers(0, 200), st.sampled_from(PIECES)), max_size=2))
def test_what_is_taken(value: Any, places: list[tuple[int, bytes]]) -> None:
    """Just what both the model and the standard library's reader take, with no name twice."""
    text = json.dumps({"topic": "a", "payload": value, "retain": False}, ensure_ascii=False).encode()
    for at, piece in places:
        text = text[:at] + piece + text[at:]
    try:
        PublishRequest.model_validate_json(text)
        names = [name for name, _ in members_of(text)]
        is_right = len(set(names)) == len(names)
    except ValueError:
        is_right = False

    try:
        read_message(text)
        is_taken = True
    except ProblemError as problem:
        is_taken = problem.kind is ProblemType.INVALID_TOPIC and is_right

    assert is_right == is_taken


@given(value=VALUES)
def test_a_payload_stays_as_it_was_written(value: Any) -> None:
    """Every digit, space and escape of it, in the order in which it came."""
    written = json.dumps(value, indent=1)
    message = read_message(b'{"payload": ' + written.encode() + b' , "topic":"a"}')
    assert written.encode() == message.payload


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b'{"topic":"a","topic":"b","payload":1}', "'topic' is there twice"),
        (b'{"topic":"a","payload":1,"to\\u0070ic":"a"}', "'topic' is there twice"),
        (b'{"topic":"a","payload":[NaN]}', "NaN"),
        (b'{"topic":"a","payload":"\xff"}', "unicode"),
        (b'{"topic":"a","payload":"\\udc00"}', "surrogate"),
        (b'{"topic":"a","payload":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "recursion"),
        (b'{"topic":"a","payload":' + b'{"a":' * 200_000, "recursion"),
        (b'{"topic":"a","payload":' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}", "recursion"),
    ],
)
def test_json_that_is_not_to_be_passed_on(text: bytes, word: str) -> None:
    """Readers differ on it, or fail at it."""
    with pytest.raises(ProblemError, match=word) as refused:
        read_message(text)
    assert ProblemType.MALFORMED_BODY is refused.value.kind


@pytest.mark.parametrize("qos", [b"false", b"true", b"1.0", b'"1"', b"3", b"null"])
def test_a_qos_is_one_of_three_numbers(qos: bytes) -> None:
    """``false`` is not 0, and the refusal points at the member."""
    with pytest.raises(ProblemError) as refused:
        read_message(b'{"topic":"a","payload":1,"qos":' + qos + b"}")
    assert (ProblemType.INVALID_BODY, "/qos") == (refused.value.kind, refused.value.field)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    """What is counted is a reason to look, not to refuse."""
    payload = b"[" + b",".join([b"[]"] * 1000) + b"]"
    assert payload == read_message(b'{"topic":"a","payload":' + payload + b"}").payload
