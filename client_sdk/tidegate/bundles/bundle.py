"""A bundle that was taken and checked, and the TLS context that it makes."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from tidegate.bundles.certificate import Certificate
from tidegate.bundles.parts import PrivateKey
from tidegate.errors import TLSError


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Authorities to verify a broker with, and optionally a client certificate with its chain and key.

    Made by ``load_bundle`` and its kin, which check it; give it as ``tls=``.

    Attributes:
        place: where the bundle came from.
        authorities: what a broker's certificate is verified with; empty means the system's authorities.
        certificate: the client's; None where there is none.
        chain: what is sent along with it, its signer first, without the root.
        key: where the private key came from, and the key.
        reaches_authority: whether the chain ends at one of ``authorities``. It need not: the authority of a
            broker's certificate may be another than that of its clients, as with AWS IoT.
        ignored: files that were looked at and hold nothing to use.
    """

    place: str
    authorities: tuple[Certificate, ...] = ()
    certificate: Certificate | None = None
    chain: tuple[Certificate, ...] = ()
    key: PrivateKey | None = None
    reaches_authority: bool = False
    ignored: tuple[str, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        """What may be seen: of each certificate its names, end and fingerprint; of the key nothing."""
        shown = [f"authority: {_shown(each)}" for each in self.authorities]
        if self.certificate is not None:
            shown.insert(0, f"certificate: {_shown(self.certificate)}")
        return f"<Bundle {self.place!r} {'; '.join(shown)}>"

    def context(self, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """A client's TLS context: TLS 1.2 or newer, the host name checked.

        Args:
            alpn: protocols to offer (RFC 7301); ``["x-amzn-mqtt-ca"]`` for AWS IoT on port 443.

        Raises:
            TLSError: OpenSSL does not take the certificate or the key.
        """
        trusted = b"".join(each.parsed.public_bytes(Encoding.DER) for each in self.authorities)
        context = ssl.create_default_context(cadata=trusted or None)
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        if trusted:
            # The same on every Python: an authority that is given is trusted, a root or not, which 3.13 has
            # as its default; and it need not follow RFC 5280 to the letter, which 3.13 asks for by default
            # and which those that `openssl req -x509` makes do not (they have no key usage).
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.certificate is not None and self.key is not None:
            self._load_pair(context, self.certificate, self.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def dump(self) -> bytes:
        """The whole bundle, *with its key unencrypted*, as JSON for ``restore_bundle``; for a safe place."""
        document = {"ca": b"".join(each.as_pem() for each in self.authorities).decode()}
        if self.certificate is not None and self.key is not None:
            document["certificate"] = self._certificates(self.certificate).decode()
            document["private_key"] = _key_as_pem(self.key, NoEncryption()).decode()
        return json.dumps({name: text for name, text in document.items() if text}).encode()

    def _certificates(self, certificate: Certificate) -> bytes:
        return b"".join(each.as_pem() for each in (certificate, *self.chain))

    def _load_pair(self, context: ssl.SSLContext, certificate: Certificate, key: PrivateKey) -> None:
        passphrase = secrets.token_hex(32)
        content = _key_as_pem(key, BestAvailableEncryption(passphrase.encode())) + self._certificates(
            certificate
        )
        try:
            with _as_file(content) as path:
                context.load_cert_chain(path, password=passphrase)
        except ssl.SSLError as error:
            reason: str = error.reason or str(error)
            raise TLSError(
                f"OpenSSL does not take the certificate in {certificate.source} with its key: "
                f"{reason.lower().replace('_', ' ')}",
                file=certificate.source,
            ) from error
        except OSError as error:
            raise TLSError(
                "the client certificate cannot be handed to OpenSSL, for want of a directory for temporary "
                f"files: {error.strerror}; name one with TMPDIR"
            ) from error


def _shown(certificate: Certificate) -> str:
    return (
        f"{certificate.label}, issued by {certificate.issuer}, until {certificate.not_after:%Y-%m-%d}, "
        f"SHA-256 {certificate.fingerprint}"
    )


def _key_as_pem(key: PrivateKey, encryption: KeySerializationEncryption) -> bytes:
    pem: Any = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return bytes(pem)


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path that reads as these bytes, for as long as the block runs: Python's OpenSSL takes a pair by path.

    On Linux it leads to memory. Elsewhere, and where the system forbids that or has no ``/proc``, it is a
    temporary file that its owner alone may read: the key in it is encrypted with a passphrase that nobody
    else ever has.
    """
    if hasattr(os, "memfd_create"):
        try:
            number = os.memfd_create("tidegate")
        except OSError:
            number = -1
        if number >= 0:
            path = f"/proc/self/fd/{number}"
            with os.fdopen(number, "wb") as memory:
                memory.write(content)
                memory.flush()
                if os.access(path, os.R_OK):
                    yield path
                    return
    with tempfile.NamedTemporaryFile(prefix="tidegate-") as file:
        file.write(content)
        file.flush()
        yield file.name
