"""A folder of sealed documents: JSON, encrypted, a file for each."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.credentials.folder import Folder, Traces
from app.credentials.seal import Seal, SealBrokenError
from app.credentials.store import CredentialStoreError, CredentialUnreadableError

logger = logging.getLogger("tidegate.credentials")


class SealedFolder(Folder):
    """The folder, and what is wrong with it.

    Args:
        path: where it is; it is made where there is none.
        keys: Fernet keys, the newest first.

    Raises:
        CredentialStoreError: it cannot be made or used.
        ValueError: a key is none.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        super().__init__(path)
        self.seal = Seal(keys)
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """What is wrong, in words, as far as it was met."""
        troubles = dict(self._troubles)
        return "; ".join(troubles[file] for file in sorted(troubles)) or None

    def load(self, file: str) -> Any:
        """A document; None where there is no such file.

        Raises:
            CredentialUnreadableError: it cannot be read.
        """
        try:
            sealed = self.read(file)
            document = None if sealed is None else json.loads(self.seal.open_up(sealed))
        except (SealBrokenError, CredentialStoreError, ValueError) as error:
            text = str(error)
            if isinstance(error, SealBrokenError):
                text = f"{self.path / file} {error}"
            elif isinstance(error, ValueError):
                text = self.foreign(file)
            self._tell(file, text)
            raise CredentialUnreadableError(text) from None
        self._tell(file, None)
        return document

    def save(self, file: str, document: Any) -> None:
        """Put a document there; under the lock.

        Raises:
            CredentialStoreError: it cannot be written.
        """
        self.write(file, self.seal.close_up(json.dumps(document).encode()))
        self._tell(file, None)

    def look(self) -> Traces | None:
        """What is there; None where that cannot be told, which then is the trouble."""
        try:
            traces = self.traces()
        except CredentialStoreError as error:
            self._tell("", str(error))
            return None
        self._tell("", None)
        for file in self._troubles.keys() - traces.keys():
            self._tell(file, None)
        return traces

    def foreign(self, file: str) -> str:
        """What to say of a document that has other members than ours."""
        return f"{self.path / file} is of another version of Tidegate, or of another program"

    def _tell(self, file: str, trouble: str | None) -> None:
        """Remember what is wrong with a file, and log it once."""
        if trouble is None:
            self._troubles.pop(file, None)
        elif self._troubles.get(file) != trouble:
            self._troubles[file] = trouble
            logger.error("%s", trouble)
