"""The TLS step of a check: a handshake, what it shows, and why it fails in words."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

from app.diagnosis.advice import StepError
from tidegate.bundles import Certificate
from tidegate.connection import ConnectOptions
from tidegate.profiles import alpn_protocol

FEW_DAYS: Final = 14
HANDSHAKE_SECONDS: Final = 10.0
ALERT_SECONDS: Final = 1.5
"""How long a refusal may come after the handshake (TLS 1.3, RFC 8446 §4.4.2), and then an answer."""

_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_SELF_SIGNED: Final = 18
_SELF_SIGNED_IN_CHAIN: Final = 19
_UNKNOWN_AUTHORITY: Final = frozenset({2, 20, 21})
_NAME_MISMATCH: Final = frozenset({62, 64})
"""X509_V_ERR_…, as OpenSSL numbers them."""

_CONNECT: Final = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
"""MQTT 3.1.1, a clean session, and no client identifier."""

_MQTT_ANSWERS: Final = frozenset({0x20, 0xE0, 0xF0})
"""The first byte of CONNACK, DISCONNECT and AUTH."""

_PLAIN: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"})
_ASK: Final = "The broker's log tells more."
_ALERTS: Final[dict[str, tuple[str, str]]] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "client certificate missing: the broker wants one, and was shown none",
        "Use a credential with a certificate and key, or set TIDEGATE_BROKER_CERTIFICATE_FILE and _KEY_FILE.",
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "client certificate refused: the broker does not know the authority that signed it",
        "Have the broker trust that authority (Mosquitto: cafile). Does the chain lack a certificate?",
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (
        "client certificate refused: it has expired, or is not valid yet by the broker's clock",
        "Put a renewed one in its place.",
    ),
    "SSLV3_ALERT_CERTIFICATE_REVOKED": (
        "client certificate refused: it was revoked",
        "Have another one issued.",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("client certificate refused: the broker cannot use it", _ASK),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": (
        "client certificate refused: it is of a kind that the broker does not take",
        "Is it meant for TLS clients? Its extended key usage says so.",
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("client certificate refused", _ASK),
    "TLSV1_ALERT_ACCESS_DENIED": ("client certificate refused: it is known, and may not connect", _ASK),
    "TLSV1_ALERT_DECRYPT_ERROR": ("client certificate refused: its signature does not verify", _ASK),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the broker ended the handshake: it wants a client certificate, or ciphers that are not offered",
        "Use a credential with a certificate and key. " + _ASK,
    ),
    "TLSV1_ALERT_PROTOCOL_VERSION": (
        "the broker speaks no TLS 1.2",
        "Let it speak TLS 1.2 or 1.3; what is older is broken.",
    ),
    "UNSUPPORTED_PROTOCOL": (
        "the broker speaks no TLS 1.2",
        "Let it speak TLS 1.2 or 1.3; what is older is broken.",
    ),
}
"""Alerts (RFC 8446 §6.2), as OpenSSL names them."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a handshake agreed on and showed.

    Attributes:
        version: of TLS.
        cipher: the cipher suite.
        alpn: the protocol agreed on (RFC 7301), if any.
        chain: the peer's certificates, its own first, as verified; empty where they cannot be described.
    """

    version: str
    cipher: str
    alpn: str | None
    chain: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step saw.

    Attributes:
        detail: in words.
        advice: what to do, where something is near its end.
        handshake: what TLS agreed on, where that was the step.
    """

    detail: str
    advice: str = ""
    handshake: Handshake | None = None


def shake_hands(options: ConnectOptions) -> Seen:
    """Make a TLS handshake, and say what was agreed on and shown, with advice where the end is near.

    Raises:
        StepError: it failed.
    """
    try:
        with _reach(options) as plain, _encrypted(plain, options) as secure:
            der = secure.getpeercert(binary_form=True)
            handshake = Handshake(
                secure.version() or "",
                (secure.cipher() or ("no cipher",))[0],
                secure.selected_alpn_protocol(),
                _chain(secure, options.host),
            )
    except OSError as error:
        raise _explain(error, options) from error
    agreed = f"{handshake.version}, {handshake.cipher}"
    if handshake.alpn is not None:
        agreed += f", ALPN {handshake.alpn}"
    try:
        certificate = Certificate.from_der(der or b"", source=options.host)
    except ValueError as error:  # OpenSSL is less strict
        return Seen(
            f"{agreed}, with a certificate that does not follow RFC 5280: {error}", handshake=handshake
        )
    days = certificate.days_left()
    advice = f"The broker's certificate expires in {days} days: renew it." if days < FEW_DAYS else ""
    return Seen(f"{agreed}, for {', '.join(certificate.names)}, {days} days left", advice, handshake)


def late_refusal(options: ConnectOptions) -> StepError | None:
    """Why CONNECT is not answered, where the bytes that come tell it; else None.

    With TLS 1.3 a client is through the handshake before its certificate was looked at.
    """
    try:
        with _reach(options) as plain, plain if options.tls is None else _encrypted(plain, options) as line:
            # A broker that refused the certificate has said so already, and resets what comes after that.
            line.settimeout(ALERT_SECONDS)
            with contextlib.suppress(TimeoutError):
                answer = line.recv(32)
                return _not_mqtt(answer, options)
            line.sendall(_CONNECT)
            answer = line.recv(32)
    except ssl.SSLError as error:
        return _alert(error)
    except OSError:
        return None
    return _not_mqtt(answer, options)


def _not_mqtt(answer: bytes, options: ConnectOptions) -> StepError | None:
    if not answer or answer[0] in _MQTT_ANSWERS:
        return None
    return StepError(
        f"not MQTT: port {options.port} answers with {answer!r}",
        "Name the port at which the broker speaks MQTT, as a rule 8883 with TLS and 1883 without.",
    )


def _reach(options: ConnectOptions) -> socket.socket:
    return socket.create_connection((options.address or options.host, options.port), HANDSHAKE_SECONDS)


def _encrypted(plain: socket.socket, options: ConnectOptions) -> ssl.SSLSocket:
    assert options.tls is not None
    protocol = alpn_protocol(options)
    if protocol is not None:
        options.tls.set_alpn_protocols([protocol])
    return options.tls.wrap_socket(plain, server_hostname=options.host)


def _chain(secure: ssl.SSLSocket, host: str) -> tuple[Certificate, ...]:
    """The certificates of the other side, as they were verified (public since Python 3.13)."""
    inner: Any = secure if hasattr(secure, "get_verified_chain") else secure._sslobj  # type: ignore[attr-defined]
    try:
        found = [each if isinstance(each, bytes) else _der(each) for each in inner.get_verified_chain()]
        return tuple(Certificate.from_der(each, source=host) for each in found)
    except ValueError:
        return ()


def _der(certificate: Any) -> bytes:
    text: str = certificate.public_bytes()
    return ssl.PEM_cert_to_DER_cert(text)


def _alert(error: ssl.SSLError) -> StepError | None:
    found = _ALERTS.get(error.reason or "")
    return None if found is None else StepError(*found)


def _explain(error: OSError, options: ConnectOptions) -> StepError:
    """Why the TLS handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, options)
    if isinstance(error, ssl.SSLError):
        told = _alert(error)
        if told is not None:
            return told
    if (isinstance(error, ssl.SSLError) and error.reason in _PLAIN) or isinstance(
        error, ssl.SSLEOFError | ConnectionResetError
    ):
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
            "Name its certificate with --ca-file, TIDEGATE_BROKER_CA_FILE or the credential's ca.",
        )
    if code in (_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN):
        what = (
            f"self-signed: the certificate of {options.host} vouches for itself"
            if code == _SELF_SIGNED
            else f"self-signed certificate in the chain: the root that {options.host} shows"
        )
        return StepError(
            f"{what}, and is not trusted here (an unknown authority)",
            "If that is the right one, name it as the authority, with --ca-file, TIDEGATE_BROKER_CA_FILE or "
            "the credential's ca.",
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
        return StepError(
            "not yet valid: the broker's certificate, or one of its authorities, begins later",
            "Is the clock of this machine right?",
        )
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
            _reach(options) as plain,
            options.tls.wrap_socket(plain) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
        names = () if der is None else Certificate.from_der(der, source=options.host).names
    except (OSError, ValueError):
        return ""
    finally:
        options.tls.check_hostname = True
    return ", ".join(names)
