"""Stores of credentials, and programs of other processes that work on the same folder."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.fernet import Fernet

from app.credentials.folder_store import FolderStore
from app.credentials.store import Activation, Change, Credential, Outcome
from tests.support.bundles import DEVICE, DIRECT, INTERMEDIATE, ROOT
from tests.support.command import ROOT as TREE
from tests.support.command import SECONDS, environment
from tidegate.bundles import Bundle, read_bundle

OLD_KEY: Final = Fernet.generate_key().decode()
KEY: Final = Fernet.generate_key().decode()

ONE: Final = DEVICE.key() + DEVICE.pem + INTERMEDIATE.pem + ROOT.pem
TWO: Final = DIRECT.key() + DIRECT.pem + ROOT.pem
NEVER_POLLS: Final = 3600.0


def one() -> Bundle:
    """A certificate with its chain, its key and an authority."""
    return read_bundle(ONE)


def two() -> Bundle:
    """Another."""
    return read_bundle(TWO)


def activation(credential: Credential, outcome: Outcome = "active", reason: str = "") -> Activation:
    """That somebody took it into use, or tried to."""
    return Activation(credential.name, credential.revision, datetime.now(UTC), outcome, reason, "somebody")


def run_program(program: str, *arguments: str) -> Any:
    """Run a module of these tests in a process of its own; returns what it wrote, which is JSON."""
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        env=environment(),
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=SECONDS * 3,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@asynccontextmanager
async def watching(store: FolderStore) -> AsyncIterator[AsyncGenerator[Change, None]]:
    """The changes of a store, of which the first has come already."""
    changes = store.watch()
    try:
        first = await anext(changes)
        assert first.has_activation
        yield changes
    finally:
        await changes.aclose()


def files_of(path: Path) -> dict[str, bytes]:
    """All files of a folder, also hidden ones, but not the lock."""
    return {each.name: each.read_bytes() for each in path.iterdir() if each.name != ".lock"}


def modes_of(path: Path) -> dict[str, int]:
    """Who may do what with a folder, which is ".", and with each of its files."""
    found = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.iterdir()}
    return {".": stat.S_IMODE(path.stat().st_mode), **found}
