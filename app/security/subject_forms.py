"""How the subject of a client certificate stands in the header of a proxy.

Rules:

1. The subject is compared as a whole; nothing that stands in it is taken apart.
2. Of Envoy's ``X-Forwarded-Client-Cert`` the one ``Subject`` of its one element counts, as it stands between
   the quotation marks.
3. Of Traefik's ``X-Forwarded-Tls-Client-Cert`` the first certificate counts, which is the client's own
   (RFC 8446 §4.4.2). Its subject is written as in RFC 4514. It is read here; the proxy has verified it.
4. Traefik's ``X-Forwarded-Tls-Client-Cert-Info`` is not taken: a name that holds a quotation mark could pose
   as another there.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.x509.oid import NameOID

MAX_TEXT: Final = 4096
"""Bytes of a header with a subject."""
MAX_CERTIFICATES: Final = 32_768
"""Bytes of a header with a certificate and its chain."""

_PAIR: Final = r'[A-Za-z]+=(?:"(?:[^"\\]|\\.)*"|[^",;]*)'
_is_element: Final = re.compile(f"{_PAIR}(?:;{_PAIR})*").fullmatch
_subjects: Final = re.compile(r'(?:^|;)Subject="((?:[^"\\]|\\.)*)"(?=;|$)').findall
_BASE64: Final = rb"[A-Za-z0-9+/]+={0,2}"
_is_chain: Final = re.compile(rb"%b(?:,%b)*" % (_BASE64, _BASE64)).fullmatch
_NAMES: Final = {NameOID.SERIAL_NUMBER: "serialNumber", NameOID.EMAIL_ADDRESS: "emailAddress"}
"""As OpenSSL names them; without these they would be numbers."""

Form = Callable[[bytes], str]
"""Makes a subject of a header's value; ``ValueError`` says in words that follow its name what is wrong."""


def whole(value: bytes) -> str:
    """The value as it is.

    Raises:
        ValueError: it is too long, or no text.
    """
    if len(value) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT} bytes")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def of_envoy(value: bytes) -> str:
    """Of ``X-Forwarded-Client-Cert``.

    Raises:
        ValueError: it has not one element with one subject.
    """
    text = whole(value)
    found: list[str] = _subjects(text) if _is_element(text) else []
    if len(found) != 1:
        raise ValueError("has not one element with one Subject")
    return found[0]


def of_certificate(value: bytes) -> str:
    """Of a certificate in base64 (DER, or PEM without its first and last line), and its chain behind commas.

    Traefik escapes it as in a URL up to version 2.9.3, and not since.

    Raises:
        ValueError: it is too long, or no certificate.
    """
    if len(value) > MAX_CERTIFICATES:
        raise ValueError(f"is longer than {MAX_CERTIFICATES} bytes")
    chain = unquote_to_bytes(value)
    if not _is_chain(chain):
        raise ValueError("has no certificate in base64, as Traefik's passTLSClientCert writes with pem")
    try:
        certificate = x509.load_der_x509_certificate(
            base64.b64decode(chain.partition(b",")[0], validate=True)
        )
        return certificate.subject.rfc4514_string(_NAMES)
    except (ValueError, x509.InvalidVersion):
        raise ValueError("has a certificate that cannot be read") from None


def form_of(name: str, header: str) -> Form:
    """The form that a setting names.

    Args:
        name: of the form; ``auto`` for that of the header.
        header: the name of the header.
    """
    if name == "auto":
        name = _OF_HEADERS.get(header.lower(), "subject")
    return _FORMS[name]


_FORMS: Final[dict[str, Form]] = {"subject": whole, "envoy": of_envoy, "certificate": of_certificate}
_OF_HEADERS: Final = {"x-forwarded-client-cert": "envoy", "x-forwarded-tls-client-cert": "certificate"}
