"""Credentials in a folder, encrypted: a file for each, which several replicas may share.

Rules:

1. ``NAME.credential`` is the newest version of a credential, ``NAME.REVISION.kept`` an older one that is in
   use, ``activations`` what was recorded.
2. A file says inside, under encryption, what it is and of which name: one that was renamed or put in place of
   another is not believed.
3. What cannot be opened keeps nobody from the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.credentials.folder import Traces
from app.credentials.sealed_folder import SealedFolder
from app.credentials.store import (
    HISTORY,
    Activation,
    Change,
    Credential,
    CredentialActiveError,
    CredentialNotFoundError,
    CredentialStoreError,
    CredentialUnreadableError,
    check_credential_name,
    is_credential_name,
    revision_of,
)
from app.credentials.watching import POLL_SECONDS, wake_ups
from tidegate.bundles import Bundle, restore_bundle
from tidegate.errors import TLSError

ACTIVATIONS: Final = "activations"

_CREDENTIAL: Final = ".credential"
_KEPT: Final = ".kept"

_is_revision: Final = re.compile(r"[0-9a-f]{64}").fullmatch


class FolderStore:
    """Keeps credentials in a folder (``CredentialStore``).

    Args:
        path: the folder; it is made where there is none.
        keys: Fernet keys, the newest first.
        poll_seconds: how soon a change is seen that the file system does not tell of.

    Raises:
        CredentialStoreError: the folder cannot be made or used.
        ValueError: a key is none.
    """

    is_writable = True

    def __init__(self, path: Path, keys: Sequence[str], *, poll_seconds: float = POLL_SECONDS) -> None:
        self.folder = SealedFolder(path, keys)
        self._poll_seconds = poll_seconds
        self._stops: set[asyncio.Event] = set()

    @property
    def trouble(self) -> str | None:
        """``CredentialStore.trouble``."""
        return self.folder.trouble

    async def names(self) -> tuple[str, ...]:
        """``CredentialStore.names``."""
        return await asyncio.to_thread(self._names)

    async def read(self, name: str, revision: str | None = None) -> Credential:
        """``CredentialStore.read``."""
        return await asyncio.to_thread(self._read, name, revision)

    async def write(self, name: str, bundle: Bundle) -> Credential:
        """``CredentialStore.write``."""
        return await asyncio.to_thread(self._write, name, bundle)

    async def delete(self, name: str) -> None:
        """``CredentialStore.delete``."""
        await asyncio.to_thread(self._delete, name)

    async def active(self) -> Activation | None:
        """``CredentialStore.active``."""
        return _active_of(await asyncio.to_thread(self._activations))

    async def history(self) -> tuple[Activation, ...]:
        """``CredentialStore.history``."""
        return tuple(await asyncio.to_thread(self._activations))

    async def record(self, activation: Activation) -> None:
        """``CredentialStore.record``."""
        await asyncio.to_thread(self._record, activation)

    async def watch(self) -> AsyncGenerator[Change, None]:
        """``CredentialStore.watch``."""
        before: Traces | None = None
        stop = asyncio.Event()
        self._stops.add(stop)
        try:
            async with aclosing(wake_ups(self.folder.path, stop, poll_seconds=self._poll_seconds)) as moments:
                async for _ in moments:
                    now = await asyncio.to_thread(self._look)
                    if now is None:
                        continue
                    change = _difference(before, now)
                    before = now
                    if change is not None:
                        yield change
        finally:
            self._stops.discard(stop)

    async def close(self) -> None:
        """``CredentialStore.close``."""
        for stop in self._stops:
            stop.set()

    def _look(self) -> Traces | None:
        """What is there, each file tried, so that what cannot be opened is known before it is needed."""
        traces = self.folder.look()
        for file in traces or ():
            if _name_of(file) is not None or file == ACTIVATIONS:
                with suppress(CredentialStoreError):  # which the folder tells
                    self.folder.load(file)
        return traces

    def _names(self) -> tuple[str, ...]:
        traces = self._look()
        if traces is None:
            raise CredentialStoreError(self.trouble)
        return tuple(sorted(name for file in traces if (name := _name_of(file)) is not None))

    def _read(self, name: str, revision: str | None) -> Credential:
        if not is_credential_name(name):
            raise CredentialNotFoundError(f"there is no credential {name!r}")
        trouble: CredentialUnreadableError | None = None
        newest: Credential | None = None
        try:
            newest = self._version(name, f"{name}{_CREDENTIAL}")
        except CredentialUnreadableError as error:
            trouble = error
        if newest is not None and revision in {None, newest.revision}:
            return newest
        if newest is None and trouble is None:
            raise CredentialNotFoundError(f"there is no credential {name!r}")
        # What is replaced while this runs is kept first: it is found in one of the two.
        found = self._version(name, _kept(name, revision)) if revision and _is_revision(revision) else None
        if found is not None and found.revision == revision:
            return found
        raise trouble or CredentialNotFoundError(
            f"the credential {name!r} has no version {revision!r} any more"
        )

    def _version(self, name: str, file: str) -> Credential | None:
        """What a file has, whose name is of a sound form; None where there is no such file."""
        document = self.folder.load(file)
        if document is None:
            return None
        try:
            if document["name"] != name:
                raise CredentialUnreadableError(
                    f"{self.folder.path / file} holds the credential {document['name']!r}: it was renamed or "
                    "put there by hand; store the credential anew"
                )
            bundle = restore_bundle(document["bundle"].encode(), name=name)
            stored_at = datetime.fromisoformat(document["stored_at"])
        except (TLSError, KeyError, TypeError, ValueError, AttributeError):
            raise CredentialUnreadableError(self.folder.foreign(file)) from None
        return Credential(name, bundle, revision_of(bundle), stored_at)

    def _write(self, name: str, bundle: Bundle) -> Credential:
        check_credential_name(name)
        if bundle.certificate is None and not bundle.authorities:
            raise ValueError(f"the credential {name!r} would be empty")
        written = Credential(name, bundle, revision_of(bundle), datetime.now(UTC))
        file = f"{name}{_CREDENTIAL}"
        with self.folder.locked():
            try:
                current = self._version(name, file)
            except CredentialUnreadableError:
                current = None  # and so lost already
            if current is not None:
                if current.revision == written.revision:
                    return current
                active = _active_of(self._activations())
                if active is not None and (active.name, active.revision) == (name, current.revision):
                    self.folder.link(file, _kept(name, current.revision))
            document = {
                "name": name,
                "stored_at": written.stored_at.isoformat(),
                "bundle": bundle.dump().decode(),
            }
            self.folder.save(file, document)
        return self._read_back(written)

    def _read_back(self, written: Credential) -> Credential:
        """What was written as ``read`` gives it: its parts are known by the credential's name."""
        bundle = restore_bundle(written.bundle.dump(), name=written.name)
        return Credential(written.name, bundle, written.revision, written.stored_at)

    def _delete(self, name: str) -> None:
        file = f"{name}{_CREDENTIAL}"
        with self.folder.locked():
            traces = self.folder.traces()
            if not is_credential_name(name) or file not in traces:
                raise CredentialNotFoundError(f"there is no credential {name!r}")
            active = _active_of(self._activations())
            if active is not None and active.name == name:
                raise CredentialActiveError(
                    f"the credential {name!r} is in use; activate another one before you delete it"
                )
            self.folder.remove(file, *(each for each in traces if _is_kept_of(each, name)))

    def _activations(self) -> list[Activation]:
        document = self.folder.load(ACTIVATIONS)
        try:
            return [
                Activation(**{**each, "at": datetime.fromisoformat(each["at"])}) for each in document or ()
            ]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CredentialUnreadableError(self.folder.foreign(ACTIVATIONS)) from None

    def _record(self, activation: Activation) -> None:
        with self.folder.locked():
            if activation.outcome == "active":
                # It is there, and stays there under the lock.
                self._read(activation.name, activation.revision)
            known = [activation, *self._activations()]
            kept = known[:HISTORY]
            active = _active_of(known)
            if active is not None and active not in kept:
                kept[-1] = active
            self.folder.save(ACTIVATIONS, [{**asdict(each), "at": each.at.isoformat()} for each in kept])
            in_use = "" if active is None else _kept(active.name, active.revision)
            unused = [each for each in self.folder.traces() if each.endswith(_KEPT) and each != in_use]
            if unused:
                self.folder.remove(*unused)


def is_content(file: str) -> bool:
    """Whether a file of this name is one that the store wrote."""
    return _name_of(file) is not None or file == ACTIVATIONS or file.endswith(_KEPT)


def _kept(name: str, revision: str) -> str:
    """The file of a version that is in use and no longer the newest."""
    return f"{name}.{revision}{_KEPT}"


def _is_kept_of(file: str, name: str) -> bool:
    return file.startswith(f"{name}.") and file.endswith(_KEPT)


def _name_of(file: str) -> str | None:
    """The credential whose newest version a file is."""
    name = file.removesuffix(_CREDENTIAL)
    return name if name != file and is_credential_name(name) else None


def _active_of(activations: Sequence[Activation]) -> Activation | None:
    return next((each for each in activations if each.outcome == "active"), None)


def _difference(before: Traces | None, now: Traces) -> Change | None:
    known = before or {}
    files = {file for file in known.keys() | now.keys() if known.get(file) != now.get(file)}
    names = frozenset(name for file in files if (name := _name_of(file)) is not None)
    has_activation = ACTIVATIONS in files or before is None
    return Change(names, has_activation) if names or has_activation else None
