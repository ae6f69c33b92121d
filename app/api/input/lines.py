"""The lines of a body that arrives in parts (NDJSON)."""

from __future__ import annotations

from app.problems import ProblemError, ProblemType


class Lines:
    """Cuts parts of a body into lines; keeps no more than one line that is not whole yet.

    Args:
        max_bytes: the longest line; of a longer one nothing but the fact is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begun = bytearray()
        self._size = 0

    def feed(self, part: bytes) -> list[bytes | ProblemError]:
        """The lines that end in a part; empty ones are left out, and one too long is BODY_TOO_LARGE."""
        first, *others = part.split(b"\n")
        self._add(first)
        if not others:
            return []
        found = self.end()
        self._add(others.pop())
        found += [self._checked(line) for line in others if line and not line.isspace()]
        return found

    def end(self) -> list[bytes | ProblemError]:
        """The line that has begun, if there is one: the last needs no line end."""
        line, size = bytes(self._begun), self._size
        self._begun, self._size = bytearray(), 0
        if size > self._max_bytes:
            return [self._too_long()]
        return [line] if line and not line.isspace() else []

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            self._begun.clear()
        else:
            self._begun += piece

    def _checked(self, line: bytes) -> bytes | ProblemError:
        return self._too_long() if len(line) > self._max_bytes else line

    def _too_long(self) -> ProblemError:
        return ProblemError(
            ProblemType.BODY_TOO_LARGE,
            f"the line has more bytes than TIDEGATE_MAX_BODY_BYTES allows: {self._max_bytes}",
        )
