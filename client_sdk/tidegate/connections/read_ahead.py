"""Reading packets for paho: what the socket has comes in one piece, and is acknowledged at once.

paho asks the socket for each packet three times: one byte, the length byte by byte, and the rest. And on
Linux the kernel may put off the acknowledgement of what it got by 40 ms, in which a broker that sends small
packets one by one (Nagle's algorithm, which Mosquitto has by default) sends nothing more: a PUBACK that
follows a message came that much later.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

CHUNK_BYTES: Final = 16_384
"""The most that is read at once: what one turn of the event loop works through."""

_QUICK_ACKNOWLEDGEMENT: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


class ReadAhead:
    """Stands between paho and its socket.

    Args:
        receive: reads up to a number of bytes; raises BlockingIOError where there are none.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._chunk = b""
        self._at = 0

    @property
    def has_more(self) -> bool:
        """Whether bytes were read that nobody took yet."""
        return self._at < len(self._chunk)

    def receive(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end of the stream. Raises what reading raises."""
        at = self._at
        if at < len(self._chunk):
            self._at = at + size
            return self._chunk[at : at + size]
        if size >= CHUNK_BYTES:
            return self._receive(size)
        chunk = self._receive(CHUNK_BYTES)
        if len(chunk) <= size:
            return chunk
        self._chunk = chunk
        self._at = size
        return chunk[:size]


def acknowledge_at_once(plain: socket.socket) -> None:
    """Have the kernel acknowledge what was read (tcp(7), TCP_QUICKACK), until it changes its mind."""
    if _QUICK_ACKNOWLEDGEMENT is not None:
        plain.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGEMENT, 1)
