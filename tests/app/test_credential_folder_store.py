"""Credentials in an encrypted folder: what is written is read, and nothing of it is seen by others."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import shutil
import stat
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.credentials import folder as folder_module
from app.credentials.folder_store import FolderStore
from app.credentials.seal import Seal
from app.credentials.store import (
    HISTORY,
    CredentialActiveError,
    CredentialNotFoundError,
    CredentialStoreError,
    CredentialUnreadableError,
    check_credential_name,
    is_credential_name,
    revision_of,
)
from tests.support.bundles import DEVICE, DIRECT, ROOT, SERVER, subjects
from tests.support.credentials import KEY, OLD_KEY, activation, files_of, modes_of, one, two
from tidegate.bundles import Bundle, read_bundle


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "credentials"


@pytest.fixture
def store(path: Path) -> FolderStore:
    """An empty store."""
    return FolderStore(path, [KEY])


async def test_what_is_written_is_read(store: FolderStore, path: Path) -> None:
    """By this store and by the next one, whole, with parts that are known by the credential's name."""
    written = await store.write("plant-7", one())
    read = None
    for reader in (store, FolderStore(path, [KEY])):
        read = await reader.read("plant-7")
        assert one().dump() == read.bundle.dump()
        assert (written.name, written.revision, written.stored_at) == (
            read.name,
            read.revision,
            read.stored_at,
        )
        assert ("plant-7",) == await reader.names()
        assert read.bundle.certificate is not None
        assert "plant-7!certificate" == read.bundle.certificate.source
        assert reader.trouble is None
    assert repr(written) == repr(read)


async def test_authorities_alone_are_a_credential(store: FolderStore) -> None:
    """A broker of a private authority may ask for no client certificate."""
    await store.write("ca", read_bundle(ROOT.pem))
    assert ("", [], ["CN=Plant Root"]) == subjects((await store.read("ca")).bundle)
    with pytest.raises(ValueError, match="'empty' would be empty"):
        await store.write("empty", Bundle("nothing"))


async def test_the_same_again_is_no_new_version(store: FolderStore) -> None:
    """Other content is; and the revision of a content is the same everywhere."""
    first = await store.write("plant", one())
    again = await store.write("plant", one())
    assert (first.revision, first.stored_at) == (again.revision, again.stored_at)
    other = await store.write("plant", two())
    assert other.stored_at > first.stored_at
    assert revision_of(one()) == first.revision != other.revision == revision_of(two())
    assert other.revision == (await store.read("plant")).revision


def test_a_revision_tells_contents_apart() -> None:
    """Also those of the same certificates in other roles."""
    bundles = [
        one(),
        two(),
        read_bundle(ROOT.pem),
        read_bundle(DEVICE.key() + DEVICE.pem),
        read_bundle(DIRECT.key() + DIRECT.pem),
        read_bundle(ROOT.pem + ROOT.key()),
    ]
    assert len(bundles) == len({revision_of(each) for each in bundles})


@settings(deadline=None)
@given(st.text(alphabet="ab9-.A/\n", max_size=5) | st.text(max_size=70))
def test_a_name_is_a_dns_label(text: str) -> None:
    """In lower case; what is none is refused in words."""
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    is_label = (
        0 < len(text) < 64 and set(text) <= letters and not (text.startswith("-") or text.endswith("-"))
    )
    assert is_label == is_credential_name(text)
    if not is_label:
        with pytest.raises(ValueError, match="1 to 63 lower-case letters, digits and hyphens"):
            check_credential_name(text)


@pytest.mark.parametrize("name", ["", "../plant", "Plant", "plant.credential", "-", "a" * 64, "a\0", ".lock"])
async def test_what_is_no_name_reaches_no_file(store: FolderStore, name: str) -> None:
    """Nothing is there under it, and nothing can be put there."""
    with pytest.raises(CredentialNotFoundError):
        await store.read(name)
    with pytest.raises(CredentialNotFoundError):
        await store.delete(name)
    with pytest.raises(ValueError, match="a credential's name"):
        await store.write(name, one())
    assert () == await store.names()


async def test_a_deleted_credential_is_gone(store: FolderStore, path: Path) -> None:
    """And so are its files; there is none to delete again."""
    await store.write("plant", one())
    await store.delete("plant")
    assert {} == files_of(path)
    for call in (store.read, store.delete):
        with pytest.raises(CredentialNotFoundError, match="there is no credential 'plant'"):
            await call("plant")


async def test_files_are_for_their_owner_alone(path: Path) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        store = FolderStore(path, [KEY])
        await store.write("plant", one())
        await store.record(activation(await store.read("plant")))
    finally:
        os.umask(before)
    assert {".": 0o700, "plant.credential": 0o600, "activations": 0o600, ".lock": 0o600} == modes_of(path)


def test_a_folder_that_others_may_look_into_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its mode and what to do; one that was made here is not."""
    FolderStore(path, [KEY])
    assert [] == caplog.records
    path.chmod(0o750)
    FolderStore(path, [KEY])
    assert f"others may look into the folder {path} (mode 750)" in caplog.text
    assert "chmod 700" in caplog.text


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o2775, ""), (0o1777, ""), (0o777, "anybody may remove files"), (0o2777, "chmod o-w")],
)
def test_a_folder_of_somebody_else_s_is_warned_of_where_anybody_may_write(
    path: Path, mode: int, words: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume with fsGroup is root's and open to the group of the pod, as it should be."""
    path.mkdir()
    path.chmod(mode)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    FolderStore(path, [KEY])
    assert bool(words) == bool(caplog.records)
    assert words in caplog.text
    assert "chmod 700" not in caplog.text


def test_a_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    """A file stands there, or there is no place for it."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CredentialStoreError, match=f"{file} is no directory"):
        FolderStore(file, [KEY])
    with pytest.raises(CredentialStoreError, match="cannot be used: No such file or directory"):
        FolderStore(tmp_path / "nowhere" / "credentials", [KEY])


async def test_nothing_can_be_read_on_the_disk(store: FolderStore, path: Path) -> None:
    """Neither a key nor the name of a certificate nor who activated it stands in any file."""
    await store.write("plant", one())
    await store.record(activation(await store.read("plant")))
    await store.write("plant", two())
    held = b"".join(files_of(path).values())
    held += b"".join(base64.urlsafe_b64decode(each) for each in files_of(path).values())
    for secret in (
        DEVICE.key().splitlines()[1],
        DIRECT.key().splitlines()[1],
        b"BEGIN",
        b"device",
        b"somebody",
    ):
        assert secret not in held


async def test_a_missing_key_is_told_and_keeps_nobody_from_the_rest(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file and the setting are named, in the error, in the trouble, and once in the log."""
    await FolderStore(path, [OLD_KEY]).write("old", one())
    await FolderStore(path, [KEY]).write("new", two())
    store = FolderStore(path, [KEY])
    for _ in range(3):
        with pytest.raises(CredentialUnreadableError) as caught:
            await store.read("old")
        assert f"{path / 'old.credential'} cannot be decrypted" in str(caught.value)
        assert "is missing from TIDEGATE_CREDENTIALS_KEY" in str(caught.value)
        assert str(caught.value) == store.trouble
    assert 1 == len(caplog.records)
    assert ("new", "old") == await store.names()
    assert "CN=device-8" == subjects((await store.read("new")).bundle)[0]
    await store.write("old", one())
    assert not store.trouble
    assert revision_of(one()) == (await store.read("old")).revision


async def test_names_find_what_cannot_be_opened(path: Path) -> None:
    """Before anybody needs it; and a file that is gone troubles nobody."""
    await FolderStore(path, [OLD_KEY]).write("old", one())
    store = FolderStore(path, [KEY])
    await store.names()
    assert "old.credential cannot be decrypted" in str(store.trouble)
    (path / "old.credential").unlink()
    await store.names()
    assert store.trouble is None


async def test_old_keys_open_and_the_first_one_closes(path: Path) -> None:
    """Which is how keys are changed without a pause."""
    await FolderStore(path, [OLD_KEY]).write("old", one())
    both = FolderStore(path, [KEY, OLD_KEY])
    assert revision_of(one()) == (await both.read("old")).revision
    await both.write("new", two())
    assert revision_of(two()) == (await FolderStore(path, [KEY]).read("new")).revision


@pytest.mark.parametrize("content", [b"", b"{}", b"\0\1\2", b"gAAAA"])
async def test_a_damaged_file_is_told(store: FolderStore, path: Path, content: bytes) -> None:
    """By its name; a new version mends it."""
    await store.write("plant", one())
    (path / "plant.credential").write_bytes(content)
    with pytest.raises(
        CredentialUnreadableError, match=r"plant\.credential (is damaged|cannot be decrypted)"
    ):
        await store.read("plant")
    await store.write("plant", one())
    assert revision_of(one()) == (await store.read("plant")).revision


async def test_a_file_that_was_put_in_place_of_another_is_not_believed(
    store: FolderStore, path: Path
) -> None:
    """Encryption alone does not tell one from another."""
    await store.write("plant", one())
    await store.write("other", two())
    (path / "other.credential").replace(path / "plant.credential")
    with pytest.raises(CredentialUnreadableError, match=r"plant\.credential holds the credential 'other'"):
        await store.read("plant")
    (path / "plant.credential").replace(path / "activations")
    with pytest.raises(CredentialUnreadableError, match="activations is of another version of Tidegate"):
        await store.active()


@pytest.mark.parametrize(
    "document",
    [b"no JSON", b"[]", b"7", b"{}", b'{"name": "plant", "bundle": "{}"}', b'{"name": "plant", "bundle": 7}'],
)
async def test_what_another_program_sealed_is_told(store: FolderStore, path: Path, document: bytes) -> None:
    """The key fits, and the content is strange."""
    (path / "plant.credential").write_bytes(Seal([KEY]).close_up(document))
    with pytest.raises(
        CredentialUnreadableError, match=r"plant\.credential is of another version of Tidegate"
    ):
        await store.read("plant")


async def test_strange_files_are_let_be(store: FolderStore, path: Path) -> None:
    """Whatever else lies in the folder is neither a credential nor touched."""
    strange = ("README", "Plant.credential", ".credential", "plant.credential.bak")
    for name in strange:
        (path / name).write_text("strange")
    (path / "folder.credential").mkdir()
    await store.write("plant", one())
    assert ("plant",) == await store.names()
    assert all("strange" == (path / name).read_text() for name in strange)


async def test_leftovers_of_a_crash_are_ignored_and_removed(store: FolderStore, path: Path) -> None:
    """Half a file is no credential, and goes with the next change."""
    (path / ".new-0123456789abcdef").write_bytes(b"gAAAA")
    assert () == await store.names()
    assert store.trouble is None
    await store.write("plant", one())
    assert ["plant.credential"] == list(files_of(path))


async def test_a_file_is_on_the_disk_before_it_is_in_its_place(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is the folder's list of files, before anybody is told: a power cut loses no promise."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def see_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def see_replace(old: Path, new: Path) -> Path:
        steps.append("in its place")
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(Path, "replace", see_replace)
    await store.write("plant", one())
    assert ["file", "in its place", "folder"] == steps


async def test_the_version_in_use_stays_until_another_is(store: FolderStore, path: Path) -> None:
    """A bridge that starts anew begins with what it had, whatever was uploaded meanwhile."""
    first = await store.write("plant", one())
    await store.record(activation(first))
    second = await store.write("plant", two())
    for reader in (store, FolderStore(path, [KEY])):
        active = await reader.active()
        assert active is not None
        assert first.revision == active.revision
        assert one().dump() == (await reader.read("plant", active.revision)).bundle.dump()
        assert second.revision == (await reader.read("plant")).revision
    await store.record(activation(second, "failed", "refused"))
    assert first.revision == (await store.read("plant", first.revision)).revision
    await store.record(activation(second))
    with pytest.raises(CredentialNotFoundError, match=f"'plant' has no version '{first.revision}' any more"):
        await store.read("plant", first.revision)
    assert {"plant.credential", "activations"} == set(files_of(path))


async def test_a_version_that_is_not_in_use_is_not_kept(store: FolderStore, path: Path) -> None:
    """A key that was replaced before it was used lies nowhere."""
    first = await store.write("plant", one())
    await store.write("plant", two())
    assert ["plant.credential"] == list(files_of(path))
    with pytest.raises(CredentialNotFoundError):
        await store.read("plant", first.revision)
    for revision in ("", "../plant", "0" * 64, "x" * 300):
        with pytest.raises(CredentialNotFoundError):
            await store.read("plant", revision)


async def test_the_version_in_use_is_read_though_the_newest_cannot_be(store: FolderStore, path: Path) -> None:
    """What is wrong with a version that nobody uses harms nobody."""
    first = await store.write("plant", one())
    await store.record(activation(first))
    await store.write("plant", two())
    (path / "plant.credential").write_bytes(b"damaged")
    assert first.revision == (await store.read("plant", first.revision)).revision
    for revision in (None, "0" * 64):
        with pytest.raises(CredentialUnreadableError):
            await store.read("plant", revision)
    (path / f"plant.{first.revision}.kept").rename(path / f"plant.{'0' * 64}.kept")
    with pytest.raises(CredentialUnreadableError):
        await store.read("plant", "0" * 64)


async def test_a_credential_in_use_is_not_deleted(store: FolderStore, path: Path) -> None:
    """Another one may be; with a version that was kept, it goes whole."""
    used, other = await store.write("used", one()), await store.write("other", two())
    await store.record(activation(used))
    with pytest.raises(CredentialActiveError, match="'used' is in use; activate another one"):
        await store.delete("used")
    await store.write("used", two())
    await store.record(activation(other))
    await store.delete("used")
    assert {"other.credential", "activations"} == set(files_of(path))


async def test_activations_are_remembered_the_newest_first(store: FolderStore, path: Path) -> None:
    """By every store over the folder, with who, when and why not."""
    assert None is await store.active()
    assert () == await store.history()
    first, second = await store.write("a", one()), await store.write("b", two())
    recorded = [activation(first), activation(second, "failed", "the broker refused"), activation(second)]
    for each in recorded:
        await store.record(each)
    reader = FolderStore(path, [KEY])
    assert tuple(reversed(recorded)) == await reader.history()
    assert recorded[-1] == await reader.active()


async def test_the_one_in_use_is_not_forgotten_for_failures(store: FolderStore) -> None:
    """The history is bounded, and what counts stays in it."""
    credential = await store.write("a", one())
    first = activation(credential)
    await store.record(first)
    for number in range(HISTORY + 5):
        await store.record(activation(credential, "failed", str(number)))
    history = await store.history()
    assert HISTORY == len(history)
    assert (str(HISTORY + 4), first) == (history[0].reason, history[-1])
    assert first == await store.active()


async def test_what_was_replaced_meanwhile_cannot_come_into_use(store: FolderStore) -> None:
    """Whoever activated it is told; a failure is recorded all the same."""
    first = await store.write("a", one())
    await store.write("a", two())
    with pytest.raises(CredentialNotFoundError):
        await store.record(activation(first))
    assert None is await store.active()
    await store.record(activation(first, "failed", "gone"))
    assert 1 == len(await store.history())


async def test_a_lock_that_is_never_let_go_is_told(
    store: FolderStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than waited for; reading goes on."""
    monkeypatch.setattr(folder_module, "LOCK_SECONDS", 0)
    await store.write("a", one())
    with FolderStore(path, [KEY]).folder.locked():
        with pytest.raises(CredentialStoreError, match="another process has been changing"):
            await store.write("b", two())
        assert ("a",) == await store.names()
    await store.write("b", two())


async def test_a_folder_that_went_away_is_told(store: FolderStore, path: Path) -> None:
    """By every call, and no call brings it back by itself."""
    shutil.rmtree(path)
    for work in (store.names(), store.write("plant", one()), store.delete("plant")):
        with pytest.raises(CredentialStoreError, match=f"the folder {path} cannot be"):
            await work
    assert f"the folder {path} cannot be read: No such file or directory" == store.trouble


async def test_a_full_disk_leaves_what_was_there(
    store: FolderStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so, and what was half written goes with the next change."""
    first = await store.write("plant", one())

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        for work in (store.write("plant", two()), store.record(activation(first))):
            with pytest.raises(CredentialStoreError, match="cannot be written to: No space left on device"):
                await work
    assert first.revision == (await store.read("plant")).revision
    assert None is await store.active()
    await store.write("another", two())
    assert {"plant.credential", "another.credential"} == set(files_of(path))


async def test_a_file_that_grew_beyond_measure_is_not_read(
    store: FolderStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody filled it."""
    await store.write("plant", one())
    monkeypatch.setattr(folder_module, "FILE_BYTES", 100)
    with pytest.raises(CredentialUnreadableError, match="is larger than anything that was stored"):
        await store.read("plant")


async def test_neither_a_key_nor_a_secret_is_shown(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In no log, no ``repr`` and no error, whatever is wrong: not the broker's key nor the store's own."""
    caplog.set_level(logging.DEBUG)
    store = FolderStore(path, [KEY, OLD_KEY])
    shown = [
        repr(store),
        repr(store.folder),
        repr(store.folder.seal),
        str(vars(store)),
        str(vars(store.folder)),
    ]
    credential = await store.write("plant", one())
    shown += [repr(credential), str(credential), repr(activation(credential))]
    sealed = (path / "plant.credential").read_bytes()
    document = json.loads(Seal([KEY]).open_up(sealed))
    broken = [
        sealed[:-9],
        Seal([KEY]).close_up(json.dumps({**document, "stored_at": 7}).encode()),
        Seal([KEY]).close_up(json.dumps({**document, "name": None}).encode()),
        Seal([KEY]).close_up(json.dumps(document).encode()[:-9]),
        Seal([KEY]).close_up(json.dumps({**document, "bundle": document["bundle"][:-90]}).encode()),
    ]
    for content in broken:
        (path / "plant.credential").write_bytes(content)
        with pytest.raises(CredentialStoreError) as caught:
            await store.read("plant")
        shown += traceback.format_exception(caught.value)
        shown.append(str(store.trouble))
    with pytest.raises(ValueError, match="Fernet") as wrong:
        FolderStore(tmp_path / "other", [KEY[:-9]])
    shown += traceback.format_exception(wrong.value)[-1:]
    numbers = DEVICE.private_key.private_numbers().private_value
    secrets = [*DEVICE.key().decode().splitlines()[1:-1], str(numbers), KEY, KEY[:-9], OLD_KEY]
    text = caplog.text + "".join(shown)
    assert "plant" in text
    for secret in secrets:
        assert secret not in text


async def test_a_server_certificate_is_warned_of_once(
    store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    """When it is taken, and not each time that it is read."""
    await store.write("server", read_bundle(SERVER.pem + SERVER.key()))
    caplog.clear()
    await store.read("server")
    assert [] == caplog.records
