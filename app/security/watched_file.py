"""A file whose content counts as it is now, with no restart.

Rules:

1. It is looked at once a second, in a thread: file systems may be slow, and some tell nobody of changes.
   Links are followed, so that a mounted Secret whose ``..data`` is swapped is seen too.
2. A file that cannot be used, or is gone, changes nothing: what it said last holds, and an error is logged.
3. At the start there is nothing to fall back on: such a file stops the start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from tidegate.errors import ConfigurationError

logger = logging.getLogger("tidegate.security")

LOOK_SECONDS: Final = 1.0
_SETTLED_NS: Final = 2_000_000_000
"""A file changed this recently is read again: it may change once more in the same tick of its clock."""

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """A file, read, and read again when it changes.

    Args:
        file: which.
        parse: makes something of its content and of what was made before; raises ValueError in words.
        look_seconds: how often it is looked at.

    Attributes:
        value: what was made of it last.
        fault: why the file as it is now cannot be used; None where it can.

    Raises:
        ConfigurationError: it cannot be used.
    """

    def __init__(
        self, file: Path, parse: Callable[[bytes, T | None], T], *, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self.file = file
        self.fault: str | None = None
        self._parse = parse
        self._look_seconds = look_seconds
        self._task: asyncio.Task[None] | None = None
        self._signature: tuple[int, ...] | None = None
        self._digest: bytes | None = None
        try:
            self.value = parse(self._changed_text() or b"", None)
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    def start(self) -> None:
        """Begin to look; in a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take over what is new; may wait for the disk."""
        fault = None
        try:
            text = self._changed_text()
            if text is None:
                return
            self.value = self._parse(text, self.value)
        except OSError as error:
            self._signature = self._digest = None
            fault = f"{self.file} cannot be read: {error.strerror}"
        except ValueError as error:
            fault = str(error)
        if fault is None:
            logger.info("%s is read again", self.file)
        elif fault != self.fault:
            logger.error("%s; what the file said before holds until that is mended", fault)
        self.fault = fault

    def _changed_text(self) -> bytes | None:
        """What is in the file, where that is not what was read last."""
        status = self.file.stat()
        signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if signature == self._signature:
            return None
        text = self.file.read_bytes()
        is_settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS
        self._signature = signature if is_settled else None
        digest = hashlib.sha256(text).digest()
        if digest == self._digest:
            return None
        self._digest = digest
        return text
