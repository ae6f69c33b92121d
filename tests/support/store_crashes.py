"""Programs that work on a folder of credentials and are killed, or do it all at once; each writes JSON.

They fork, so that a hundred processes take no longer than one to start:

    python -m tests.support.store_crashes writers FOLDER KEY ROUNDS SEED
    python -m tests.support.store_crashes rekeying FOLDER NEW_KEY OLD_KEY
    python -m tests.support.store_crashes crowd FOLDER KEY PROCESSES
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from app.credentials.folder_store import FolderStore
from app.credentials.rekeying import rekey
from app.credentials.store import revision_of
from tests.support.bundles import OTHER_ROOT, ROOT
from tests.support.credentials import activation, one, two
from tidegate.bundles import read_bundle

NAME = "plant"
CONTENTS = (one(), two(), read_bundle(ROOT.pem), read_bundle(OTHER_ROOT.pem))
ORDER = [revision_of(each) for each in CONTENTS]


def start(work: Callable[[int], object]) -> tuple[int, int]:
    """Run this in a process of its own; returns its id, and a pipe that it may write to."""
    reads, writes = os.pipe()
    child = os.fork()
    if child:
        os.close(writes)
        return child, reads
    os.close(reads)
    try:
        work(writes)
    finally:
        os._exit(0)


def write_on_and_on(path: Path, key: str, pipe: int) -> NoReturn:
    """Write contents in turn, and say after each that it is kept."""
    store = FolderStore(path, [key])

    async def work() -> NoReturn:
        while True:
            for content in CONTENTS:
                credential = await store.write(NAME, content)
                await store.record(activation(credential, "failed"))
                os.write(pipe, f"{credential.revision}\n".encode())

    asyncio.run(work())


def kill_writers(path: Path, key: str, rounds: int, seed: int) -> dict[str, Any]:
    """Kill a process that writes, at any moment, again and again; returns what was found after each."""
    chance = random.Random(seed)
    lost: list[int] = []
    leftovers = 0
    for number in range(rounds):
        child, pipe = start(lambda writes: write_on_and_on(path, key, writes))
        with os.fdopen(pipe, "rb") as said:
            told = [said.readline() for _ in range(chance.randint(1, 3))]
            time.sleep(chance.uniform(0, 0.01))  # the moment of a crash, not a wait for anything
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            told += said.read().splitlines(keepends=True)
        store = FolderStore(path, [key])
        found = asyncio.run(store.read(NAME))
        history = asyncio.run(store.history())
        # What was in flight may be there or not; what was acknowledged is, or the one written after it.
        last = ORDER.index(told[-1].decode().strip())
        allowed = {ORDER[last], ORDER[(last + 1) % len(ORDER)]}
        if not {found.revision, history[0].revision} <= allowed:
            lost.append(number)
        if store.trouble or asyncio.run(store.names()) != (NAME,):
            lost.append(number)
        leftovers += sum(each.name.startswith(".new-") for each in path.iterdir())
    return {"lost": lost, "leftovers": leftovers}


def kill_rekeying(path: Path, new: str, old: str) -> dict[str, Any]:
    """Kill a process that encrypts anew at each of its steps, until one comes through; returns how often."""

    def work(_: int, step: int) -> None:
        steps = 0
        fsync = os.fsync

        def fsync_or_die(descriptor: int) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        setattr(os, "fsync", fsync_or_die)  # noqa: B010 - its own name for the argument differs
        rekey(FolderStore(path, [new, old]))

    kills, broken = 0, 0
    while True:
        child, pipe = start(partial(work, step=kills % 5 + 1))
        os.close(pipe)
        _, status = os.waitpid(child, 0)
        store = FolderStore(path, [new, old])
        asyncio.run(store.names())  # which opens every file
        broken += store.trouble is not None
        if not os.WIFSIGNALED(status):
            return {"kills": kills, "broken": broken}
        kills += 1


def crowd(path: Path, key: str, processes: int) -> dict[str, Any]:
    """Several processes write and record at once; returns what each of them recorded."""

    def work(pipe: int, number: int) -> None:
        store = FolderStore(path, [key])

        async def steps() -> None:
            for step in range(5):
                credential = await store.write(NAME, one() if (number + step) % 2 else two())
                await store.record(activation(credential, "failed", f"{number}.{step}"))
                found = await store.read(NAME)
                os.write(pipe, f"{found.revision}\n".encode())

        asyncio.run(steps())

    started = [start(partial(work, number=number)) for number in range(processes)]
    seen: list[str] = []
    for child, pipe in started:
        with os.fdopen(pipe, "rb") as said:
            seen += said.read().decode().split()
        os.waitpid(child, 0)
    return {"seen": seen}


if __name__ == "__main__":
    kind, folder, *rest = sys.argv[1:]
    if kind == "writers":
        result = kill_writers(Path(folder), rest[0], int(rest[1]), int(rest[2]))
    elif kind == "rekeying":
        result = kill_rekeying(Path(folder), rest[0], rest[1])
    else:
        result = crowd(Path(folder), rest[0], int(rest[1]))
    sys.stdout.write(json.dumps(result))
