"""Requests with an API key: ``Authorization: Bearer tg_<id>_<secret>``.

Rules:

1. A key that is not known costs the same comparison as one that is; neither the time nor the answer tells
   whether an id exists.
2. One key has one principal for as long as its record allows the same. When that changes, what was begun
   with the old one ends. An end that moves changes nothing until it comes.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from app.security.authentication import Ended, Scope
from app.security.authorization_header import CHALLENGE, bearer_of, refusal
from app.security.grants import Grants
from app.security.key_records import PREFIX, KeyRecord, hash_of, is_whole, read_keys, split_key, written_time
from app.security.principal import Principal, Source
from app.security.watched_file import WatchedFile

_NOBODY: Final = bytes(32)
"""What the secret of an unknown key is compared with; the hash of none that anybody knows."""


@dataclass(frozen=True, slots=True)
class _Key:
    record: KeyRecord
    digest: bytes
    principal: Principal


Keys = Mapping[str, _Key]


class ApiKeys:
    """A way to show who one is (``Method``).

    Args:
        file: the keys (``watched_keys``); whoever made it starts and closes it.
    """

    challenge = CHALLENGE

    def __init__(self, file: WatchedFile[Keys]) -> None:
        self._file = file

    def recall(self, scope: Scope) -> Principal | None:
        """The principal of a request with a key that holds."""
        text = bearer_of(scope)
        if text is None or not text.startswith(PREFIX):
            return None
        key = self._find(text)
        if key is None or key.record.revoked_at is not None or key.principal.has_expired():
            return None
        return key.principal

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The principal of a request with an API key; None where it has none.

        Raises:
            ProblemError: UNAUTHENTICATED where the key is not good; the detail says why.
        """
        text = bearer_of(scope)
        if text is None or not text.startswith(PREFIX):
            return None
        key = self._find(text)
        if key is None:
            if not is_whole(text):
                raise refusal("the API key is not whole: it was cut off, or mistyped", "copy it again")
            raise refusal("the API key is not known", "'tidegate key create' makes one")
        if key.record.revoked_at is not None:
            raise refusal(f"the API key {key.record.id} is revoked", "ask for a new one")
        if key.principal.has_expired():
            ended = written_time(key.record.expires_at)
            raise refusal(f"the API key {key.record.id} expired at {ended}", "ask for a new one")
        return key.principal

    def why_ended(self, principal: Principal) -> Ended | None:
        """Whether a key's record is gone, revoked, or allows something else."""
        if principal.source is not Source.API_KEY:
            return None
        key = self._file.value.get(principal.credential_id or "")
        if key is None or key.record.revoked_at is not None or key.principal is not principal:
            return Ended.REVOKED
        return None

    async def close(self) -> None:
        """Nothing is held."""

    def _find(self, text: bytes) -> _Key | None:
        parts = split_key(text)
        if parts is None:
            return None
        key_id, secret = parts
        key = self._file.value.get(key_id)
        is_right = hmac.compare_digest(hash_of(secret), _NOBODY if key is None else key.digest)
        return key if is_right else None


def watched_keys(file: Path) -> WatchedFile[Keys]:
    """The keys of a file, as they are now.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def parse(text: bytes, before: Keys | None) -> Keys:
        made = {each.id: _key(each, before or {}) for each in read_keys(text, file)}
        return MappingProxyType(made)

    return WatchedFile(file, parse)


def _key(record: KeyRecord, before: Keys) -> _Key:
    old = before.get(record.id)
    expires_at = None if record.expires_at is None else record.expires_at.timestamp()
    if old is not None and old.record.allows == record.allows:
        old.principal.move_end(expires_at)
        return _Key(record, old.digest, old.principal)
    principal = Principal(
        record.name,
        Source.API_KEY,
        Grants(record.publish, record.subscribe, subject=record.name),
        record.scopes,
        expires_at,
        record.id,
    )
    return _Key(record, record.digest, principal)
