"""Publish to MQTT topics and follow them: straight from a broker, or through a Tidegate bridge over HTTP.

    from tidegate import publish, subscribe

One URL decides the way: ``mqtt://``, ``mqtts://``, ``ws://`` and ``wss://`` lead to a broker, ``http://`` and
``https://`` to a bridge. It comes from an argument, from ``configure``, or from ``TIDEGATE_URL``.
"""

from __future__ import annotations

from tidegate.configuration import configure
from tidegate.decorators import async_publish, async_subscribe, publish, subscribe
from tidegate.errors import (
    ConfigurationError,
    ConnectRefusedError,
    MQTTConnectionError,
    MQTTError,
    MQTTTimeoutError,
    NotAuthorizedError,
    NotConnectedError,
    OutcomeUnknownError,
    PayloadError,
    QueueFullError,
    RefusedError,
    TLSError,
    TopicError,
    UnsupportedError,
    UnsupportedQoSWarning,
)
from tidegate.formatters import Formatter, JSONFormatter
from tidegate.message import Message, Properties
from tidegate.publisher import AsyncPublisher, Publisher, PublishResult
from tidegate.subscriber import AsyncSubscriber, Subscriber

__all__ = [
    "AsyncPublisher",
    "AsyncSubscriber",
    "ConfigurationError",
    "ConnectRefusedError",
    "Formatter",
    "JSONFormatter",
    "MQTTConnectionError",
    "MQTTError",
    "MQTTTimeoutError",
    "Message",
    "NotAuthorizedError",
    "NotConnectedError",
    "OutcomeUnknownError",
    "PayloadError",
    "Properties",
    "PublishResult",
    "Publisher",
    "QueueFullError",
    "RefusedError",
    "Subscriber",
    "TLSError",
    "TopicError",
    "UnsupportedError",
    "UnsupportedQoSWarning",
    "async_publish",
    "async_subscribe",
    "configure",
    "publish",
    "subscribe",
]
