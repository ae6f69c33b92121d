"""A store of credentials survives the death of whoever writes, at whatever moment it comes."""

from __future__ import annotations

from pathlib import Path

from app.credentials.folder_store import FolderStore
from app.credentials.rekeying import rekey
from app.credentials.store import revision_of
from tests.support.credentials import KEY, OLD_KEY, activation, files_of, one, run_program, two

PROGRAM = "tests.support.store_crashes"


async def test_a_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """The store is readable after each, and has the last version that was promised, or the one after it."""
    path = tmp_path / "credentials"
    result = run_program(PROGRAM, "writers", str(path), KEY, "100", "7")
    assert [] == result["lost"]
    assert result["leftovers"] > 0, "no kill came in the middle of a write"
    store = FolderStore(path, [KEY])
    await store.write("another", two())
    assert {"plant.credential", "another.credential", "activations"} == set(files_of(path))


async def test_rekeying_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Everything can be read all the time with both keys, and at last with the new one alone."""
    path = tmp_path / "credentials"
    store = FolderStore(path, [OLD_KEY])
    for number in range(20):
        await store.write(f"plant-{number}", one() if number % 2 else two())
    await store.record(activation(await store.read("plant-0")))
    result = run_program(PROGRAM, "rekeying", str(path), KEY, OLD_KEY)
    assert result["kills"] > 10
    assert 0 == result["broken"]
    assert () == rekey(FolderStore(path, [KEY, OLD_KEY])).changed
    store = FolderStore(path, [KEY])
    assert 20 == len(await store.names())
    assert None is store.trouble
    assert revision_of(two()) == (await store.read("plant-0")).revision
    assert 1 == len(await store.history())


async def test_of_a_crowd_of_writers_the_last_one_wins_whole(tmp_path: Path) -> None:
    """Nobody reads a mixture, and what each of them recorded is there."""
    path = tmp_path / "credentials"
    result = run_program(PROGRAM, "crowd", str(path), KEY, "6")
    assert 30 == len(result["seen"])
    assert 2 == len(set(result["seen"]))
    recorded = {each.reason for each in await FolderStore(path, [KEY]).history()}
    assert {f"{number}.{step}" for number in range(6) for step in range(5)} == recorded
    assert {"plant.credential", "activations"} == set(files_of(path))
