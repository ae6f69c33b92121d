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


def unreachable(address: str, cause: BaseException) -> MQTTConnectionError:
    """The error for a connection that failed below MQTT.

    Args:
        address: host and port.
        cause: what the operating system, the name look-up or the TLS library said.
    """
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLSError(f"the certificate of {address} was not accepted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError) or "SSL" in str(cause):
        return TLSError(f"the TLS handshake with {address} failed: {cause}")
    if isinstance(cause, socket.gaierror):
        return MQTTConnectionError(f"the name in {address} cannot be resolved: {cause.strerror}")
    if isinstance(cause, ConnectionRefusedError):
        return MQTTConnectionError(f"nothing listens at {address}")
    return MQTTConnectionError(f"{address} cannot be reached: {cause}")
