"""What a file holds, known by its content: certificates and keys in PEM, DER, PKCS#12 or JSON.

As in ``forms``, no exception of a parser is chained to those raised here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)

from tidegate.bundles.certificate import Certificate, parse_certificate
from tidegate.bundles.derivation import ROUNDS, derivation_rounds
from tidegate.bundles.forms import as_utf8, blocks, decode_block, is_pkcs12, parse_json
from tidegate.errors import TLSError

KEY_BYTES: Final = 16_384
"""The longest private key: RSA of 16,384 bits comes to less, and checking takes longer with each bit."""
KEYS: Final = 100
"""The most private keys that are looked at; one is used."""
CERTIFICATES: Final = 1000
"""The most certificates; systems trust about 150."""

_CERTIFICATES: Final = (b"CERTIFICATE", b"X509 CERTIFICATE")
_MEMBERS: Final = ("ca", "certificate", "private_key")
_PARSER_ERRORS: Final = (ValueError, TypeError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key; its ``repr`` has where it came from and nothing else.

    Attributes:
        key: the key itself.
        source: the file it came from.
        public_key: its public half, in the form of ``Certificate.public_key``.
    """

    key: Any = field(repr=False)
    source: str
    public_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Passphrase:
    """What opens encrypted keys.

    Attributes:
        value: the passphrase; None where none was given.
        name: what whoever calls gives it as, for an error's text.
    """

    value: bytes | None = field(default=None, repr=False)
    name: str = "passphrase"


@dataclass(slots=True)
class Parts:
    """What was found, in the order in which it was found.

    Attributes:
        certificates: each once, with the first file that has it.
        keys: the same for private keys.
        locked: the errors of keys that could not be opened, which matters where no other key fits.
        ignored: the files that hold nothing to use.
        rounds: the work of opening keys so far, as in ``derivation``.
        tried: how many keys were looked at.
    """

    certificates: list[Certificate] = field(default_factory=list)
    keys: list[PrivateKey] = field(default_factory=list)
    locked: list[TLSError] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    rounds: int = 0
    tried: int = 0

    def read(self, content: bytes, source: str, passphrase: Passphrase) -> bool:
        """Take the certificates and keys of one file; returns whether there were any.

        Raises:
            TLSError: it is one of theirs by its form, and damaged; or all of them together are too many, or
                take too long to open.
        """
        before = (len(self.certificates), len(self.keys), len(self.locked))
        content = as_utf8(content)
        if b"-----BEGIN " in content and not content.lstrip().startswith((b"{", b"[")):
            self._read_pem(content, source, passphrase)
        elif content.lstrip().startswith((b"{", b"[")):
            self._read_json(content, source, passphrase)
        elif content.startswith(b"\x30"):
            self._read_der(content, source, passphrase)
        found = before != (len(self.certificates), len(self.keys), len(self.locked))
        if not found:
            self.ignored.append(source)
        return found

    def _read_pem(self, content: bytes, source: str, passphrase: Passphrase) -> None:
        for label, block in blocks(content, source):
            if label in _CERTIFICATES:
                self._add_certificate(_parse(block, is_pem=True), source)
            elif label.endswith(b"PRIVATE KEY"):
                self._add_key(block, source, passphrase, is_pem=True)

    def _read_json(self, content: bytes, source: str, passphrase: Passphrase) -> None:
        document, texts = parse_json(content, source)
        passphrase = _passphrase_of(document, passphrase)
        for name, text in texts:
            self._read_pem(text.encode("utf-8", "surrogatepass"), f"{source}!{name}", passphrase)

    def _read_der(self, content: bytes, source: str, passphrase: Passphrase) -> None:
        if is_pkcs12(content):
            self._read_pkcs12(content, source, passphrase)
            return
        certificate = _parse(content, is_pem=False)
        if certificate is not None:
            self._add_certificate(certificate, source)
        elif len(content) <= KEY_BYTES:
            self._add_key(content, source, passphrase, is_pem=False)

    def _read_pkcs12(self, content: bytes, source: str, passphrase: Passphrase) -> None:
        self._spend(content, source, is_pkcs12=True)
        loaded = None
        for secret in dict.fromkeys((passphrase.value, None, b"")):
            try:
                loaded = pkcs12.load_pkcs12(content, secret)
            except _PARSER_ERRORS:
                continue
            break
        if loaded is None:
            self.locked.append(_locked("PKCS#12 file", source, passphrase))
            return
        for each in (loaded.cert, *loaded.additional_certs):
            if each is not None:
                self._add_certificate(each.certificate, source)
        if loaded.key is not None:
            self._keep_key(loaded.key, source)

    def _add_certificate(self, certificate: x509.Certificate | None, source: str) -> None:
        described = None
        if certificate is not None:
            try:
                described = Certificate.describe(certificate, source=source)
                _ = described.public_key  # of a kind that is known
            except _PARSER_ERRORS:
                described = None
        if described is None:
            raise TLSError(
                f"{source} has a certificate that is damaged: it cannot be parsed; copy the file anew",
                file=source,
            )
        if all(each.fingerprint != described.fingerprint for each in self.certificates):
            if len(self.certificates) == CERTIFICATES:
                raise TLSError(f"{source} has one certificate more than {CERTIFICATES:,}", file=source)
            self.certificates.append(described)

    def _spend(self, content: bytes, source: str, *, is_pkcs12: bool) -> None:
        """Count a file with a key before it is opened.

        Raises:
            TLSError: it is one too many, or asks for too much work.
        """
        self.tried += 1
        if self.tried > KEYS:
            raise TLSError(f"{source} has one private key more than {KEYS}", file=source)
        self.rounds += derivation_rounds(content, is_pkcs12=is_pkcs12)
        if self.rounds > ROUNDS:
            raise TLSError(
                f"{source} asks for more than {ROUNDS:,} rounds of hashing to turn a passphrase into a key, "
                "which would take too long; encrypt it anew with fewer",
                file=source,
            )

    def _add_key(self, content: bytes, source: str, passphrase: Passphrase, *, is_pem: bool) -> None:
        if len(content) > KEY_BYTES:
            raise TLSError(
                f"{source} has a key of more than {KEY_BYTES:,} bytes: no key is that long", file=source
            )
        self._spend(decode_block(content) if is_pem else content, source, is_pkcs12=False)
        load = load_pem_private_key if is_pem else load_der_private_key
        key, is_encrypted = None, False
        try:
            key = load(content, None)
        except TypeError:  # "password was not given but private key is encrypted"
            is_encrypted = True
        except _PARSER_ERRORS:
            pass
        if is_encrypted and passphrase.value:
            try:
                key = load(content, passphrase.value)
            except _PARSER_ERRORS:
                key = None
        if key is not None:
            self._keep_key(key, source)
        elif is_encrypted:
            self.locked.append(_locked("key in", source, passphrase))
        elif is_pem:
            self.locked.append(
                TLSError(
                    f"{source} has a private key that is damaged, or of a kind unknown here", file=source
                )
            )

    def _keep_key(self, key: Any, source: str) -> None:
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if all(each.public_key != public for each in self.keys):
            self.keys.append(PrivateKey(key, source, public))


def read_members(
    content: bytes, source: str, passphrase: Passphrase
) -> tuple[list[tuple[str, bytes] | None], Passphrase] | None:
    """The members ``ca``, ``certificate`` and ``private_key`` of a JSON document, and what to call them.

    Returns:
        The three, None for one that is not there, and the passphrase to use; None where the content is no
        JSON document that has any of them.

    Raises:
        TLSError: one of them is no text.
    """
    content = as_utf8(content)
    if not content.lstrip().startswith(b"{"):
        return None
    document, _ = parse_json(content, source)
    if not isinstance(document, dict) or set(_MEMBERS).isdisjoint(document):
        return None
    members: list[tuple[str, bytes] | None] = []
    for name in _MEMBERS:
        text = document.get(name) or ""
        if not isinstance(text, str):
            raise TLSError(f"{source}!{name} is no text; write the PEM as one", file=f"{source}!{name}")
        members.append((f"{source}!{name}", text.encode("utf-8", "surrogatepass")) if text else None)
    return members, _passphrase_of(document, passphrase)


def _passphrase_of(document: Any, given: Passphrase) -> Passphrase:
    """The passphrase that was given, else that of the document."""
    own = document.get("passphrase") if isinstance(document, dict) else None
    if given.value is not None or not isinstance(own, str) or not own:
        return given
    return Passphrase(own.encode("utf-8", "surrogatepass"), given.name)


def _parse(content: bytes, *, is_pem: bool) -> x509.Certificate | None:
    """The certificate; None where there is none."""
    try:
        return parse_certificate(content, is_pem=is_pem)
    except ValueError:
        return None


def _locked(what: str, source: str, passphrase: Passphrase) -> TLSError:
    if passphrase.value:
        return TLSError(f"the {passphrase.name} does not open the {what} {source}", file=source)
    return TLSError(f"the {what} {source} is encrypted; give its {passphrase.name}", file=source)
