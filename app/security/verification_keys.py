"""Keys that the signatures of JSON Web Tokens are verified with, and the algorithms that each is good for.

Rules:

1. What a key can do is told by the key, and never by a token: a public key is no secret for HMAC
   (RFC 8725 §3.1).
2. ``none`` is no algorithm here, nor is one with a key that is too short (RFC 7518 §3.2, §3.3).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate

from tidegate.errors import ConfigurationError

_HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The fewest bytes of a secret (RFC 7518 §3.2)."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA_BITS: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """A key.

    Attributes:
        key: as PyJWT takes it.
        algorithms: what it may verify.
        mark: what it is, for telling whether it is still there.
    """

    key: Any = field(repr=False)
    algorithms: frozenset[str]
    mark: str = ""


class KeySource(Protocol):
    """Where keys come from."""

    @property
    def algorithms(self) -> frozenset[str]:
        """All that any of the keys may verify."""

    async def find(self, header: Mapping[str, Any]) -> VerificationKey:
        """The key of a token, good for its ``alg``.

        Args:
            header: the token's, with an ``alg`` out of ``algorithms``; nobody vouches for it.

        Raises:
            ProblemError: UNAUTHENTICATED where there is no such key; AUTHENTICATION_UNAVAILABLE where
                that cannot be told.
        """

    def has(self, key: VerificationKey) -> bool:
        """Whether a key that was found is still good."""


class StaticKey:
    """One key that never changes (``KeySource``).

    Args:
        key: the key.
    """

    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    @property
    def algorithms(self) -> frozenset[str]:
        """What it may verify."""
        return self._key.algorithms

    async def find(self, header: Mapping[str, Any]) -> VerificationKey:
        """The key, whatever a token calls it."""
        return self._key

    def has(self, key: VerificationKey) -> bool:
        """True."""
        return True


def algorithms_of(key: object) -> frozenset[str]:
    """What a public key can verify; nothing where it is of no use here."""
    match key:
        case rsa.RSAPublicKey() if key.key_size >= _RSA_BITS:
            return _RSA
        case ec.EllipticCurvePublicKey():
            name = _CURVES.get(key.curve.name)
            return frozenset() if name is None else frozenset({name})
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return frozenset({"EdDSA"})
    return frozenset()


def read_key(text: str, chosen: Iterable[str], *, name: str) -> VerificationKey:
    """A key from a setting: a public key or a certificate as PEM, else a secret for HMAC.

    Args:
        text: the key.
        chosen: the algorithms to take; all that it is good for where there are none.
        name: the setting, for errors.

    Raises:
        ConfigurationError: it is no key, or good for none of them, or too short.
    """
    wanted = frozenset(chosen)
    if "-----BEGIN " in text:
        key = _public_key(text, name)
        possible = algorithms_of(key)
        if not possible:
            raise ConfigurationError(
                f"{name}: the public key is of no use for tokens; take RSA of {_RSA_BITS} bits or more, an "
                "EC key on P-256, P-384 or P-521, or Ed25519"
            )
    else:
        _refuse_what_is_public(text, name)
        key = text.encode()
        possible = frozenset(each for each, least in _HMAC.items() if len(key) >= least)
        if wanted and not wanted <= frozenset(_HMAC):
            raise ConfigurationError(
                f"{name} is a secret, good for HS256, HS384 and HS512; TIDEGATE_JWT_ALGORITHMS names others, "
                "for which it has to be a public key as PEM"
            )
        least = max((_HMAC[each] for each in wanted), default=_HMAC["HS256"])
        if len(key) < least:
            raise ConfigurationError(
                f"{name} has {len(key)} bytes; {max(wanted, default='HS256')} needs at least {least} "
                "(RFC 7518 §3.2): 'openssl rand -base64 64' makes one"
            )
    if not wanted <= possible:
        raise ConfigurationError(
            f"{name} is a key for {', '.join(sorted(possible))}, and cannot verify "
            f"{', '.join(sorted(wanted - possible))}; change TIDEGATE_JWT_ALGORITHMS"
        )
    return VerificationKey(key, wanted or possible)


def _refuse_what_is_public(text: str, name: str) -> None:
    """Refuse what was meant as a public key: taken for a secret, everybody could sign with it."""
    kind = None
    if text.lstrip().startswith(("ssh-", "ecdsa-")):
        kind = "a public key of SSH"
    elif text.lstrip().startswith("{") and '"kty"' in text:
        kind = "a JSON Web Key"
    elif _is_der(text):
        kind = "a public key without its lines BEGIN and END"
    if kind is not None:
        raise ConfigurationError(f"{name} is {kind}; write the public key as PEM")


def _is_der(text: str) -> bool:
    try:
        der = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return False
    for load in (load_der_public_key, load_der_x509_certificate, _load_der_private_key):
        try:
            load(der)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        return True
    return False


def _load_der_private_key(der: bytes) -> object:
    return load_der_private_key(der, None)


def _public_key(text: str, name: str) -> Any:
    if "PRIVATE KEY-----" in text:
        raise ConfigurationError(
            f"{name} is a private key; the bridge needs the public one alone: 'openssl pkey -pubout' makes it"
        )
    try:
        if "-----BEGIN CERTIFICATE-----" in text:
            return load_pem_x509_certificate(text.encode()).public_key()
        return load_pem_public_key(text.encode())
    except ValueError as error:
        raise ConfigurationError(f"{name} is no public key: it cannot be read as PEM") from error
