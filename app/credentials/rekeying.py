"""Encrypting anew: all that a folder holds, with the first of the keys.

Rules:

1. Each file is done in one step, under the lock. What is done already is passed over, so that one that was
   interrupted goes on where it ended, and bridges go on meanwhile.
2. Those bridges have to know the new key by then, behind which the old one stays until this is through.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.credentials.folder_store import FolderStore, is_content
from app.credentials.seal import SealBrokenError
from app.credentials.store import CredentialStoreError


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What became of the files.

    Attributes:
        changed: those that were encrypted anew.
        passed: those that had the first key already.
        failed: what is wrong with the others, in words.
    """

    changed: tuple[str, ...]
    passed: tuple[str, ...]
    failed: tuple[str, ...]


def rekey(store: FolderStore) -> Rekeyed:
    """Encrypt everything with the first key.

    Raises:
        CredentialStoreError: the folder cannot be read or written.
    """
    changed: list[str] = []
    passed: list[str] = []
    failed: list[str] = []
    for file in sorted(store.folder.traces()):
        if not is_content(file):
            continue
        with store.folder.locked():
            try:
                sealed = store.folder.read(file)
                if sealed is None:
                    continue
                if store.folder.seal.is_newest(sealed):
                    passed.append(file)
                    continue
                content = store.folder.seal.open_up(sealed)
            except SealBrokenError as error:
                failed.append(f"{store.folder.path / file} {error}")
                continue
            except CredentialStoreError as error:
                failed.append(str(error))
                continue
            store.folder.write(file, store.folder.seal.close_up(content))
        changed.append(file)
    return Rekeyed(tuple(changed), tuple(passed), tuple(failed))
