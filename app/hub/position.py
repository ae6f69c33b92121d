"""Where a stream stands: what an event's id says, and what a client brings back as ``Last-Event-ID``.

An id is ``PLACE-FILTERS``, and ``PLACE-FILTERS-r`` as long as retained messages of the stream's beginning may
still be on their way. To a client it is opaque: ``PLACE`` is a number that the run of the bridge has
encrypted. As it is, it would tell every listener how many events there were, everybody else's too.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

_FORM: Final = re.compile(r"([A-Za-z0-9._]{22})-([0-9a-f]{8})(-r)?", re.ASCII)
_BLOCK: Final = Struct(">QII")
"""The number, a salt, and zero: what is not of this run does not come out with a zero."""
_DIGITS: Final = b"._"
"""In the place of ``+`` and ``/`` of base64; neither has to be escaped in a URL."""
_KEY_BYTES: Final = 16


class Epoch:
    """One run of the bridge, which counts events; another run's ids mean nothing to it."""

    __slots__ = ("_decrypt", "_encrypt")

    def __init__(self) -> None:
        # Of one block, AES is a permutation and nothing more is needed: no two places are the same.
        cipher = Cipher(AES(secrets.token_bytes(_KEY_BYTES)), ECB())  # noqa: S305
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update

    def place(self, sequence: int, salt: int = 0) -> bytes:
        """A number as it stands in ids.

        Args:
            sequence: the number.
            salt: makes another text of the same number; 0 to 2^32 - 1.
        """
        return b64encode(self._encrypt(_BLOCK.pack(sequence, salt, 0)), _DIGITS)[:22]

    def read(self, place: str) -> tuple[int, int] | None:
        """The number and the salt; None where this run did not make the text."""
        sequence, salt, zero = _BLOCK.unpack(self._decrypt(b64decode(place + "==", _DIGITS)))
        if zero or self.place(sequence, salt).decode() != place:
            return None
        return sequence, salt


@dataclass(frozen=True, slots=True)
class Position:
    """One place in the hub's order of events, on the way of one set of filters.

    Attributes:
        epoch: the run of the bridge that counted; another run counts from one again.
        sequence: the number of the last event seen.
        filters: the digest of the filters that were followed up to here; see ``FilterSets``.
        lacks_retained: the retained messages of the beginning may not all have been seen.
        salt: makes another id of the same place.
    """

    epoch: Epoch
    sequence: int
    filters: str
    lacks_retained: bool = False
    salt: int = field(default=0, compare=False)

    def __str__(self) -> str:
        place = self.epoch.place(self.sequence, self.salt).decode()
        return f"{place}-{self.filters}{'-r' if self.lacks_retained else ''}"


def standing(epoch: Epoch, sequence: int, filters: str, lacks_retained: bool = False) -> Position:
    """A place that is no message's own; its id is another one each time.

    Whoever asks twice for where a stream stands would else learn whether anything came in between, of
    whatever filter.
    """
    return Position(epoch, sequence, filters, lacks_retained, secrets.randbits(32))


def parse_position(text: str, epoch: Epoch) -> Position | None:
    """Read an id; None where it is not one of this run's."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    read = epoch.read(found[1])
    return None if read is None else Position(epoch, read[0], found[2], found[3] is not None, read[1])
