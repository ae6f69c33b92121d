"""From an upload, or from whatever else a stranger had a hand in, to a checked bundle.

Rules:

1. It is read in a process of its own, which has seconds and a bounded memory, and knows no setting. Reading a
   key can take minutes, by numbers in the file that are encrypted themselves or by the length of the key, and
   the library that does it lets no other thread run: the bridge would stand still.
2. Two are read at once; the next waits for its turn.
3. What comes back is the key in the clear, through a pipe, and is nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.credentials.reading import as_request
from tidegate.bundles import Bundle, Validity, restore_bundle
from tidegate.errors import TLSError

SECONDS: Final = 10
"""Of processor time. An RSA key of 8,192 bits takes four."""
AT_ONCE: Final = 2

_WAIT_FACTOR: Final = 4  # on a busy machine, a second of processor time takes longer
_OUT_OF_TIME: Final = (-signal.SIGXCPU, -signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Taken:
    """A bundle that was taken.

    Attributes:
        bundle: it has what was asked for, and is checked.
        warnings: what is to be said about it, each a sentence: that it has expired, for example.
    """

    bundle: Bundle
    warnings: tuple[str, ...] = ()


class Intake:
    """Takes bundles.

    Args:
        seconds: of processor time that reading one may take.
    """

    def __init__(self, *, seconds: int = SECONDS) -> None:
        self._seconds = seconds
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def take_content(
        self,
        content: bytes,
        *,
        name: str = "the bundle",
        passphrase: str = "",
        key_setting: str = "passphrase",
        validity: Validity = "refuse",
    ) -> Taken:
        """Take a ZIP, or a file in PEM, PKCS#12, DER or JSON, as ``tidegate.bundles.read_bundle`` does.

        Raises:
            TLSError: it cannot be used, or takes too long to read.
        """
        options = {
            "content": content,
            "name": name,
            "passphrase": passphrase,
            "key_setting": key_setting,
            "validity": validity,
        }
        return await self._take("content", options, name)

    async def take_parts(
        self,
        *,
        ca: str | bytes | None = None,
        certificate: str | bytes | None = None,
        private_key: str | bytes | None = None,
        passphrase: str = "",
        validity: Validity = "refuse",
    ) -> Taken:
        """Take parts that were told apart, as ``tidegate.bundles.bundle_of_parts`` does.

        Raises:
            TLSError: they cannot be used, or take too long to read.
        """
        options = {
            "ca": ca,
            "certificate": certificate,
            "private_key": private_key,
            "passphrase": passphrase,
            "validity": validity,
        }
        return await self._take("parts", options, "the bundle")

    async def take_files(
        self,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        passphrase: str = "",
        validity: Validity = "refuse",
    ) -> Taken:
        """Take files that were told apart, as ``tidegate.bundles.bundle_of_files`` does.

        Raises:
            TLSError: they cannot be used, or take too long to read.
        """
        files = {"ca": ca, "certificate": certificate, "key": key}
        options = {name: None if path is None else str(path) for name, path in files.items()}
        place = next((path for path in options.values() if path is not None), "the bundle")
        return await self._take("files", {**options, "passphrase": passphrase, "validity": validity}, place)

    async def take_path(
        self,
        path: Path,
        *,
        passphrase: str = "",
        key_setting: str = "passphrase",
        validity: Validity = "refuse",
    ) -> Taken:
        """Take a directory or a file, as ``tidegate.bundles.load_bundle`` does.

        Raises:
            TLSError: it cannot be used, or takes too long to read.
        """
        options = {
            "path": str(path),
            "passphrase": passphrase,
            "key_setting": key_setting,
            "validity": validity,
        }
        return await self._take("path", options, str(path))

    async def _take(self, kind: str, options: dict[str, Any], place: str) -> Taken:
        request = await asyncio.to_thread(as_request, kind, options)
        async with self._turns:
            answer = await self._ask(request, place)
        return await asyncio.to_thread(_taken, answer)

    async def _ask(self, request: bytes, place: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "app.credentials.reading",
            str(self._seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
        answer = b""
        try:
            async with asyncio.timeout(self._seconds * _WAIT_FACTOR):
                answer, _ = await process.communicate(request)
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode in _OUT_OF_TIME:
            raise TLSError(
                f"{place} takes more than {self._seconds} seconds to read, or more memory than there is; "
                "is its key very long, or encrypted with a great many rounds?",
                file=place,
            )
        if process.returncode:
            raise TLSError(
                f"{place} cannot be read: it is damaged, or takes more memory than any certificate or key",
                file=place,
            )
        return answer


def _environment() -> dict[str, str]:
    """This process's, without the settings, which hold secrets."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("TIDEGATE_")}


def _taken(answer: bytes) -> Taken:
    found: dict[str, Any] = json.loads(answer)
    if "error" in found:
        raise TLSError(found["error"], file=found["file"])
    bundle = restore_bundle(found["bundle"].encode(), name=found["place"])
    return Taken(replace(bundle, ignored=tuple(found["ignored"])), tuple(found["warnings"]))
