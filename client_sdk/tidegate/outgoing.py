"""What a program gives is made a message to send, checked and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from tidegate.errors import ConfigurationError, TopicError
from tidegate.formatters import Formatter, to_payload
from tidegate.many import Item, split_item
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.strings import validate_properties
from tidegate.topics import validate_topic


def make_message(
    formatter: Formatter,
    topic: str,
    payload: Any,
    qos: int,
    retain: bool,
    properties: Properties = NO_PROPERTIES,
) -> Message:
    """One message, checked and written.

    Raises:
        TopicError: the topic name is not allowed.
        ConfigurationError: the QoS is not 0, 1 or 2, or MQTT cannot carry a property.
        PayloadError: the formatter cannot write the payload.
    """
    require_text(topic)
    validate_topic(topic)
    require_qos(qos)
    if properties is not NO_PROPERTIES:
        validate_properties(properties)
    return Message(topic, to_payload(formatter, payload), qos, retain, properties)


def require_text(topic: object) -> None:
    """Raises TopicError for anything that is no text; a type checker finds it before."""
    if not isinstance(topic, str):
        raise TopicError(f"a topic is text, not {type(topic).__name__}")


def make_reply(
    formatter: Formatter, request: Message, payload: Any, qos: int, properties: Properties
) -> Message:
    """The reply to a request.

    Raises:
        ConfigurationError: the request names no topic to reply on.
        MQTTError: what ``make_message`` raises.
    """
    asked = request.properties
    if asked.response_topic is None:
        raise ConfigurationError(
            f"the message to {request.topic!r} names no response topic: its sender expects no reply, or it "
            "came over MQTT 3.1.1, which has none"
        )
    properties = replace(properties, correlation_data=asked.correlation_data)
    return make_message(formatter, asked.response_topic, payload, qos, False, properties)


def read_item(
    formatter: Formatter, qos: int, retain: bool, possible_qos: Callable[[int], int], item: Item
) -> Message:
    """The message that one of many is.

    Raises:
        MQTTError: what ``make_message`` raises, or it is none.
    """
    if isinstance(item, Message):
        return replace(item, qos=possible_qos(item.qos)) if item.qos == 2 else item
    topic, payload, options = split_item(item)
    return make_message(
        formatter,
        topic,
        payload,
        possible_qos(options.get("qos", qos)),
        options.get("retain", retain),
        options.get("properties", NO_PROPERTIES),
    )


def require_askable(message: Message, timeout: float, response_topic: str | None) -> None:
    """Raises ConfigurationError where a request could not be answered."""
    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout={timeout!r} is no time to wait for a reply; it is in seconds")
    if message.properties.response_topic is not None or message.properties.correlation_data is not None:
        raise ConfigurationError(
            "a request's response topic and correlation data are made here; to name the topic that a device "
            "answers on, give response_topic="
        )
    if response_topic is not None:
        validate_topic(response_topic)
        if response_topic == message.topic:
            raise ConfigurationError(
                "the response topic is the topic of the request, which would be its own reply"
            )


def require_positive(max_in_flight: int) -> None:
    """Raises ConfigurationError for a bound that lets nothing through."""
    if max_in_flight < 1:
        raise ConfigurationError(f"max_in_flight={max_in_flight!r} lets nothing through; it is 1 or more")


def require_qos(qos: int) -> None:
    """Raises ConfigurationError for anything that is not the number 0, 1 or 2 (MQTT 5 §4.3)."""
    if qos not in (0, 1, 2) or isinstance(qos, bool):
        raise ConfigurationError(f"qos={qos!r} is not a quality of service; it is 0, 1 or 2")


def topic_list(topics: str | Iterable[str]) -> list[str]:
    """One topic or several, as a list without repetitions."""
    return list(dict.fromkeys([topics] if isinstance(topics, str) else topics))
