"""Ids of events: what goes out is read back, nothing else is taken for one, and they tell nothing."""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.position import Epoch, Position, parse_position, standing

DIGITS = f"{ascii_uppercase}{ascii_lowercase}{digits}._"
EPOCH = Epoch()
PLACE = EPOCH.place(7).decode()
DIGESTS = st.text("0123456789abcdef", min_size=8, max_size=8)


@given(
    sequence=st.integers(0, 2**64 - 1),
    salt=st.integers(0, 2**32 - 1),
    filters=DIGESTS,
    lacks_retained=st.booleans(),
)
def test_an_id_is_read_back(sequence: int, salt: int, filters: str, lacks_retained: bool) -> None:
    """A client that brings back what it was given stands where it stood."""
    position = Position(EPOCH, sequence, filters, lacks_retained, salt)
    read = parse_position(str(position), EPOCH)
    assert position == read
    assert str(position) == str(read)
    assert parse_position(str(position), Epoch()) is None


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (Position(EPOCH, 7, "cdef4567"), f"{PLACE}-cdef4567"),
        (Position(EPOCH, 7, "cdef4567", True), f"{PLACE}-cdef4567-r"),
    ],
)
def test_the_form_of_an_id(position: Position, text: str) -> None:
    """Place, the digest of the filters, and a mark as long as retained messages may be on their way."""
    assert text == str(position)


def test_ids_tell_nothing_of_how_many_events_there_were() -> None:
    """Neighbours have nothing in common, each run has its own, and a message has one for all streams."""
    places = [EPOCH.place(sequence) for sequence in range(1, 2000)]
    assert len(places) == len(set(places))
    firsts = [place[:6] for place in places]
    assert len(firsts) - 5 < len(set(firsts))
    assert places != sorted(places)
    assert EPOCH.place(7) == EPOCH.place(7) != Epoch().place(7)


def test_where_a_stream_stands_has_another_id_each_time() -> None:
    """Two that are the same would tell that nothing came for anybody in between."""
    ids = {str(standing(EPOCH, 7, "cdef4567")) for _ in range(100)}
    assert 100 == len(ids)
    assert {Position(EPOCH, 7, "cdef4567")} == {parse_position(each, EPOCH) for each in ids}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        PLACE,
        f"{PLACE}-",
        f"{PLACE}--cdef4567",
        f"{PLACE}-r",
        f"{PLACE}-cdef456",
        f"{PLACE}-cdef45678",
        f"{PLACE}-CDEF4567",
        f"{PLACE}-cdef4567-",
        f"{PLACE}-cdef4567-R",
        f"{PLACE}-cdef4567-r-r",
        f"{PLACE}=-cdef4567",
        f"{PLACE[:-1]}-cdef4567",
        f"{PLACE}A-cdef4567",
        f"{PLACE}-cdef4567\n",
        f" {PLACE}-cdef4567",
        f"{PLACE[:-1]}+-cdef4567",
        f"{PLACE[:-1]}\N{ARABIC-INDIC DIGIT ONE}-cdef4567",
        f"{'A' * 22}-cdef4567",
        "0123abcd-7-cdef4567",
        "\x00",
    ],
)
def test_what_is_no_id_is_not_taken_for_one(text: str) -> None:
    """Whatever a client sends, it is read in full or not at all."""
    assert parse_position(text, EPOCH) is None


def test_an_id_has_one_spelling() -> None:
    """The last digit of base64 has bits that say nothing; they have to be as they were written."""
    last = DIGITS.index(PLACE[-1])
    for each in DIGITS[last + 1 : last + 16]:
        assert parse_position(f"{PLACE[:-1]}{each}-cdef4567", EPOCH) is None


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9._]{22}-[0-9a-f]{8}(-r)?")))
def test_no_text_breaks_the_reading(text: str) -> None:
    """Anything that is read as an id is the id that would have been written."""
    position = parse_position(text, EPOCH)
    if position is not None:
        assert text == str(position)
