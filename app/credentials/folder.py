"""A folder whose files are whole, whatever happens: to the process, to the machine, or in another process.

Rules:

1. A file is written beside its place, brought to the disk, and then put there in one step; so is the folder's
   own list of files. Whoever reads sees the old content or the new one.
2. Whoever changes something holds the lock, across processes; whoever reads needs none. What lies beside its
   place while the lock is free was left by a process that ended, and is removed.
3. Only the owner may read a file, and a folder that is made here. A folder of somebody else's, as a volume of
   Kubernetes is with fsGroup, is open to a group on purpose: what counts there is who else may write to it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.credentials.store import CredentialStoreError

logger = logging.getLogger("tidegate.credentials")

Traces = dict[str, tuple[int, int, int]]
"""By name, what changes with a file: its inode, when it was written in nanoseconds, its bytes."""

LOCK_SECONDS: Final = 10.0
FILE_BYTES: Final = 64 * 1_048_576

_LOCK: Final = ".lock"
_NEW: Final = ".new-"
_RETRY_SECONDS: Final = 0.01


class Folder:
    """The folder.

    Args:
        path: where it is; it is made where there is none.

    Raises:
        CredentialStoreError: it cannot be made, or is no folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._in_words("cannot be used"):
            try:
                path.mkdir(mode=0o700)
                path.chmod(0o700)  # whatever the umask says
            except FileExistsError:
                pass
            status = path.stat()
        mode = status.st_mode
        if not stat.S_ISDIR(mode):
            raise CredentialStoreError(f"{path} is no directory")
        if status.st_uid == os.geteuid():
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                logger.warning(
                    "others may look into the folder %s (mode %03o); its files are encrypted and for their "
                    "owner alone, and yet: chmod 700",
                    path,
                    stat.S_IMODE(mode),
                )
        elif mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            logger.warning(
                "anybody may remove files from the folder %s (mode %03o), or put older ones in their place: "
                "chmod o-w",
                path,
                stat.S_IMODE(mode),
            )

    def traces(self) -> Traces:
        """All files, except those that are no content.

        Raises:
            CredentialStoreError: the folder cannot be read.
        """
        found: Traces = {}
        with self._in_words("cannot be read"), os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return found

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file.

        Raises:
            CredentialStoreError: it cannot be read.
        """
        try:
            with (self.path / name).open("rb") as file:
                content = file.read(FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialStoreError(f"{self.path / name} cannot be read: {error.strerror}") from error
        if len(content) > FILE_BYTES:
            raise CredentialStoreError(f"{self.path / name} is larger than anything that was stored")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, in place of another; under the lock. It is on the disk once this returns.

        Raises:
            CredentialStoreError: it cannot be written.
        """
        new = self.path / f"{_NEW}{secrets.token_hex(8)}"
        with self._in_words("cannot be written to"):
            number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(number, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(number)
            new.replace(self.path / name)
            self._sync()

    def link(self, name: str, other: str) -> None:
        """Let a file go by another name too; under the lock.

        Raises:
            CredentialStoreError: it cannot.
        """
        with self._in_words("cannot be written to"):
            (self.path / other).unlink(missing_ok=True)
            (self.path / other).hardlink_to(self.path / name)
            self._sync()

    def remove(self, *names: str) -> None:
        """Remove files, in this order; under the lock.

        Raises:
            CredentialStoreError: one cannot be removed.
        """
        with self._in_words("cannot be written to"):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            self._sync()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, and remove what a process left that ended while it held it.

        Raises:
            CredentialStoreError: another process holds it and does not let go, or there can be none.
        """
        with self._in_words("cannot be written to"):
            number = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._acquire(number)
            with self._in_words("cannot be written to"):
                for left in self.path.glob(f"{_NEW}*"):
                    left.unlink(missing_ok=True)
            yield
        finally:
            os.close(number)

    def _acquire(self, number: int) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        with self._in_words("cannot be locked"):
            while True:
                try:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                time.sleep(_RETRY_SECONDS)
        raise CredentialStoreError(
            f"another process has been changing {self.path} for {LOCK_SECONDS:g} seconds; does it hang?"
        )

    def _sync(self) -> None:
        number = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CredentialStoreError(f"the folder {self.path} {what}: {error.strerror}") from error
