"""The credential that the bridge connects with, and going over to another while everything runs.

Rules:

1. One exchange at a time. It counts when the new connection has taken the place of the old one; a failure
   leaves the old credential in use, and says why.
2. What is in use is on record in the store, so that a bridge that starts begins with it, and every replica
   goes over to it.
3. A new version of the credential in use is taken into use without being asked, when it appears in the store.
4. What the bridge tried by itself and failed is tried again, later each time, until it works or is not wanted
   any more. What somebody asked for is not: they were told.
5. Without an active credential the files of the settings are used. What is mounted is active without being
   asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol, TypeAlias

from app.credentials.expiry import CHECK_SECONDS, End, Reminders, end_of
from app.credentials.store import (
    Activation,
    Credential,
    CredentialNotFoundError,
    CredentialStore,
    CredentialStoreError,
)
from app.logs.context import outside_of_requests
from tidegate.bundles import Bundle
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError, MQTTError, TLSError

RETRY_MIN_SECONDS: Final = 5.0
RETRY_MAX_SECONDS: Final = 300.0

logger = logging.getLogger("tidegate.credentials")


Explain: TypeAlias = Callable[[Bundle, ConnectOptions], Awaitable[str]]


class Link(Protocol):
    """What is exchanged."""

    async def swap(self, options: ConnectOptions) -> None:
        """Go on with other options; raises MQTTError where that fails, and then nothing has changed."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why what is wanted is not in use.

    Attributes:
        name: of the credential; "" where not even that is known.
        reason: in words.
        at: when it was tried last.
    """

    name: str
    reason: str
    at: datetime


async def active_in(store: CredentialStore) -> Activation | None:
    """What should be in use; of a mounted Secret what is there, under no revision before it was used.

    Raises:
        CredentialStoreError: the store cannot be read.
    """
    active = await store.active()
    if active is None and not store.is_writable:
        for name in await store.names():
            return Activation(name, "", datetime.now(UTC), "active")
    return active


class CredentialInUse:
    """Knows which credential is in use, and changes it.

    Args:
        link: the connection to the broker.
        options: how to connect as the settings say, with their files.
        bundle: what the settings' files hold; None for a connection without TLS.
        store: where credentials are kept; None where the settings name no store.
        explain: finds out why TLS fails with a bundle, in words; "" where it does not fail.

    Attributes:
        store: the store.
        credential: what was taken from the store and is in use; None where the settings' files are.
        trouble: what was last tried and failed; None when all is as it should be.
        options: how the bridge connects with what is in use.
    """

    def __init__(
        self,
        link: Link,
        options: ConnectOptions,
        bundle: Bundle | None,
        store: CredentialStore | None,
        *,
        explain: Explain | None = None,
    ) -> None:
        self._explain = explain
        self._link = link
        self._set_options = options
        self.options = options
        self._set_bundle = bundle
        self.store = store
        self.credential: Credential | None = None
        self.trouble: Trouble | None = None
        self._days_of_others: Mapping[str, datetime] = {}
        self._exchange = asyncio.Lock()
        self._reminders = Reminders()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0
        self._recorded_failure = ""

    @property
    def bundle(self) -> Bundle | None:
        """What is in use; None for a connection without TLS."""
        return self._set_bundle if self.credential is None else self.credential.bundle

    @property
    def end(self) -> End | None:
        """When what is in use stops being good; None where that is not known here."""
        bundle = self.bundle
        return None if bundle is None else end_of(bundle)

    @property
    def warnings(self) -> list[str]:
        """What has to be seen to: an end that is near, and a credential that is wanted and not in use."""
        found: list[str] = []
        end = self.end
        if end is not None and end.warning is not None:
            found.append(end.warning)
        if self.trouble is not None:
            found.append(f"credential {self.trouble.name} is not in use: {self.trouble.reason}")
        if self.store is not None and self.store.trouble is not None:
            found.append(self.store.trouble)
        return found

    def credential_days(self) -> dict[str, int]:
        """Whole days until each credential of the store ends, by name; negative once it has ended.

        What the settings' files hold is under the empty name, where they are in use.
        """
        now = datetime.now(UTC)
        days = {name: (at - now).days for name, at in self._days_of_others.items()}
        end = self.end
        if end is not None:
            days["" if self.credential is None else self.credential.name] = end.days_left
        return days

    async def begin(self) -> ConnectOptions:
        """How to make the first connection; what cannot be read is told, and the settings' files are used."""
        if self.store is not None:
            active: Activation | None = None
            try:
                active = await active_in(self.store)
                if active is not None:
                    credential = await self.store.read(active.name, active.revision or None)
                    self.options = self._with(credential.bundle)
                    self.credential = credential
                    if not active.revision:
                        await self._record(self.store, credential, "active")
            except (CredentialStoreError, MQTTError) as error:
                self._fail("" if active is None else active.name, str(error))
        self._reminders.look(self.end)
        return self.options

    def start(self) -> None:
        """Follow the store and the calendar."""
        self._tasks.append(asyncio.create_task(self._remind(), name="tidegate expiry"))
        if self.store is not None:
            self._tasks.append(asyncio.create_task(self._follow(self.store), name="tidegate credentials"))

    async def close(self) -> None:
        """Follow no more, and let go of the store."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self.store is not None:
            await self.store.close()

    async def activate(self, name: str, *, by: str) -> Credential:
        """Take the newest version of a credential into use.

        Args:
            name: its name.
            by: the subject of who asks.

        Raises:
            CredentialStoreError: it cannot be read, or not be recorded.
            MQTTError: it does not work; what was in use still is.
        """
        store = self._require_store()
        async with self._exchange:
            credential = await store.read(name)
            try:
                await self._exchange_for(credential)
            except MQTTError as error:
                await self._record(store, credential, "failed", reason=str(error), by=by)
                raise
            self.trouble = None
            self._failures = 0
            await self._record(store, credential, "active", by=by)
            return credential

    def _require_store(self) -> CredentialStore:
        if self.store is None:
            raise CredentialStoreError("no store of credentials is set")
        return self.store

    async def _exchange_for(self, credential: Credential) -> None:
        """Swap the connection; what is in use already is swapped too, which proves that it works."""
        options = self._with(credential.bundle)
        try:
            await outside_of_requests(self._link.swap(options))
        except TLSError as error:
            words = "" if self._explain is None else await self._explain(credential.bundle, options)
            raise TLSError(words or str(error)) from error
        self.credential, self.options = credential, options
        logger.info("credential %s is in use (revision %.12s)", credential.name, credential.revision)
        self._reminders.look(self.end)

    def _with(self, bundle: Bundle) -> ConnectOptions:
        if self._set_options.tls is None:
            raise ConfigurationError(
                "a credential has no use without TLS; begin TIDEGATE_BROKER_URL with mqtts or wss"
            )
        return replace(self._set_options, tls=bundle.context())

    async def _record(
        self, store: CredentialStore, credential: Credential, outcome: str, *, reason: str = "", by: str = ""
    ) -> None:
        await store.record(
            Activation(
                credential.name,
                credential.revision,
                datetime.now(UTC),
                "active" if outcome == "active" else "failed",
                reason,
                by,
            )
        )

    # What goes on by itself.

    async def _remind(self) -> None:
        while True:
            self._reminders.look(self.end)
            await asyncio.sleep(CHECK_SECONDS)

    async def _follow(self, store: CredentialStore) -> None:
        """See to each change of the store, and to what has to be tried again."""
        changed = asyncio.Event()
        watching = asyncio.create_task(self._watch(store, changed))
        try:
            while True:
                changed.clear()
                is_settled = await self._settle(store)
                pause = None if is_settled else self._pause()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await changed.wait()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, store: CredentialStore, changed: asyncio.Event) -> None:
        failures = 0
        while True:
            try:
                async for _ in store.watch():
                    failures = 0
                    changed.set()
                return  # the store is closed
            except CredentialStoreError as error:
                failures += 1
                logger.warning("the store of credentials cannot be watched: %s", error)
                await asyncio.sleep(min(RETRY_MAX_SECONDS, RETRY_MIN_SECONDS * 2.0 ** min(failures, 6)))

    def _pause(self) -> float:
        self._failures += 1
        ceiling = min(RETRY_MAX_SECONDS, RETRY_MIN_SECONDS * 2.0 ** min(self._failures - 1, 6))
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret

    async def _settle(self, store: CredentialStore) -> bool:
        """Have in use what should be; False where it is not, and has to be tried again."""
        async with self._exchange:
            name = ""
            try:
                await self._count_days(store)
                active = await active_in(store)
                if active is None:
                    self._all_is_well()
                    return True
                name = active.name
                wanted = await self._newest(store, active)
                if self.credential is None or (self.credential.name, self.credential.revision) != (
                    wanted.name,
                    wanted.revision,
                ):
                    await self._exchange_by_itself(store, wanted, active)
            except (CredentialStoreError, MQTTError) as error:
                self._fail(name, str(error))
                return False
            self._all_is_well()
            return True

    async def _newest(self, store: CredentialStore, active: Activation) -> Credential:
        try:
            return await store.read(active.name)
        except CredentialNotFoundError:
            return await store.read(active.name, active.revision)

    async def _exchange_by_itself(
        self, store: CredentialStore, wanted: Credential, active: Activation
    ) -> None:
        try:
            await self._exchange_for(wanted)
        except MQTTError as error:
            if self._recorded_failure != wanted.revision:
                self._recorded_failure = wanted.revision
                await self._record(store, wanted, "failed", reason=str(error))
            raise
        if wanted.revision != active.revision:
            latest = await store.active()
            if latest is None or (latest.name, latest.revision) != (wanted.name, wanted.revision):
                await self._record(store, wanted, "active")

    async def _count_days(self, store: CredentialStore) -> None:
        ends: dict[str, datetime] = {}
        for name in await store.names():
            with contextlib.suppress(CredentialStoreError):
                end = end_of((await store.read(name)).bundle)
                if end is not None:
                    ends[name] = end.at
        self._days_of_others = ends

    def _fail(self, name: str, reason: str) -> None:
        """Remember why what is wanted is not in use, and log it once as an error."""
        is_known = self.trouble is not None and (self.trouble.name, self.trouble.reason) == (name, reason)
        self.trouble = Trouble(name, reason, datetime.now(UTC))
        level = logging.DEBUG if is_known else logging.ERROR
        logger.log(level, "credential %s cannot be used, and what was in use stays: %s", name, reason)

    def _all_is_well(self) -> None:
        self.trouble = None
        self._failures = 0
