"""Why a connection could not be made, in words."""

from __future__ import annotations

import socket
import ssl

from tidegate.errors import ConnectRefusedError, MQTTConnectionError, TLSError
from tidegate.reason_codes import describe


class ClosedBeforeConnackError(MQTTConnectionError):
    """The broker closed the connection without an answer, as one without MQTT 5 may do."""


def refused(address: str, reason_code: int) -> ConnectRefusedError:
    """The error for a CONNACK with a refusing reason code (MQTT 5 §3.2.2.2)."""
    return ConnectRefusedError(
        f"{address} refused the connection: {describe(reason_code)} (0x{reason_code:02X})",
        reason_code=reason_code,
    )


def closed_early(error: ClosedBeforeConnackError, *, encrypted: bool) -> MQTTConnectionError:
    """The error for a broker that gave no answer in any version.

    Behind TLS 1.3 a server refuses a client's certificate after the handshake is over, and often without a
    word.
    """
    return TLSError(f"{error}; it may ask for a client certificate") if encrypted else error


def unreachable(address: str, cause: BaseException, *, in_handshake: bool) -> MQTTConnectionError:
    """The error for a connection that failed below MQTT.

    Args:
        address: host and port.
        cause: what the operating system, the name look-up or the TLS library said.
        in_handshake: whether the TLS handshake had begun and was not over.
    """
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLSError(f"the certificate of {address} was not accepted: {cause.verify_message}")
    if in_handshake and isinstance(cause, ConnectionError):
        return TLSError(f"{address} ended the TLS handshake: is it a port for TLS? ({cause})")
    if in_handshake or isinstance(cause, ssl.SSLError) or "ssl" in str(cause).lower():
        return TLSError(f"the TLS handshake with {address} failed: {cause}")
    if isinstance(cause, socket.gaierror):
        return MQTTConnectionError(f"the name in {address} cannot be resolved: {cause.strerror}")
    if isinstance(cause, ConnectionRefusedError):
        return MQTTConnectionError(f"nothing listens at {address}")
    return MQTTConnectionError(f"{address} cannot be reached: {cause}")
