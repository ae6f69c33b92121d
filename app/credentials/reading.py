"""The process that reads a bundle of a stranger's: ``python -m app.credentials.reading SECONDS``.

A request comes in by stdin and the answer goes out by stdout, both as JSON. The process bounds itself first,
in processor time and in memory, and leaves no core behind, which would have the key in it.
"""

from __future__ import annotations

import base64
import json
import logging
import resource
import sys
from collections.abc import Callable
from typing import Any, Final

from tidegate.bundles import Bundle, bundle_of_files, bundle_of_parts, load_bundle, read_bundle
from tidegate.errors import TLSError

MEMORY_BYTES: Final = 1_073_741_824
"""Address space, most of it libraries; scrypt may take 128 MiB of it."""

_READERS: Final[dict[str, Callable[..., Bundle]]] = {
    "content": read_bundle,
    "parts": bundle_of_parts,
    "files": bundle_of_files,
    "path": load_bundle,
}


class _Warnings(logging.Handler):
    """Keeps what the SDK warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.texts.append(record.getMessage())


def as_request(kind: str, options: dict[str, Any]) -> bytes:
    """A request: which reader, and its arguments; ``answer_of`` reads it."""
    plain = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in options.items()
    }
    return json.dumps({"kind": kind, "options": plain}).encode()


def answer_of(request: bytes) -> dict[str, Any]:
    """What comes of it: ``bundle``, ``place``, ``ignored`` and ``warnings``, or ``error`` and ``file``."""
    document: Any = json.loads(request)
    options = {
        name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value
        for name, value in document["options"].items()
    }
    warnings = _Warnings()
    logger = logging.getLogger("tidegate")
    logger.addHandler(warnings)
    try:
        bundle = _READERS[document["kind"]](**options)
    except TLSError as error:
        return {"error": str(error), "file": error.file}
    finally:
        logger.removeHandler(warnings)
    return {
        "bundle": bundle.dump().decode(),
        "place": bundle.place,
        "ignored": list(bundle.ignored),
        "warnings": warnings.texts,
    }


def bound(seconds: int) -> None:
    """Bound this process: a signal ends it after so many seconds of processor time."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    bound(int(sys.argv[1]))
    sys.stdout.write(json.dumps(answer_of(sys.stdin.buffer.read())))
