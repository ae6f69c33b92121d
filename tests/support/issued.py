"""Certificates of every kind that tests need and that no authority would issue."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, in the forms that files have."""

    x509: x509.Certificate
    private_key: Any

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.x509.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.x509.public_bytes(Encoding.DER)

    @property
    def public_pem(self) -> bytes:
        """The public key."""
        return bytes(
            self.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def key(
        self,
        *,
        passphrase: str = "",
        encoding: Encoding = Encoding.PEM,
        form: PrivateFormat = PrivateFormat.PKCS8,
    ) -> bytes:
        """The private key, encrypted where there is a passphrase."""
        encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return bytes(self.private_key.private_bytes(encoding, form, encryption))

    def pkcs12(self, *others: Issued, passphrase: str = "") -> bytes:
        """Certificate and key, and the certificates of others."""
        encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return pkcs12.serialize_key_and_certificates(
            b"name", self.private_key, self.x509, [each.x509 for each in others], encryption
        )


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key, the same for the whole run, since making one takes long."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


def issue(
    name: str,
    by: Issued | None = None,
    *,
    is_authority: bool | None = False,
    key: Any = None,
    starts: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=90),
    names: tuple[x509.GeneralName, ...] = (),
    for_servers_alone: bool = False,
    serial: int | None = None,
    extension: x509.ExtensionType | None = None,
) -> Issued:
    """Issue a certificate.

    Args:
        name: the common name of its subject; empty for a subject without any.
        by: who signs it; itself where that is left out.
        is_authority: its basic constraints; None for none.
        key: its key; a new one on the curve P-256 where it is left out.
        starts: the first moment of its validity.
        ends: the last one.
        names: its subject alternative names.
        for_servers_alone: whether its extended key usage names servers and no clients.
        serial: its serial number; a random one where it is left out.
        extension: one more extension.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.x509.subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
    )
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    if by is not None:
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.private_key.public_key())
        builder = builder.add_extension(signer, critical=False)
    if is_authority is not None:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=None), critical=True
        )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if for_servers_alone:
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return Issued(builder.sign(key if by is None else by.private_key, SHA256()), key)


def altered(issued: Issued, old: bytes, new: bytes) -> Issued:
    """The same certificate with other bytes in its DER form; its signature is then wrong."""
    assert old in issued.der
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # a serial number of 0
        return Issued(x509.load_der_x509_certificate(issued.der.replace(old, new)), issued.private_key)
