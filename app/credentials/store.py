"""What keeps TLS credentials, whichever way it does: the values, the errors, and the protocol of a store.

Rules:

1. A credential is known by its name, and one version of it by its revision. Nothing secret can be derived
   from either; a revision says the same in every replica, and after a restart.
2. A version that is in use stays readable until another is, whatever is written under its name meanwhile: a
   bridge that starts anew begins with what it had.
3. What stands in a store is whole. Of two who write at once, the last one wins.
4. A store touches files in threads, never on the event loop.
5. No error, ``repr`` or log has a byte of a private key.

    CredentialStoreError
    ├── CredentialNotFoundError      there is none of this name, or it has no such version
    ├── CredentialUnreadableError    it is there and cannot be read; the text says why and what to do
    ├── CredentialActiveError        it is in use, and stays
    └── ReadOnlyStoreError           what is mounted is changed where it comes from
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from tidegate.bundles import Bundle

HISTORY: Final = 100
"""So many activations are remembered."""

_is_name: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?").fullmatch


class CredentialStoreError(Exception):
    """A store cannot do what it was asked for; its text says why, and what to do."""


class CredentialNotFoundError(CredentialStoreError):
    """There is no credential of this name, or it has no such version."""


class CredentialUnreadableError(CredentialStoreError):
    """A credential is there, and cannot be read."""


class CredentialActiveError(CredentialStoreError):
    """A credential that is in use is not deleted."""


class ReadOnlyStoreError(CredentialStoreError):
    """A store that only reads was asked to write."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One version of a credential.

    Attributes:
        name: what it is called, a DNS label (RFC 1123 §2.1) in lower case.
        bundle: what it consists of.
        revision: 64 hexadecimal digits; changes whenever the content does.
        stored_at: when this version came to be, in UTC.
    """

    name: str
    bundle: Bundle
    revision: str
    stored_at: datetime


Outcome = Literal["active", "failed"]


@dataclass(frozen=True, slots=True)
class Activation:
    """That somebody took a credential into use, or tried to.

    Attributes:
        name: of the credential.
        revision: of the version.
        at: when, in UTC.
        outcome: whether it is in use since, or the one before went on.
        reason: why it failed, in words; "" where it went well.
        by: the subject of the principal; "" for the bridge itself.
    """

    name: str
    revision: str
    at: datetime
    outcome: Outcome
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What is no longer as it was.

    Attributes:
        names: credentials that were written or deleted, or that cannot be read any more; read them to see.
        has_activation: whether something was recorded; ask for ``active`` to see.
    """

    names: frozenset[str]
    has_activation: bool


class CredentialStore(Protocol):
    """Keeps credentials, and which one is in use.

    Every method may raise ``CredentialStoreError`` itself where the place cannot be read or written.
    """

    @property
    def is_writable(self) -> bool:
        """False where credentials come from elsewhere, as with a mounted Secret."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with what lies there, in words, as last seen by ``names``, ``read`` or ``watch``."""

    async def names(self) -> tuple[str, ...]:
        """All names, sorted, also of credentials that cannot be read."""

    async def read(self, name: str, revision: str | None = None) -> Credential:
        """A credential.

        Args:
            name: of any form; one that is no name is not found.
            revision: a certain version, of which only the newest and the one in use are kept; the newest
                where it is left out.

        Raises:
            CredentialNotFoundError: there is no such.
            CredentialUnreadableError: there is, and it cannot be read.
        """

    async def write(self, name: str, bundle: Bundle) -> Credential:
        """Put a credential under a name, new or in place of another; it is kept once this returns.

        The same content again is no new version, and leaves ``stored_at`` as it was.

        Raises:
            ValueError: the name is none, or the bundle is empty.
            ReadOnlyStoreError: the store only reads.
        """

    async def delete(self, name: str) -> None:
        """Remove a credential.

        Raises:
            CredentialNotFoundError: there is none.
            CredentialActiveError: it is in use.
            ReadOnlyStoreError: the store only reads.
        """

    async def active(self) -> Activation | None:
        """Which version is in use: the newest activation that went well, the same for all replicas."""

    async def history(self) -> tuple[Activation, ...]:
        """The newest ``HISTORY`` activations, the newest first."""

    async def record(self, activation: Activation) -> None:
        """Put an activation on record; one that went well says which version is in use from now on.

        Raises:
            CredentialNotFoundError: it went well, and the version was replaced or deleted meanwhile.
        """

    def watch(self) -> AsyncIterator[Change]:
        """What changes, whoever changes it: this process, another replica, or whoever mounts the Secret.

        The first comes at once and names all there is, so that whoever watches before reading misses nothing.
        Several changes may come as one. It goes on until whoever iterates stops, or the store is closed.
        """

    async def close(self) -> None:
        """Let go of whatever the store has open; those who watch are through."""


def is_credential_name(text: str) -> bool:
    """Whether a credential may be called so: 1 to 63 of ``a-z``, ``0-9`` and, in between, ``-``."""
    return _is_name(text) is not None


def check_credential_name(text: str) -> None:
    """Refuse what a credential cannot be called.

    Raises:
        ValueError: with what a name may be.
    """
    if not is_credential_name(text):
        raise ValueError(
            "a credential's name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor "
            "ends with a hyphen"
        )


def revision_of(bundle: Bundle) -> str:
    """The revision of a content: a digest of its certificates, which are public, key by key.

    A private key has no part in it but its public half, that of the client's certificate.
    """
    certificate = [] if bundle.certificate is None else [bundle.certificate]
    groups = (bundle.authorities, certificate, bundle.chain)
    text = ";".join(",".join(each.fingerprint for each in group) for group in groups)
    return hashlib.sha256(text.encode()).hexdigest()
