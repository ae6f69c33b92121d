"""Encryption at rest: what is sealed with the first key is opened with any of them.

It is Fernet, as the ``cryptography`` library has it: AES-128 in CBC mode, and HMAC with SHA-256.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_VERSION: Final = 0x80  # the first byte of what Fernet writes


class SealBrokenError(Exception):
    """None of the keys opens it, or it is damaged; the text ends a sentence that begins with what it is."""


class Seal:
    """Seals and opens.

    Args:
        keys: Fernet keys, the newest first.

    Raises:
        ValueError: one is none.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        fernets = [Fernet(key) for key in keys]
        self._first = fernets[0]
        self._all = MultiFernet(fernets)

    def close_up(self, content: bytes) -> bytes:
        """Encrypt with the first key."""
        return self._first.encrypt(content)

    def open_up(self, sealed: bytes) -> bytes:
        """Decrypt, with whichever key fits.

        Raises:
            SealBrokenError: none does.
        """
        try:
            return self._all.decrypt(sealed)
        except InvalidToken:
            pass
        if _is_sealed(sealed):
            raise SealBrokenError(
                "cannot be decrypted: it is damaged, or the key that it was stored with is missing from "
                "TIDEGATE_CREDENTIALS_KEY; put that key behind the others"
            )
        raise SealBrokenError("is damaged: it is not what was written there; restore it, or store it anew")

    def is_newest(self, sealed: bytes) -> bool:
        """Whether the first key opens it."""
        try:
            self._first.decrypt(sealed)
        except InvalidToken:
            return False
        return True


def _is_sealed(content: bytes) -> bool:
    try:
        return base64.b64decode(content, altchars=b"-_", validate=True)[:1] == bytes((_VERSION,))
    except (binascii.Error, ValueError):
        return False
