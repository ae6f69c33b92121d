"""What a file holds, known by its content: certificates and keys in PEM, DER, PKCS#12 or JSON.

No exception of a parser is chained to those raised here: some hold the whole text that they stumbled over,
and that text may be a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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
from tidegate.errors import TLSError

KEY_BYTES: Final = 16_384
"""The longest private key: RSA of 16,384 bits comes to less. Checking a longer one could take minutes."""

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,60})-----")
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
    """

    certificates: list[Certificate] = field(default_factory=list)
    keys: list[PrivateKey] = field(default_factory=list)
    locked: list[TLSError] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def read(self, content: bytes, source: str, passphrase: Passphrase) -> bool:
        """Take the certificates and keys of one file; returns whether there were any.

        Raises:
            TLSError: it is one of theirs by its form, and damaged.
        """
        before = (len(self.certificates), len(self.keys), len(self.locked))
        content = _as_utf8(content)
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
        for label, block in _blocks(content, source):
            if label in _CERTIFICATES:
                self._add_certificate(_parse(block, is_pem=True), source)
            elif label.endswith(b"PRIVATE KEY"):
                self._add_key(block, source, passphrase, is_pem=True)

    def _read_json(self, content: bytes, source: str, passphrase: Passphrase) -> None:
        try:
            document: Any = json.loads(content, object_pairs_hook=_without_duplicates)
            texts = list(_texts(document, ""))
        except (ValueError, RecursionError):
            document, texts = None, []
        if document is None:
            if b"-----BEGIN " in content:
                raise TLSError(f"{source} begins like JSON, has PEM in it, and is no valid JSON", file=source)
            return  # another program's file, or a text that begins with a bracket
        if isinstance(document, dict):
            for name in _MEMBERS:
                if document.get(name) and not any(_texts(document[name], name)):
                    raise TLSError(f"the member {name!r} of {source} holds no PEM", file=f"{source}!{name}")
            own = document.get("passphrase")
            if passphrase.value is None and isinstance(own, str):
                passphrase = Passphrase(own.encode("utf-8", "surrogatepass"), passphrase.name)
        for name, text in texts:
            self._read_pem(text.encode("utf-8", "surrogatepass"), f"{source}!{name}", passphrase)

    def _read_der(self, content: bytes, source: str, passphrase: Passphrase) -> None:
        if _is_pkcs12(content):
            self._read_pkcs12(content, source, passphrase)
            return
        certificate = _parse(content, is_pem=False)
        if certificate is not None:
            self._add_certificate(certificate, source)
        elif len(content) <= KEY_BYTES:
            self._add_key(content, source, passphrase, is_pem=False)

    def _read_pkcs12(self, content: bytes, source: str, passphrase: Passphrase) -> None:
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
                _ = described.public_key, described.is_authority, described.may_be_a_client
            except _PARSER_ERRORS:
                described = None
        if described is None:
            raise TLSError(
                f"{source} has a certificate that is damaged: it cannot be parsed; copy the file anew",
                file=source,
            )
        if all(each.fingerprint != described.fingerprint for each in self.certificates):
            self.certificates.append(described)

    def _add_key(self, content: bytes, source: str, passphrase: Passphrase, *, is_pem: bool) -> None:
        if len(content) > KEY_BYTES:
            raise TLSError(
                f"{source} has a key of more than {KEY_BYTES:,} bytes: no key is that long", file=source
            )
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


def _as_utf8(content: bytes) -> bytes:
    """Text as Windows writes it, with a byte order mark or in UTF-16, as UTF-8 without."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf")


def _blocks(content: bytes, source: str) -> Iterator[tuple[bytes, bytes]]:
    """Each PEM block (RFC 7468) with its label; text around and between them is passed over.

    Raises:
        TLSError: a block has no end.
    """
    label, lines = b"", list[bytes]()
    for raw in content.splitlines():
        line = raw.strip()
        begin = _BEGIN.fullmatch(line)
        if begin:
            if label:
                break
            label, lines = begin[1], []
        if label:
            lines.append(line)
        if label and line == b"-----END " + label + b"-----":
            yield label, b"\n".join((*lines, b""))
            label = b""
    if label:
        raise TLSError(
            f"{source} is cut off: its block {label.decode()} has no end; copy the file anew", file=source
        )


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Each text with PEM in a JSON value, with its path of member names."""
    if isinstance(value, str) and "-----BEGIN " in value:
        yield name if name.isprintable() else "…", value
    elif isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(each, f"{name}.{key}" if name else str(key))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _is_pkcs12(content: bytes) -> bool:
    """Whether this is a PFX (RFC 7292 §4): a sequence that begins with the version 3, as no key does."""
    length = content[1] if len(content) > 1 else 0
    start = 2 + (length & 0x7F if length & 0x80 else 0)
    return content[start : start + 3] == b"\x02\x01\x03"
