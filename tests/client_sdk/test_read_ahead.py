"""Reading ahead of paho: the same bytes in the same order, whatever the pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.connections.read_ahead import CHUNK_BYTES, ReadAhead


class Source:
    """A socket that has these pieces, then nothing for the moment."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.calls = 0

    def receive(self, size: int) -> bytes:
        """Up to so many bytes of the first piece."""
        self.calls += 1
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.pop(0)
        if len(piece) > size:
            self.pieces.insert(0, piece[size:])
        return piece[:size]


def read_all(reader: ReadAhead, sizes: list[int]) -> bytes:
    """Read with these sizes in turn, until there is nothing more."""
    found = b""
    at = 0
    while True:
        try:
            found += reader.receive(sizes[at % len(sizes)])
        except BlockingIOError:
            return found
        at += 1


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    st.lists(st.integers(1, 50) | st.just(CHUNK_BYTES + 1), min_size=1, max_size=5),
)
def test_bytes_come_whole_and_in_order(pieces: list[bytes], sizes: list[int]) -> None:
    """However they arrive and are asked for, the bytes are those that were sent."""
    assert b"".join(pieces) == read_all(ReadAhead(Source(list(pieces)).receive), sizes)


def test_small_reads_share_one_call() -> None:
    """What the socket has is read at once: byte after byte costs no further call."""
    source = Source([b"abcdef", b"gh"])
    reader = ReadAhead(source.receive)
    assert [b"a", b"b", b"cdef"] == [reader.receive(size) for size in (1, 1, 4)]
    assert (1, False) == (source.calls, reader.has_more)
    assert b"g" == reader.receive(1)
    assert reader.has_more


def test_the_end_of_the_stream_is_told() -> None:
    """No bytes means that the other side has closed, as with the socket itself."""
    reader = ReadAhead(Source([b"ab", b""]).receive)
    assert [b"a", b"b", b""] == [reader.receive(1) for _ in range(3)]


def test_an_error_of_the_socket_passes() -> None:
    """A reset connection is told by the read that finds it."""

    def fail(size: int) -> bytes:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        ReadAhead(fail).receive(1)
