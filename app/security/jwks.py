"""The keys that an issuer of tokens publishes (JWKS, RFC 7517), fetched and kept.

Rules:

1. Nobody's request waits for a fetch but those that need one: for the first set of keys, or for a key that
   the set does not have. There is one fetch at a time, for all of them.
2. A key that is not there is fetched for, since issuers change theirs; not more often than every
   ``GAP_SECONDS``, so that made-up tokens do not make the bridge knock on the issuer's door.
3. The set is fetched anew before it is too old, by ``Cache-Control`` or by habit. While the issuer is away
   the last good set holds, for ``STALE_SECONDS``. With no set nobody can tell a good token from a bad one:
   503, not 401.
4. A ``kid`` is compared and nothing else. Keys that are not for signatures, and secrets, are passed over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from app.problems import ProblemError, ProblemType
from app.security.authorization_header import refusal
from app.security.verification_keys import VerificationKey, algorithms_of

logger = logging.getLogger("tidegate.security")

GAP_SECONDS: Final = 10.0
FETCH_SECONDS: Final = 10.0
STALE_SECONDS: Final = 24 * 3600.0
RETRY_SECONDS: Final = 2

_MAX_BYTES: Final = 524_288
_MAX_KEYS: Final = 100
_AGE_SECONDS: Final = 600.0
"""How long a set is good where its answer does not say so."""
_SHORTEST_SECONDS, _LONGEST_SECONDS = 60.0, 3600.0
"""Whatever it says, it is fetched neither more nor less often."""

_max_age: Final = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,9})").search


@dataclass(frozen=True, slots=True)
class _Found:
    kid: str | None
    key: VerificationKey


class Jwks:
    """An issuer's keys (``KeySource``).

    Args:
        url: where they are: https, or http on this machine.
        algorithms: those to take; a key's own are taken out of these.
        fetch_seconds: how long a fetch may take.
        gap_seconds: how long after one fetch a key that is not there starts another.

    Attributes:
        fault: why they could not be had when they were asked for last; None where they could.
    """

    def __init__(
        self,
        url: str,
        algorithms: frozenset[str],
        *,
        fetch_seconds: float = FETCH_SECONDS,
        gap_seconds: float = GAP_SECONDS,
    ) -> None:
        self.algorithms = algorithms
        self.fault: str | None = None
        self._url = url
        self._fetch_seconds = fetch_seconds
        self._gap_seconds = gap_seconds
        is_local = url.lower().startswith("http://")
        self._client = httpx.AsyncClient(
            timeout=fetch_seconds, trust_env=not is_local, follow_redirects=False
        )
        self._found: tuple[_Found, ...] = ()
        self._marks: frozenset[str] = frozenset()
        self._good_until = 0.0
        self._age_seconds = _AGE_SECONDS
        self._flight: asyncio.Task[bool] | None = None
        self._began = -float("inf")
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fetch; in a running event loop."""
        self._watch = asyncio.get_running_loop().create_task(self._keep_fresh())

    async def close(self) -> None:
        """Fetch no more."""
        for task in (self._watch, self._flight):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._client.aclose()

    async def find(self, header: Mapping[str, Any]) -> VerificationKey:
        """The key of a token.

        Raises:
            ProblemError: UNAUTHENTICATED where the issuer has no such key; AUTHENTICATION_UNAVAILABLE where
                its keys cannot be had.
        """
        kid, algorithm = header.get("kid"), header["alg"]
        key = self._pick(kid, algorithm)
        if key is not None:
            return key
        if self._flight is not None or time.monotonic() - self._began >= self._gap_seconds:
            await self._fetch()
        if time.monotonic() >= self._good_until:
            raise ProblemError(
                ProblemType.AUTHENTICATION_UNAVAILABLE,
                "the keys that verify tokens cannot be had from their issuer",
                hint="try again; the bridge's log tells what is wrong",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        key = self._pick(kid, algorithm)
        if key is None:
            raise refusal(
                "the token is signed with a key that its issuer does not publish",
                "ask whoever issued it for a new one",
            )
        return key

    def has(self, key: VerificationKey) -> bool:
        """Whether the issuer still published a key when it was asked last."""
        return key.mark in self._marks

    def _pick(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        if time.monotonic() >= self._good_until:
            return None
        fitting = [each for each in self._found if algorithm in each.key.algorithms]
        if kid is not None:
            fitting = [each for each in fitting if each.kid == kid]
        return fitting[0].key if len(fitting) == 1 else None

    async def _keep_fresh(self) -> None:
        delay = 1.0
        while True:
            if await self._fetch():
                delay = 1.0
                await asyncio.sleep(self._age_seconds * 0.8)
            else:
                await asyncio.sleep(delay)
                delay = min(2 * delay, _SHORTEST_SECONDS)

    async def _fetch(self) -> bool:
        """Fetch, or wait for the fetch that is under way; whether it went well."""
        if self._flight is None:
            self._began = time.monotonic()
            self._flight = asyncio.get_running_loop().create_task(self._take_over())
            self._flight.add_done_callback(self._land)
        flight = self._flight
        await asyncio.wait([flight])
        return not flight.cancelled() and flight.result()

    def _land(self, _: asyncio.Task[bool]) -> None:
        self._flight = None

    async def _take_over(self) -> bool:
        try:
            async with asyncio.timeout(self._fetch_seconds):
                text, self._age_seconds = await self._get()
            found = await asyncio.to_thread(_read, text, self.algorithms)
        except (httpx.HTTPError, ValueError, RecursionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                reason = f"there is no whole answer within {self._fetch_seconds:g} s"
            has_keys = time.monotonic() < self._good_until
            effect = "those fetched last hold" if has_keys else "no token can be verified"
            self.fault = f"the keys at {self._url} cannot be had: {reason}; {effect}"
            logger.error("%s", self.fault)  # noqa: TRY400 - the reason is all there is to tell
            return False
        self.fault = None
        self._found = found
        self._marks = frozenset(each.key.mark for each in found)
        self._good_until = time.monotonic() + STALE_SECONDS
        return True

    async def _get(self) -> tuple[bytes, float]:
        """The document, and for how long it is good."""
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        async with self._client.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != 200:
                raise ValueError(f"the answer is {answer.status_code}, and redirects are not followed")
            text = bytearray()
            async for part in answer.aiter_raw():
                text += part
                if len(text) > _MAX_BYTES:
                    raise ValueError(f"the answer is larger than {_MAX_BYTES} bytes")
        return bytes(text), _age(answer.headers.get("Cache-Control", ""))


def _age(cache_control: str) -> float:
    found = _max_age(cache_control.lower())
    seconds = float(found[1]) if found else _AGE_SECONDS
    return min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)


def _read(text: bytes, algorithms: frozenset[str]) -> tuple[_Found, ...]:
    """The keys of a set that are of use.

    Raises:
        ValueError: it is no set, or nothing in it is of use.
    """
    document = json.loads(text)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is no JSON Web Key Set")  # noqa: TRY004 - a fault of what was read
    found = []
    for each in listed[:_MAX_KEYS]:
        key = _key(each, algorithms)
        if key is not None:
            kid = each.get("kid")
            found.append(_Found(kid if isinstance(kid, str) else None, key))
    if not found:
        raise ValueError("no key of the set is for verifying signatures with an algorithm that is taken")
    return tuple(found)


def _key(content: Any, algorithms: frozenset[str]) -> VerificationKey | None:
    """A key; None where it is not for signatures, a secret, broken, or for no algorithm that is taken."""
    if not isinstance(content, dict) or content.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    operations = content.get("key_ops", ["verify"])
    if content.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    mark = json.dumps(content, sort_keys=True)
    try:
        made = jwt.PyJWK(content).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(
        made,
        rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey,
    ):
        made = made.public_key()
    usable = algorithms_of(made) & algorithms
    if "alg" in content:
        usable &= {content["alg"]} if isinstance(content["alg"], str) else set()
    return VerificationKey(made, usable, mark) if usable else None
