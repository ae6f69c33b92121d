"""What a failed step means, and what to do about it."""

from __future__ import annotations

from typing import Final, Literal

from tidegate.connection import ConnectOptions
from tidegate.errors import ConnectRefusedError, MQTTError

_CREDENTIALS: Final = (
    "Set TIDEGATE_BROKER_USERNAME and TIDEGATE_BROKER_PASSWORD, or put them into the URL; in a URL, "
    "write @ : / # % as %40 %3A %2F %23 %25."
)
_BY_REASON_CODE: Final[dict[int, str]] = {
    0x84: "Set TIDEGATE_BROKER_PROTOCOL=3.1.1, or leave it at auto.",
    0x85: "The broker wants another client identifier: set TIDEGATE_BROKER_CLIENT_ID.",
    0x86: _CREDENTIALS,
    0x87: _CREDENTIALS,
    0x8A: "The broker bans this client; its administrator can lift that.",
}


Kind = Literal["broker", "bridge"]
"""What is looked for."""

_NOT_LISTENING: Final[dict[Kind, str]] = {
    "broker": "Is the broker running, and is the port right? Usual are 1883 for mqtt and 8883 for mqtts.",
    "bridge": "Is the bridge running, and is the port right? Usual is 8080; without a port in the URL "
    "it is 80, or 443 for https.",
}


class StepError(Exception):
    """A step went wrong.

    Attributes:
        advice: what to do.
    """

    def __init__(self, seen: str, advice: str) -> None:
        super().__init__(seen)
        self.advice = advice


def explain_tcp(error: OSError, host: str, port: int, kind: Kind = "broker") -> StepError:
    """Why no TCP connection could be made."""
    if isinstance(error, ConnectionRefusedError):
        return StepError(f"nothing listens at {host}, port {port}", _NOT_LISTENING[kind])
    return StepError(
        f"{host}, port {port} cannot be reached: {error.strerror or error}",
        "Is there a route to this address, and does a firewall let it through?",
    )


def explain_connect(error: MQTTError, options: ConnectOptions) -> StepError:
    """Why the broker did not accept CONNECT (MQTT 5 §3.2.2.2)."""
    if isinstance(error, ConnectRefusedError) and error.reason_code is not None:
        advice = _BY_REASON_CODE.get(error.reason_code, "The broker's log tells why.")
        return StepError(str(error), advice)
    if options.tls is None:
        return StepError(
            str(error),
            "Is this a port with TLS? Then begin the URL with mqtts:// (or wss://). Is it MQTT at all?",
        )
    return StepError(
        str(error),
        "Is it MQTT that answers at this port? The broker may want another client certificate "
        "(TIDEGATE_BROKER_CERTIFICATE_FILE and _KEY_FILE), or another client identifier. Its log tells more.",
    )
