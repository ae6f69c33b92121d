"""Every error that the SDK raises, in one tree.

    MQTTError
    ├── ConfigurationError          a URL, option or argument that cannot be used (also a ValueError)
    │   └── TopicError              a topic name or filter that MQTT forbids (MQTT 5 §4.7)
    ├── PayloadError                a payload that cannot be written or read by its formatter
    ├── UnsupportedError            the broker or protocol version cannot carry what was asked for
    ├── MQTTConnectionError         the broker cannot be reached, or the connection ended
    │   ├── NotConnectedError       nothing was sent: the same call may be made again
    │   ├── ConnectRefusedError     the broker answered CONNECT with a refusal
    │   └── TLSError                the TLS handshake or a certificate file failed
    ├── MQTTTimeoutError            the broker did not answer in time
    │   └── OutcomeUnknownError     a message was sent and not acknowledged: it may have arrived
    ├── QueueFullError              the bounded waiting room is full: nothing was sent
    └── RefusedError                the broker refused, and said why (MQTT 5 §2.4)
        └── NotAuthorizedError      reason code 0x87

Ask an error whose fault it is with ``fault`` (``"caller"``, ``"broker"`` or ``"network"``), and whether the
same call may succeed later with ``retryable``. ``topic``, ``qos`` and ``reason_code`` are set where known.

``UnsupportedQoSWarning`` is no error: the message goes out with a lower QoS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tidegate.reason_codes import describe

if TYPE_CHECKING:
    import asyncio

Fault = Literal["caller", "broker", "network"]


class MQTTError(Exception):
    """Root of the tree.

    Attributes:
        topic: the topic name or filter concerned, where there is one.
        qos: the quality of service asked for, where it matters.
        reason_code: the MQTT 5 reason code (0 to 255), where the broker gave one, or would give it.
    """

    fault: ClassVar[Fault] = "network"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        topic: str | None = None,
        qos: int | None = None,
        reason_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.qos = qos
        self.reason_code = reason_code


class ConfigurationError(MQTTError, ValueError):
    """A URL, option or argument that cannot be used; the text says what is allowed."""

    fault = "caller"


class TopicError(ConfigurationError):
    """A topic name or topic filter that MQTT forbids (MQTT 5 §4.7, §1.5.4)."""


class PayloadError(MQTTError):
    """A payload that its formatter cannot write, or a message that it cannot read."""

    fault = "caller"


class UnsupportedError(MQTTError):
    """The broker, or the protocol version in use, cannot carry what was asked for."""

    fault = "caller"


class MQTTConnectionError(MQTTError):
    """The broker cannot be reached, or the connection to it ended."""

    retryable = True


class NotConnectedError(MQTTConnectionError):
    """There is no connection, and nothing was sent."""


class ConnectRefusedError(MQTTConnectionError):
    """The broker answered CONNECT with a refusing reason code (MQTT 5 §3.2.2.2)."""

    fault = "broker"


class TLSError(MQTTConnectionError):
    """The TLS handshake failed, or a certificate or key cannot be used.

    Attributes:
        file: the path of the file that is at fault, where one is; inside a ZIP ``kit.zip!device.pem``.
    """

    retryable = False

    def __init__(self, message: str, *, file: str | None = None) -> None:
        super().__init__(message)
        self.file = file


class MQTTTimeoutError(MQTTError):
    """The broker did not answer in time."""

    retryable = True


class OutcomeUnknownError(MQTTTimeoutError):
    """A message was sent and its acknowledgement did not come: it may have arrived, or not.

    Attributes:
        outcome: where the broker may still answer, a future that is done when it does, with the reason code,
            also a refusing one; or that fails with MQTTConnectionError when it never will. Else None.
    """

    def __init__(
        self,
        message: str,
        *,
        topic: str | None = None,
        qos: int | None = None,
        reason_code: int | None = None,
        outcome: asyncio.Future[int] | None = None,
    ) -> None:
        super().__init__(message, topic=topic, qos=qos, reason_code=reason_code)
        self.outcome = outcome


class QueueFullError(MQTTError):
    """Too many messages wait for the broker already; nothing was sent."""

    retryable = True


class RefusedError(MQTTError):
    """The broker refused a publish or a subscription with a reason code of 0x80 or more."""

    fault = "broker"

    def __init__(
        self,
        message: str,
        *,
        reason_code: int,
        topic: str | None = None,
        qos: int | None = None,
    ) -> None:
        super().__init__(message, topic=topic, qos=qos, reason_code=reason_code)


class NotAuthorizedError(RefusedError):
    """The broker's access rules forbid it (reason code 0x87)."""


class UnsupportedQoSWarning(UserWarning):
    """The broker has no such quality of service, and a lower one is used instead."""


def refusal(
    action: str, reason_code: int, *, topic: str, qos: int | None = None, how: str = ""
) -> RefusedError:
    """Make the error for a refusing reason code.

    Args:
        action: what was refused, as a noun: ``"publish"`` or ``"subscription"``.
        reason_code: 0x80 to 0xFF (MQTT 5 §2.4).
        topic: the topic name or filter that was refused.
        qos: the quality of service asked for.
        how: in which way, where it was not by an acknowledgement.
    """
    kind = NotAuthorizedError if reason_code == 0x87 else RefusedError
    reason = f"{describe(reason_code)} (0x{reason_code:02X})"
    text = f"the broker refused the {action} of {topic!r}{how and ' '}{how}: {reason}"
    return kind(text, reason_code=reason_code, topic=topic, qos=qos)
