"""Ids of events: what goes out is read back, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.position import Position, parse_position

EPOCHS = st.text("0123456789abcdef", min_size=8, max_size=8)


@given(epoch=EPOCHS, sequence=st.integers(0, 10**18 - 1), filters=EPOCHS, lacks_retained=st.booleans())
def test_an_id_is_read_back(epoch: str, sequence: int, filters: str, lacks_retained: bool) -> None:
    """A client that brings back what it was given stands where it stood."""
    position = Position(epoch, sequence, filters, lacks_retained)
    assert parse_position(str(position)) == position


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (Position("0123abcd", 7, "cdef4567"), "0123abcd-7-cdef4567"),
        (Position("0123abcd", 7, "cdef4567", True), "0123abcd-7-cdef4567-r"),
    ],
)
def test_the_form_of_an_id(position: Position, text: str) -> None:
    """Run, number, the digest of the filters, and a mark as long as retained messages may be on their way."""
    assert text == str(position)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "0123abcd",
        "0123abcd-",
        "0123abcd--1",
        "0123abcd-1",
        "0123abcd-1-r",
        "0123abcd-1-cdef456",
        "0123abcd-1-cdef45678",
        "0123abcd-1-CDEF4567",
        "0123abcd-1-cdef4567-",
        "0123abcd-1-cdef4567-R",
        "0123abcd-1-cdef4567-r-r",
        "0123ABCD-1-cdef4567",
        "0123abc-1-cdef4567",
        "0123abcde-1-cdef4567",
        "0123abcd-1-cdef4567\n",
        " 0123abcd-1-cdef4567",
        "0123abcd-1.0-cdef4567",
        "0123abcd-" + "1" * 19 + "-cdef4567",
        "0123abcd-\N{ARABIC-INDIC DIGIT ONE}-cdef4567",
        "0123abcd-\N{SUPERSCRIPT TWO}-cdef4567",
        "\x00",
    ],
)
def test_what_is_no_id_is_not_taken_for_one(text: str) -> None:
    """Whatever a client sends, it is read in full or not at all."""
    assert parse_position(text) is None


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{8}-[0-9]+-[0-9a-f]{8}(-r)?")))
def test_no_text_breaks_the_reading(text: str) -> None:
    """Anything that is read as an id is the id that would have been written."""
    position = parse_position(text)
    if position is not None:
        epoch, sequence, filters, *rest = text.split("-")
        assert (position.epoch, position.sequence, position.filters) == (epoch, int(sequence), filters)
        assert position.lacks_retained == (rest == ["r"])
