"""A Secret of Kubernetes that is mounted as a folder: one credential, which is renewed where it comes from.

Rules:

1. All parts are read from one version of the Secret, the one that ``..data`` leads to. Where it changed while
   it was read, it is read again.
2. A version that cannot be used, or has expired, does not take the place of one that can: the old one stays,
   ``trouble`` says why, and the new one is tried again and again.
3. At the start there is none to stay, so dates are only warned of: the broker decides.
4. What was recorded is remembered by this process alone. After a restart, what is mounted is what counts.
5. Where a version brings no authority, those that the settings name vouch for the broker. Where it does, its
   own do, and no other.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from app.credentials.intake import Intake, Taken
from app.credentials.store import (
    HISTORY,
    Activation,
    Change,
    Credential,
    CredentialNotFoundError,
    CredentialUnreadableError,
    ReadOnlyStoreError,
    revision_of,
)
from app.credentials.watching import POLL_SECONDS, wake_ups
from tidegate.bundles import Bundle, Certificate
from tidegate.errors import TLSError

logger = logging.getLogger("tidegate.credentials")

_ATTEMPTS: Final = 5
_LOOKS: Final = 12
"""What cannot be used is tried again with the twelfth look, about once a minute."""
_DATA: Final = "..data"

_Traces = tuple[str, tuple[tuple[str, int, int, int], ...]]


class MountedStore:
    """Reads what is mounted (``CredentialStore``).

    Args:
        path: the folder, as it is mounted.
        passphrase: what opens an encrypted key in it.
        key_setting: what an error's text calls that.
        poll_seconds: how soon a change is seen that the file system does not tell of.
        intake: what reads it.
        authorities: what vouches for the broker where the Secret has none.
    """

    is_writable = False

    def __init__(
        self,
        path: Path,
        *,
        passphrase: str = "",
        key_setting: str = "passphrase",
        poll_seconds: float = POLL_SECONDS,
        intake: Intake | None = None,
        authorities: Sequence[Certificate] = (),
    ) -> None:
        self.name = name_of_mount(path)
        self.trouble: str | None = None
        self._path = path
        self._passphrase = passphrase
        self._key_setting = key_setting
        self._poll_seconds = poll_seconds
        self._intake = Intake() if intake is None else intake
        self._authorities = tuple(authorities)
        self._lock = asyncio.Lock()
        self._seen: _Traces | None = None
        self._newest: Credential | None = None
        self._in_use: Credential | None = None
        self._history: deque[Activation] = deque(maxlen=HISTORY)
        self._active: Activation | None = None
        self._stops: set[asyncio.Event] = set()
        self._looks = 0

    async def names(self) -> tuple[str, ...]:
        """``CredentialStore.names``: the one, named after its folder."""
        await self._refresh()
        return (self.name,)

    async def read(self, name: str, revision: str | None = None) -> Credential:
        """``CredentialStore.read``."""
        if name != self.name:
            raise CredentialNotFoundError(f"there is no credential {name!r}; {self.name!r} is mounted")
        await self._refresh()
        for found in (self._newest, self._in_use):
            if found is not None and revision in {None, found.revision}:
                return found
        if self._newest is None:
            raise CredentialUnreadableError(str(self.trouble))
        raise CredentialNotFoundError(f"the credential {name!r} has no version {revision!r} any more")

    async def write(self, name: str, bundle: Bundle) -> NoReturn:
        """``CredentialStore.write``: it only reads."""
        self._refuse()

    async def delete(self, name: str) -> NoReturn:
        """``CredentialStore.delete``: it only reads."""
        self._refuse()

    async def active(self) -> Activation | None:
        """``CredentialStore.active``."""
        return self._active

    async def history(self) -> tuple[Activation, ...]:
        """``CredentialStore.history``."""
        return tuple(self._history)

    async def record(self, activation: Activation) -> None:
        """``CredentialStore.record``."""
        if activation.outcome == "active":
            known = [each for each in (self._newest, self._in_use) if each is not None]
            found = [
                each for each in known if (each.name, each.revision) == (activation.name, activation.revision)
            ]
            if not found:
                raise CredentialNotFoundError(
                    f"the credential {activation.name!r} has no version {activation.revision!r} any more"
                )
            self._in_use = found[0]
            self._active = activation
        self._history.appendleft(activation)

    async def watch(self) -> AsyncGenerator[Change, None]:
        """``CredentialStore.watch``."""
        before: tuple[str, str | None] | None = None
        stop = asyncio.Event()
        self._stops.add(stop)
        try:
            async with aclosing(wake_ups(self._path, stop, poll_seconds=self._poll_seconds)) as moments:
                async for _ in moments:
                    await self._refresh(again=True)
                    now = ("" if self._newest is None else self._newest.revision, self.trouble)
                    if now != before:
                        yield Change(frozenset({self.name}), has_activation=before is None)
                    before = now
        finally:
            self._stops.discard(stop)

    async def close(self) -> None:
        """``CredentialStore.close``."""
        for stop in self._stops:
            stop.set()

    async def _refresh(self, *, again: bool = False) -> None:
        """Read what is mounted, if it is not what was read before.

        Args:
            again: whether a version that could not be used may be tried again.
        """
        async with self._lock:
            self._looks += again
            is_due = again and self.trouble is not None and self._looks % _LOOKS == 0
            for _ in range(_ATTEMPTS):
                traces = await asyncio.to_thread(_traces_of, self._path)
                if traces == self._seen and not is_due:
                    return
                taken = await self._take()
                if await asyncio.to_thread(_traces_of, self._path) == traces:
                    self._seen = traces
                    self._settle(taken, traces)
                    return
            self._tell(f"{self._path} changes each time that it is read")

    async def _take(self) -> Taken | TLSError:
        try:
            return await self._intake.take_path(
                self._path,
                passphrase=self._passphrase,
                key_setting=self._key_setting,
                validity="warn" if self._newest is None else "refuse",
            )
        except TLSError as error:
            return error

    def _settle(self, taken: Taken | TLSError, traces: _Traces) -> None:
        """Take what was read into use, unless it cannot be."""
        if isinstance(taken, TLSError):
            self._tell(str(taken))
            return
        self.trouble = None
        for warning in taken.warnings:
            logger.warning("%s", warning)
        bundle = taken.bundle
        if not bundle.authorities:
            bundle = replace(bundle, authorities=self._authorities)
        elif self._authorities and self._newest is None:
            logger.warning(
                "TIDEGATE_BROKER_CA_FILE is not used: the Secret at %s has an authority of its own; put the "
                "broker's into it too, under any other name",
                self._path,
            )
        revision = revision_of(bundle)
        if self._newest is not None and revision == self._newest.revision:
            return
        stored_at = datetime.fromtimestamp(max(each[2] for each in traces[1]) / 1e9, UTC)
        self._newest = Credential(self.name, bundle, revision, stored_at)
        logger.info(
            "the credential %s has the version %s, mounted at %s", self.name, revision[:12], self._path
        )

    def _tell(self, trouble: str) -> None:
        """Remember what is wrong, and log it once."""
        if trouble == self.trouble:
            return
        self.trouble = trouble
        stays = "" if self._newest is None else "; the version before it stays"
        logger.error("%s%s", trouble, stays)

    def _refuse(self) -> NoReturn:
        raise ReadOnlyStoreError(
            f"credentials come from {self._path}, where a Secret is mounted; change the Secret, or have "
            "TIDEGATE_CREDENTIALS_DIR in place of TIDEGATE_CREDENTIALS_MOUNT"
        )


def name_of_mount(path: Path) -> str:
    """What a mounted credential is called: the folder's name, as far as a name may have its characters."""
    found = re.sub("[^a-z0-9]+", "-", path.name.lower())[:63].strip("-")
    return found or "mounted"


def _traces_of(path: Path) -> _Traces:
    """By what a version of the Secret is told from another; of a folder that is not there, nothing."""
    try:
        current = (path / _DATA).resolve() if (path / _DATA).is_dir() else path
        files = [(each.name, each.stat()) for each in current.iterdir() if each.is_file()]
    except OSError:
        return "", ()
    return str(current), tuple(
        sorted((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in files)
    )
