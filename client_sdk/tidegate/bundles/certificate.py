"""One certificate: what it says, and where it came from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

Kind = TypeVar("Kind", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate (RFC 5280), described.

    Attributes:
        parsed: the certificate itself.
        source: the file it came from; inside a ZIP ``kit.zip!device.pem``.
        subject: whom it is for, as RFC 4514 writes names; may be empty where there are ``names``.
        issuer: who signed it.
        names: its subject alternative names: DNS names, IP addresses, mail addresses and URIs.
        not_before: the first moment of its validity, in UTC.
        not_after: the last moment.
        fingerprint: the SHA-256 of its DER form, as 64 hexadecimal digits.
        is_authority: whether it may sign certificates (RFC 5280 §4.2.1.9, §4.2.1.3); a root without basic
            constraints is older than these, and counts.
        may_be_a_client: whether its extended key usage, where it has one, allows TLS clients (RFC 5280
            §4.2.1.12).
    """

    parsed: x509.Certificate = field(repr=False)
    source: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str
    is_authority: bool
    may_be_a_client: bool

    @classmethod
    def describe(cls, certificate: x509.Certificate, *, source: str) -> Certificate:
        """Read what a certificate says.

        Raises:
            ValueError: its names, dates or extensions are malformed.
        """
        with _old_serial_numbers():
            return cls(
                parsed=certificate,
                source=source,
                subject=_printable(certificate.subject.rfc4514_string()),
                issuer=_printable(certificate.issuer.rfc4514_string()),
                names=_alternative_names(certificate),
                not_before=certificate.not_valid_before_utc,
                not_after=certificate.not_valid_after_utc,
                fingerprint=certificate.fingerprint(SHA256()).hex(),
                is_authority=_is_authority(certificate),
                may_be_a_client=_may_be_a_client(certificate),
            )

    @classmethod
    def from_der(cls, der: bytes, *, source: str) -> Certificate:
        """Describe a certificate in DER form, as ``ssl.SSLSocket.getpeercert(binary_form=True)`` gives it.

        Raises:
            ValueError: it is none.
        """
        return cls.describe(parse_certificate(der), source=source)

    @property
    def label(self) -> str:
        """What to call it in a text: its subject, else its first name, else its fingerprint."""
        return self.subject or next(iter(self.names), self.fingerprint)

    @property
    def is_self_signed(self) -> bool:
        """Whether it names itself as its issuer."""
        return self.parsed.issuer == self.parsed.subject

    @property
    def public_key(self) -> bytes:
        """Its SubjectPublicKeyInfo in DER form; that of its private key is the same.

        Raises:
            ValueError: the key is malformed.
            UnsupportedAlgorithm: it is of a kind that the library does not know.
        """
        return self.parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Whether the issuer's key made the signature."""
        try:
            self.parsed.verify_directly_issued_by(issuer.parsed)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True

    def days_left(self, now: datetime | None = None) -> int:
        """Whole days until it expires; negative once it has.

        Args:
            now: an aware moment; this one where it is left out.
        """
        return (self.not_after - (now or datetime.now(UTC))).days

    def as_pem(self) -> bytes:
        """The certificate as one PEM block (RFC 7468)."""
        return self.parsed.public_bytes(Encoding.PEM)


def parse_certificate(content: bytes, *, is_pem: bool = False) -> x509.Certificate:
    """Read one certificate in DER form, or in PEM.

    Raises:
        ValueError: it is none.
    """
    with _old_serial_numbers():
        return (x509.load_pem_x509_certificate if is_pem else x509.load_der_x509_certificate)(content)


@contextmanager
def _old_serial_numbers() -> Iterator[None]:
    """No warnings of serial numbers that are 0 or negative: systems trust roots that have, or name, such."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Parsed a serial number")
        yield


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None:
        return certificate.issuer == certificate.subject
    usage = _extension(certificate, x509.KeyUsage)
    return constraints.ca and (usage is None or usage.key_cert_sign)


def _may_be_a_client(certificate: x509.Certificate) -> bool:
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    allowed = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    return usage is None or not allowed.isdisjoint(usage)


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    found = _extension(certificate, x509.SubjectAlternativeName)
    kinds = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
    return tuple(_printable(str(name.value)) for name in found or () if isinstance(name, kinds))


def _printable(text: str) -> str:
    """The text on one line: a name is written by whoever asked for the certificate."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
