"""Keys at rest are changed: what was encrypted with an old one is encrypted with the first."""

from __future__ import annotations

from pathlib import Path

from app.credentials.folder_store import FolderStore
from app.credentials.rekeying import Rekeyed, rekey
from app.credentials.store import revision_of
from tests.support.credentials import KEY, OLD_KEY, activation, files_of, modes_of, one, two


async def test_everything_is_encrypted_with_the_first_key(tmp_path: Path) -> None:
    """Credentials, the version in use, and what was recorded; the contents stay as they were."""
    old = FolderStore(tmp_path, [OLD_KEY])
    first = await old.write("plant", one())
    await old.record(activation(first))
    await old.write("plant", two())
    kept = f"plant.{first.revision}.kept"
    done = rekey(FolderStore(tmp_path, [KEY, OLD_KEY]))
    assert Rekeyed(tuple(sorted(("activations", "plant.credential", kept))), (), ()) == done
    new = FolderStore(tmp_path, [KEY])
    assert revision_of(two()) == (await new.read("plant")).revision
    assert one().dump() == (await new.read("plant", first.revision)).bundle.dump()
    assert first.stored_at == (await new.read("plant", first.revision)).stored_at
    assert {0o600} == {mode for name, mode in modes_of(tmp_path).items() if name != "."}


async def test_what_is_done_is_passed_over(tmp_path: Path) -> None:
    """Nothing is written twice."""
    await FolderStore(tmp_path, [OLD_KEY]).write("old", one())
    await FolderStore(tmp_path, [KEY]).write("new", two())
    store = FolderStore(tmp_path, [KEY, OLD_KEY])
    assert Rekeyed(("old.credential",), ("new.credential",), ()) == rekey(store)
    before = files_of(tmp_path)
    assert Rekeyed((), ("new.credential", "old.credential"), ()) == rekey(store)
    assert before == files_of(tmp_path)


async def test_what_cannot_be_opened_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    """It stays as it is, for the key that may be found yet; strange files are nobody's business."""
    await FolderStore(tmp_path, [OLD_KEY]).write("lost", one())
    (tmp_path / "damaged.credential").write_bytes(b"damaged")
    (tmp_path / "README").write_bytes(b"strange")
    before = files_of(tmp_path)
    store = FolderStore(tmp_path, [KEY])
    await store.write("plant", two())
    done = rekey(store)
    assert ((), ("plant.credential",)) == (done.changed, done.passed)
    damaged, lost = done.failed
    assert f"{tmp_path / 'damaged.credential'} is damaged" in damaged
    assert f"{tmp_path / 'lost.credential'} cannot be decrypted" in lost
    assert before.items() <= files_of(tmp_path).items()
