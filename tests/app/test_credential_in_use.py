"""Which credential is in use, over failures of the broker and of the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.credentials import in_use as module
from app.credentials.folder_store import FolderStore
from app.credentials.in_use import CredentialInUse
from app.credentials.store import CredentialStoreError
from app.logs.context import request_id
from tests.support.credentials import KEY, OLD_KEY, activation, one, two
from tidegate.bundles import Bundle
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError, MQTTConnectionError, TLSError

SECONDS = 20.0


class Link:
    """A link that does as it is told. Attributes: the ``reason`` to fail for, and the ``swaps`` tried."""

    def __init__(self) -> None:
        self.reason = ""
        self.swaps: list[ConnectOptions] = []

    async def swap(self, options: ConnectOptions) -> None:
        """Go over, or fail."""
        self.swaps.append(options)
        if self.reason:
            raise MQTTConnectionError(self.reason)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


def options() -> ConnectOptions:
    """Of a broker with TLS."""
    return ConnectOptions("broker.example", 8883, tls=Bundle("the system's").context())


@asynccontextmanager
async def followed(store: FolderStore, link: Link, *, keep_on: bool = True) -> AsyncIterator[CredentialInUse]:
    """What is in use, with its store followed."""
    made = CredentialInUse(link, options(), Bundle("the system's"), store)
    await made.begin()
    if keep_on:
        made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty store."""
    return FolderStore(tmp_path / "store", [KEY])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again in a moment."""
    monkeypatch.setattr(module, "RETRY_MIN_SECONDS", 0.02)
    monkeypatch.setattr(module, "RETRY_MAX_SECONDS", 0.05)


async def test_what_failed_is_tried_again(store: FolderStore, caplog: pytest.LogCaptureFixture) -> None:
    """A renewed credential that the broker refuses: told once, tried until it works, on record once."""
    first = await store.write("plant", one())
    await store.record(activation(first))
    link = Link()
    async with followed(store, link) as found:
        assert [] == link.swaps
        link.reason = "the broker is away"
        renewed = await store.write("plant", two())
        await until(lambda: len(link.swaps) > 3)
        assert found.credential is not None
        assert first.revision == found.credential.revision
        assert found.trouble is not None
        assert ("plant", "the broker is away") == (found.trouble.name, found.trouble.reason)
        assert ["credential plant is not in use: the broker is away"] == found.warnings
        link.reason = ""
        await until(lambda: found.trouble is None)
        assert renewed.revision == found.credential.revision
        active = await store.active()
        assert active is not None
        assert renewed.revision == active.revision
        assert ["active", "failed", "active"] == [each.outcome for each in await store.history()]
        errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert 1 == len(errors)


async def test_a_failure_of_tls_is_explained(store: FolderStore) -> None:
    """The library's words give way to those of a check; where that finds nothing, they stay."""
    await store.write("plant", one())

    class Refused(Link):
        async def swap(self, options: ConnectOptions) -> None:
            raise TLSError("[SSL: SOMETHING]")

    for words, expected in (("TLS: unknown authority", "TLS: unknown authority"), ("", "[SSL: SOMETHING]")):

        async def explain(_: Bundle, __: ConnectOptions, words: str = words) -> str:
            return words

        found = CredentialInUse(Refused(), options(), None, store, explain=explain)
        with pytest.raises(TLSError) as caught:
            await found.activate("plant", by="")
        assert expected == str(caught.value)


async def test_the_connection_is_exchanged_in_no_requests_name(store: FolderStore) -> None:
    """What the log says of it later does not belong to the request that asked for the exchange."""
    await store.write("plant", one())
    seen: list[str] = []

    class Listening(Link):
        async def swap(self, options: ConnectOptions) -> None:
            seen.append(request_id.get())
            await super().swap(options)

    token = request_id.set("mine")
    try:
        await CredentialInUse(Listening(), options(), None, store).activate("plant", by="alice")
    finally:
        request_id.reset(token)
    assert [""] == seen


async def test_what_somebody_asked_for_is_not_tried_again(store: FolderStore) -> None:
    """They were told; what was in use still is, and the attempt is on record."""
    await store.write("plant", one())
    link = Link()
    async with followed(store, link) as found:
        link.reason = "refused"
        with pytest.raises(MQTTConnectionError):
            await found.activate("plant", by="alice")
        await until(lambda: bool(found.credential_days()))
        assert (1, None, None) == (len(link.swaps), found.credential, found.trouble)
        (failed,) = await store.history()
        assert ("failed", "refused", "alice") == (failed.outcome, failed.reason, failed.by)


async def test_a_credential_that_cannot_be_read_at_the_start(tmp_path: Path) -> None:
    """The bridge begins with the settings' files, says why, and goes over once it can be read."""
    path = tmp_path / "store"
    writer = FolderStore(path, [OLD_KEY])
    await writer.record(activation(await writer.write("plant", one())))
    link = Link()
    async with followed(FolderStore(path, [KEY]), link, keep_on=False) as found:
        assert found.credential is None
        assert found.trouble is not None
        assert found.options.tls is not None
    async with followed(FolderStore(path, [KEY, OLD_KEY]), link) as found:
        assert found.credential is not None
        assert found.trouble is None
        assert [] == link.swaps


async def test_a_store_that_fails_is_told(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in use stays; it is well again when the store is."""
    await store.record(activation(await store.write("plant", one())))
    real = store.active

    async def fail() -> None:
        raise CredentialStoreError("the disk is gone")

    async with followed(store, Link()) as found:
        monkeypatch.setattr(store, "active", fail)
        await store.write("other", two())
        await until(lambda: found.trouble is not None and found.trouble.reason == "the disk is gone")
        assert found.credential is not None
        monkeypatch.setattr(store, "active", real)
        await until(lambda: found.trouble is None)


async def test_a_broker_without_tls(store: FolderStore) -> None:
    """A credential has no use, and nothing is swapped."""
    await store.write("plant", one())
    link = Link()
    found = CredentialInUse(link, ConnectOptions(), None, store)
    with pytest.raises(ConfigurationError, match="TIDEGATE_BROKER_URL"):
        await found.activate("plant", by="")
    assert [] == link.swaps
    assert (None, None, {}) == (found.bundle, found.end, found.credential_days())


async def test_without_a_store() -> None:
    """The settings' files are in use, and nothing can be activated."""
    found = CredentialInUse(Link(), options(), one(), None)
    await found.begin()
    found.start()
    assert 89 == found.credential_days()[""]
    with pytest.raises(CredentialStoreError, match="no store"):
        await found.activate("plant", by="")
    await found.close()
