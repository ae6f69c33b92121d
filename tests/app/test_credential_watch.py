"""Whoever watches a store sees every change, whoever makes it, and whether the file system tells or not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from app.credentials import watching as watching_module
from app.credentials.folder_store import FolderStore
from app.credentials.store import Change
from tests.support.command import run_command
from tests.support.credentials import KEY, NEVER_POLLS, OLD_KEY, TWO, activation, one, two, watching

SECONDS = 30.0


async def following(changes: AsyncGenerator[Change, None]) -> Change:
    """The next change."""
    return await asyncio.wait_for(anext(changes), SECONDS)


async def until_told_of(changes: AsyncGenerator[Change, None], *names: str) -> None:
    """Go on until all of these were named, in one change or in several."""
    missing = set(names)
    async with asyncio.timeout(SECONDS):
        while missing:
            missing -= (await anext(changes)).names


async def test_the_first_change_names_all_there_is(tmp_path: Path) -> None:
    """Also where that is nothing: whoever watches has a beginning."""
    store = FolderStore(tmp_path, [KEY])
    async with aclosing(store.watch()) as changes:
        assert Change(frozenset(), has_activation=True) == await following(changes)
    await store.write("a", one())
    await store.write("b", two())
    async with aclosing(store.watch()) as changes:
        assert Change(frozenset({"a", "b"}), has_activation=True) == await following(changes)


async def test_each_change_is_told(tmp_path: Path) -> None:
    """A new credential, a new version, an activation, a deletion; the file system tells of them."""
    store = FolderStore(tmp_path, [KEY], poll_seconds=NEVER_POLLS)
    async with watching(store) as changes:
        written = await store.write("a", one())
        assert Change(frozenset({"a"}), has_activation=False) == await following(changes)
        await store.write("a", two())
        assert Change(frozenset({"a"}), has_activation=False) == await following(changes)
        await store.record(activation(written, "failed"))
        assert Change(frozenset(), has_activation=True) == await following(changes)
        await store.delete("a")
        assert Change(frozenset({"a"}), has_activation=False) == await following(changes)


async def test_what_changes_nothing_is_not_told(tmp_path: Path) -> None:
    """The same content again, a strange file, half a file."""
    store = FolderStore(tmp_path, [KEY], poll_seconds=NEVER_POLLS)
    await store.write("a", one())
    async with watching(store) as changes:
        await store.write("a", one())
        (tmp_path / "README").touch()
        (tmp_path / ".new-7").touch()
        await store.write("b", two())
        assert Change(frozenset({"b"}), has_activation=False) == await following(changes)


async def test_replicas_see_what_another_process_does(tmp_path: Path) -> None:
    """Two replicas over one folder, and a command beside them."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(TWO)
    path = tmp_path / "credentials"
    first = FolderStore(path, [KEY], poll_seconds=NEVER_POLLS)
    second = FolderStore(path, [KEY], poll_seconds=NEVER_POLLS)
    settings = {"TIDEGATE_CREDENTIALS_DIR": str(path), "TIDEGATE_CREDENTIALS_KEY": KEY}
    async with watching(first) as changes, watching(second) as others:
        command = ("credentials", "add", "plant", str(bundle))
        done = await asyncio.to_thread(run_command, *command, settings=settings)
        assert 0 == done.returncode, done.stderr
        for seen in (changes, others):
            assert Change(frozenset({"plant"}), has_activation=False) == await following(seen)
        credential = await first.read("plant")
        assert credential.revision == (await second.read("plant")).revision
        await second.record(activation(credential))
        for seen in (changes, others):
            assert Change(frozenset(), has_activation=True) == await following(seen)
        assert await first.active() == await second.active()


@pytest.mark.parametrize("fault", ["silent", "no watches left"])
async def test_changes_are_seen_where_the_file_system_tells_of_none(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with one that is mounted over a network, or where inotify has nothing left to give."""

    async def awatch(
        path: Path, *, stop_event: asyncio.Event, **options: Any
    ) -> AsyncGenerator[set[Any], None]:
        if fault == "no watches left":
            raise OSError(28, "OS file watch limit reached")
        while not stop_event.is_set():
            await asyncio.sleep(options["rust_timeout"] / 1000)
            yield set()

    monkeypatch.setattr(watching_module, "awatch", awatch)
    store = FolderStore(tmp_path, [KEY], poll_seconds=0.01)
    async with watching(store) as changes:
        await FolderStore(tmp_path, [KEY]).write("a", one())
        assert Change(frozenset({"a"}), has_activation=False) == await following(changes)


async def test_a_folder_that_goes_away_and_comes_back_is_followed(tmp_path: Path) -> None:
    """A network file system that is mounted anew; meanwhile that is the trouble."""
    path = tmp_path / "credentials"
    store = FolderStore(path, [KEY], poll_seconds=0.01)
    await store.write("a", one())
    async with watching(store) as changes:
        shutil.move(path, tmp_path / "away")
        await FolderStore(path, [KEY]).write("b", two())
        await until_told_of(changes, "a", "b")
        shutil.move(path, tmp_path / "gone")
        back = asyncio.ensure_future(until_told_of(changes, "c"))
        while store.trouble is None:
            await asyncio.sleep(0.01)
        assert f"the folder {path} cannot be read" in str(store.trouble)
        shutil.move(tmp_path / "gone", path)
        await FolderStore(path, [KEY]).write("c", two())
        await back
    assert not store.trouble


async def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """Nobody has to start a watch again."""
    path = tmp_path / "credentials"
    store = FolderStore(path, [KEY], poll_seconds=0.01)
    path.rmdir()
    async with aclosing(store.watch()) as changes:
        there = asyncio.ensure_future(until_told_of(changes, "a"))
        while store.trouble is None:
            await asyncio.sleep(0.01)
        await FolderStore(path, [KEY]).write("a", one())
        await there


async def test_what_another_replica_wrote_with_a_key_that_is_missing_here_is_trouble(tmp_path: Path) -> None:
    """It is told as soon as it is there, before anybody reads it."""
    store = FolderStore(tmp_path, [KEY], poll_seconds=NEVER_POLLS)
    async with watching(store) as changes:
        await FolderStore(tmp_path, [OLD_KEY]).write("a", one())
        assert Change(frozenset({"a"}), has_activation=False) == await following(changes)
        assert "a.credential cannot be decrypted" in str(store.trouble)


async def test_watching_ends_with_the_store(tmp_path: Path) -> None:
    """All who watch are through, and one who stops on his own ends nobody else's watch."""
    store = FolderStore(tmp_path, [KEY], poll_seconds=NEVER_POLLS)
    async with watching(store) as kept, watching(store) as stopped:
        await stopped.aclose()
        await store.write("a", one())
        assert Change(frozenset({"a"}), has_activation=False) == await following(kept)
        waiting = asyncio.ensure_future(anext(kept, None))
        await asyncio.sleep(0)
        await store.close()
        assert None is await asyncio.wait_for(waiting, SECONDS)


async def test_a_watch_that_is_cancelled_ends_at_once(tmp_path: Path) -> None:
    """No thread holds the process up."""
    store = FolderStore(tmp_path, [KEY], poll_seconds=NEVER_POLLS)
    async with watching(store) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, SECONDS)
