"""A mounted Secret is one credential: read whole, followed when it is renewed, never worse than it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import SecretStr

from app.credentials.intake import Intake, Taken
from app.credentials.mounted_store import MountedStore, name_of_mount
from app.credentials.opening import open_store
from app.credentials.store import (
    HISTORY,
    Change,
    CredentialNotFoundError,
    CredentialUnreadableError,
    ReadOnlyStoreError,
    is_credential_name,
    revision_of,
)
from app.settings import Settings
from tests.support.bundles import DEVICE, DIRECT, INTERMEDIATE, OTHER_ROOT, ROOT, subjects
from tests.support.credentials import NEVER_POLLS, activation, one
from tests.support.issued import NOW, Issued, issue
from tests.support.mounted_secret import MountedSecret
from tidegate import TLSError
from tidegate.errors import ConfigurationError

SECONDS = 30.0
RENEWED = issue("device-8", ROOT)


def secret_of(issued: Issued, *chain: Issued) -> dict[str, bytes]:
    """The files that cert-manager writes."""
    certificates = b"".join(each.pem for each in (issued, *chain))
    return {"tls__crt": certificates, "tls__key": issued.key(), "ca__crt": ROOT.pem}


@pytest.fixture
def secret(tmp_path: Path) -> MountedSecret:
    """A Secret with the certificate of device-8."""
    return MountedSecret(tmp_path / "broker-tls", **secret_of(DIRECT))


async def following(changes: AsyncGenerator[Change, None]) -> Change:
    """The next change."""
    return await asyncio.wait_for(anext(changes), SECONDS)


def fingerprint_of(issued: Issued) -> str:
    """Of a client certificate."""
    return issued.x509.fingerprint(SHA256()).hex()


async def used_by(store: MountedStore) -> str:
    """The fingerprint of the certificate that the store has."""
    bundle = (await store.read(store.name)).bundle
    assert bundle.certificate is not None
    return bundle.certificate.fingerprint


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("broker-tls", "broker-tls"),
        ("Broker_TLS.v2", "broker-tls-v2"),
        ("_", "mounted"),
        ("a" * 70, "a" * 63),
    ],
)
def test_it_is_called_as_its_folder(folder: str, name: str) -> None:
    """As far as a name may have its characters."""
    assert name == name_of_mount(Path("/run/secrets") / folder)
    assert is_credential_name(name)


async def test_a_secret_is_read(secret: MountedSecret) -> None:
    """All parts, known by what they hold; it says since when it is there."""
    store = MountedStore(secret.path)
    assert ("broker-tls",) == await store.names()
    credential = await store.read("broker-tls")
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects(credential.bundle)
    assert revision_of(credential.bundle) == credential.revision
    assert NOW - timedelta(minutes=1) < credential.stored_at
    assert credential is await store.read("broker-tls", credential.revision)
    assert not store.trouble
    for name, revision in (("other", None), ("broker-tls", "0" * 64)):
        with pytest.raises(CredentialNotFoundError):
            await store.read(name, revision)


async def test_files_of_any_name_and_an_encrypted_key_are_read(tmp_path: Path) -> None:
    """A PKCS#12 file alone, for one; its passphrase is a setting, and named where it is missing."""
    secret = MountedSecret(tmp_path / "tls", keystore__p12=DIRECT.pkcs12(ROOT, passphrase="secret"))
    store = MountedStore(secret.path, passphrase="secret")
    assert fingerprint_of(DIRECT) == await used_by(store)
    store = MountedStore(secret.path, key_setting="TIDEGATE_CREDENTIALS_PASSPHRASE")
    with pytest.raises(CredentialUnreadableError, match="give its TIDEGATE_CREDENTIALS_PASSPHRASE"):
        await store.read("tls")


async def test_a_folder_without_links_is_read_too(tmp_path: Path) -> None:
    """As Docker mounts secrets, and as whoever tries it out does."""
    path = tmp_path / "tls"
    path.mkdir()
    for name, content in secret_of(DEVICE, INTERMEDIATE).items():
        (path / name.replace("__", ".")).write_bytes(content)
    store = MountedStore(path)
    assert ("CN=device-7", ["CN=Plant Issuer"], ["CN=Plant Root"]) == subjects(
        (await store.read("tls")).bundle
    )


async def test_other_authorities_count_where_the_secret_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the Secret win once it has some; at the start it is told that the others are not used."""
    file = tmp_path / "ca.pem"
    file.write_bytes(OTHER_ROOT.pem)
    secret = MountedSecret(tmp_path / "tls", tls__crt=RENEWED.pem, tls__key=RENEWED.key())
    settings = Settings(
        broker_url=SecretStr("mqtts://broker"), broker_ca_file=file, credentials_mount=secret.path
    )
    store = open_store(settings)
    assert store is not None
    first = await store.read("tls")
    assert ("CN=device-8", [], ["CN=Cloud Root"]) == subjects(first.bundle)
    assert revision_of(first.bundle) == first.revision
    assert "is not used" not in caplog.text
    secret.swap(**secret_of(RENEWED))
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects((await store.read("tls")).bundle)
    again = open_store(settings)
    assert again is not None
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects((await again.read("tls")).bundle)
    assert 1 == caplog.text.count("TIDEGATE_BROKER_CA_FILE is not used: the Secret at")


def test_other_authorities_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """With the setting that names them."""
    file = tmp_path / "ca.pem"
    file.write_bytes(b"nothing")
    settings = Settings(
        broker_url=SecretStr("mqtts://broker"), broker_ca_file=file, credentials_mount=tmp_path
    )
    with pytest.raises(ConfigurationError, match=r"^TIDEGATE_BROKER_CA_FILE: "):
        open_store(settings)


async def test_a_swap_is_told_and_read(secret: MountedSecret) -> None:
    """The file system tells of it; what was in use stays readable for who still uses it."""
    store = MountedStore(secret.path, poll_seconds=NEVER_POLLS)
    async with aclosing(store.watch()) as changes:
        assert Change(frozenset({"broker-tls"}), has_activation=True) == await following(changes)
        first = await store.read("broker-tls")
        await store.record(activation(first))
        secret.swap(**secret_of(RENEWED))
        assert Change(frozenset({"broker-tls"}), has_activation=False) == await following(changes)
        second = await store.read("broker-tls")
        assert fingerprint_of(RENEWED) == await used_by(store)
        assert first.revision != second.revision
        assert first is await store.read("broker-tls", first.revision)
        await store.record(activation(second))
        with pytest.raises(CredentialNotFoundError):
            await store.read("broker-tls", first.revision)


async def test_a_swap_is_seen_without_a_watch(secret: MountedSecret) -> None:
    """Whoever reads gets what is mounted now."""
    store = MountedStore(secret.path)
    assert fingerprint_of(DIRECT) == await used_by(store)
    secret.swap(**secret_of(RENEWED))
    assert fingerprint_of(RENEWED) == await used_by(store)


async def test_the_same_content_again_is_no_change(secret: MountedSecret) -> None:
    """The kubelet swaps also where another part of the Secret changed."""
    store = MountedStore(secret.path, poll_seconds=NEVER_POLLS)
    async with aclosing(store.watch()) as changes:
        await following(changes)
        before = await store.read("broker-tls")
        secret.swap(**secret_of(DIRECT), label=b"new")
        assert before is await store.read("broker-tls")
        secret.swap(**secret_of(RENEWED))
        await following(changes)
        assert fingerprint_of(RENEWED) == await used_by(store)


BROKEN: dict[str, tuple[Callable[[], dict[str, bytes]], str]] = {
    "key of another": (
        lambda: {**secret_of(RENEWED), "tls__key": DEVICE.key()},
        "does not belong to the certificate",
    ),
    "no key": (lambda: {"tls__crt": RENEWED.pem, "ca__crt": ROOT.pem}, "no key for it"),
    "damaged": (lambda: {**secret_of(RENEWED), "tls__crt": RENEWED.pem[:-30]}, "is cut off"),
    "empty": (dict, "holds no certificate"),
    "expired": (
        lambda: secret_of(
            issue("device-8", ROOT, starts=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
        ),
        "expired on",
    ),
    "not valid yet": (
        lambda: secret_of(issue("device-8", ROOT, starts=NOW + timedelta(days=1))),
        "is not valid before",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_what_cannot_be_used_does_not_take_the_place_of_what_can(
    fault: str, secret: MountedSecret, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, once, and as the trouble, until it is mended."""
    make, words = BROKEN[fault]
    store = MountedStore(secret.path, poll_seconds=0.01)
    async with aclosing(store.watch()) as changes:
        await following(changes)
        secret.swap(**make())
        await following(changes)
        assert words in str(store.trouble)
        assert fingerprint_of(DIRECT) == await used_by(store)
        (told,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
        assert words in told
        assert told.endswith("the version before it stays")
        secret.swap(**secret_of(RENEWED))
        await following(changes)
        assert not store.trouble
        assert fingerprint_of(RENEWED) == await used_by(store)
    assert not [each for each in caplog.records if "PRIVATE" in each.getMessage()]


async def test_what_cannot_be_used_is_tried_again_though_nothing_changes(
    secret: MountedSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is not valid yet will be; here a file that cannot be read for a while."""
    attempts = 0

    class Reluctant(Intake):
        async def take_path(self, path: Path, **options: Any) -> Taken:
            nonlocal attempts
            attempts += 1
            if attempts in {2, 3}:
                raise TLSError("not now")
            return await super().take_path(path, **options)

    store = MountedStore(secret.path, poll_seconds=0.01, intake=Reluctant())
    async with aclosing(store.watch()) as changes:
        await following(changes)
        secret.swap(**secret_of(RENEWED))
        await following(changes)
        assert "not now" == store.trouble
        await following(changes)
        assert not store.trouble
    assert 4 == attempts
    assert fingerprint_of(RENEWED) == await used_by(store)


async def test_a_secret_that_is_broken_from_the_start_is_told(tmp_path: Path) -> None:
    """There is a name and no content, until it is mended."""
    secret = MountedSecret(tmp_path / "tls", tls__crt=DIRECT.pem)
    store = MountedStore(secret.path)
    assert ("tls",) == await store.names()
    with pytest.raises(CredentialUnreadableError, match="no key for it"):
        await store.read("tls")
    assert "no key for it" in str(store.trouble)
    secret.swap(**secret_of(DIRECT))
    assert fingerprint_of(DIRECT) == await used_by(store)
    assert not store.trouble


async def test_an_expired_certificate_is_warned_of_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no other to stay with, and the broker decides."""
    expired = issue("device-9", ROOT, starts=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
    store = MountedStore(MountedSecret(tmp_path / "tls", **secret_of(expired)).path)
    assert fingerprint_of(expired) == await used_by(store)
    assert "expired on" in caplog.text
    assert not store.trouble


async def test_a_swap_while_it_is_read_mixes_nothing(secret: MountedSecret) -> None:
    """What was read of a version that is there no more is read again."""

    class Slow(Intake):
        """The swap comes after the parts were read, or takes them away in the middle."""

        def __init__(self, *, is_torn: bool) -> None:
            super().__init__()
            self.attempts = 0
            self._is_torn = is_torn

        async def take_path(self, path: Path, **options: Any) -> Taken:
            self.attempts += 1
            taken = await super().take_path(path, **options)
            if self.attempts == 1:
                secret.swap(**secret_of(RENEWED))
                if self._is_torn:
                    raise TLSError("the file 'tls.key' cannot be read: No such file or directory")
            return taken

    for is_torn in (False, True):
        secret.swap(**secret_of(DIRECT))
        intake = Slow(is_torn=is_torn)
        store = MountedStore(secret.path, intake=intake)
        assert fingerprint_of(RENEWED) == await used_by(store)
        assert (2, None) == (intake.attempts, store.trouble)


async def test_swaps_at_any_moment_are_read_whole(secret: MountedSecret) -> None:
    """Both halves are always of one version, and in the end it is the last one."""
    chance = random.Random(7)
    store = MountedStore(secret.path)
    pairs = [DIRECT, RENEWED]
    known = {fingerprint_of(each) for each in pairs}
    for number in range(6):
        reading = asyncio.ensure_future(used_by(store))
        await asyncio.sleep(chance.uniform(0, 0.2))  # the moment of the swap
        secret.swap(**secret_of(pairs[number % 2]))
        assert await reading in known
        assert not store.trouble
        assert fingerprint_of(pairs[number % 2]) == await used_by(store)


async def test_a_secret_that_never_rests_is_told(secret: MountedSecret) -> None:
    """Rather than read for ever."""

    class Restless(Intake):
        async def take_path(self, path: Path, **options: Any) -> Taken:
            secret.swap(**secret_of(DIRECT))
            raise TLSError("gone")

    store = MountedStore(secret.path, intake=Restless())
    with pytest.raises(CredentialUnreadableError, match="changes each time that it is read"):
        await store.read("broker-tls")


async def test_it_cannot_be_written_to(secret: MountedSecret) -> None:
    """The error says where to change it."""
    store = MountedStore(secret.path)
    assert not store.is_writable
    for work in (store.write("broker-tls", one()), store.delete("broker-tls")):
        with pytest.raises(ReadOnlyStoreError, match="change the Secret, or have TIDEGATE_CREDENTIALS_DIR"):
            await work


async def test_activations_are_remembered_while_it_runs(secret: MountedSecret) -> None:
    """The newest first, bounded; what is not there cannot come into use."""
    store = MountedStore(secret.path)
    credential = await store.read("broker-tls")
    assert (None, ()) == (await store.active(), await store.history())
    first = activation(credential)
    await store.record(first)
    for number in range(HISTORY + 5):
        await store.record(activation(credential, "failed", str(number)))
    assert first == await store.active()
    history = await store.history()
    assert (HISTORY, str(HISTORY + 4)) == (len(history), history[0].reason)
    secret.swap(**secret_of(RENEWED))
    renewed = await store.read("broker-tls")
    secret.swap(**secret_of(DEVICE, INTERMEDIATE))
    await store.names()
    with pytest.raises(CredentialNotFoundError):
        await store.record(activation(renewed))


async def test_watching_ends_with_the_store(secret: MountedSecret) -> None:
    """All who watch are through."""
    store = MountedStore(secret.path, poll_seconds=NEVER_POLLS)
    async with aclosing(store.watch()) as changes:
        await following(changes)
        waiting = asyncio.ensure_future(anext(changes, None))
        await asyncio.sleep(0)
        await store.close()
        assert None is await asyncio.wait_for(waiting, SECONDS)
