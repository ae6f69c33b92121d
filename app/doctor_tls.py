"""The TLS step of ``tidegate doctor``: a handshake, what it shows, and why it fails in words."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from app.doctor_advice import StepError
from tidegate.bundles import Certificate
from tidegate.connection import ConnectOptions

FEW_DAYS: Final = 14
HANDSHAKE_SECONDS: Final = 10.0
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
_NAME_MISMATCH: Final = frozenset({62, 64})
"""X509_V_ERR_…, as OpenSSL numbers them."""


def shake_hands(options: ConnectOptions) -> tuple[str, str]:
    """Make a TLS handshake; returns what was agreed on and shown, and advice where the end is near.

    Raises:
        StepError: it failed.
    """
    assert options.tls is not None
    try:
        with (
            socket.create_connection((options.host, options.port), timeout=HANDSHAKE_SECONDS) as plain,
            options.tls.wrap_socket(plain, server_hostname=options.host) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
            cipher = secure.cipher()
            protocol = secure.version()
    except OSError as error:
        raise _explain(error, options) from error
    agreed = f"{protocol}, {cipher[0] if cipher else 'no cipher'}"
    try:
        certificate = Certificate.from_der(der or b"", source=options.host)
    except ValueError as error:  # OpenSSL is less strict
        return f"{agreed}, with a certificate that does not follow RFC 5280: {error}", ""
    days = certificate.days_left()
    advice = f"The broker's certificate expires in {days} days: renew it." if days < FEW_DAYS else ""
    return f"{agreed}, for {', '.join(certificate.names)}, {days} days left", advice


def _explain(error: OSError, options: ConnectOptions) -> StepError:
    """Why the TLS handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, options)
    if isinstance(error, ssl.SSLError) and error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return StepError(
            f"port {options.port} does not speak TLS",
            "Begin the URL with mqtt:// (or ws://, http://), or name the port that has TLS, as a rule 8883.",
        )
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return StepError(
        f"the handshake failed: {reason or 'the connection was closed'}",
        "The broker's log tells more. It may want a client certificate (TIDEGATE_BROKER_CERTIFICATE_FILE), "
        "or a version of TLS that this machine does not offer.",
    )


def _explain_certificate(error: ssl.SSLCertVerificationError, options: ConnectOptions) -> StepError:
    code = error.verify_code
    if code in _UNKNOWN_AUTHORITY:
        return StepError(
            f"unknown authority: the certificate of {options.host} is not vouched for by one that is trusted "
            f"here ({error.verify_message})",
            "Name the authority's certificate with --ca-file or TIDEGATE_BROKER_CA_FILE.",
        )
    if code in _NAME_MISMATCH:
        names = _names(options)
        return StepError(
            f"name mismatch: the certificate is for {names or 'other names'}, and not for {options.host}",
            "Put one of these names into the URL, or have a certificate made that has this one.",
        )
    if code == _EXPIRED:
        return StepError(
            "expired: the certificate, or one of its authorities, is past its date",
            "Renew it at the broker. Is the clock of this machine right?",
        )
    if code == _NOT_YET_VALID:
        return StepError("the certificate is not valid yet", "Is the clock of this machine right?")
    return StepError(
        f"the certificate was not accepted: {error.verify_message}",
        "The authority's administrator can tell more.",
    )


def _names(options: ConnectOptions) -> str:
    """The names in a certificate that is trusted and whose name does not match."""
    assert options.tls is not None
    options.tls.check_hostname = False
    try:
        with (
            socket.create_connection((options.host, options.port), timeout=HANDSHAKE_SECONDS) as plain,
            options.tls.wrap_socket(plain) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
        names = () if der is None else Certificate.from_der(der, source=options.host).names
    except (OSError, ValueError):
        return ""
    finally:
        options.tls.check_hostname = True
    return ", ".join(names)
