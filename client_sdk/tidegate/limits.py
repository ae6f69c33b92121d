"""What a broker's limits do not let through, found out before it is sent, with words that say what to do.

A broker answers most of these by closing the connection, and that connection may be everybody's.
"""

from __future__ import annotations

from typing import Final

from tidegate.connection import BrokerLimits
from tidegate.errors import UnsupportedError
from tidegate.message import NO_PROPERTIES, Message
from tidegate.profiles import PROFILES
from tidegate.publish_packet import publish_size
from tidegate.topics import split_share

TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_TOO_LARGE: Final = 0x95
SHARED_NOT_SUPPORTED: Final = 0x9E
WILDCARDS_NOT_SUPPORTED: Final = 0xA2


def may_refuse_publish(limits: BrokerLimits) -> bool:
    """Whether there is any message that ``check_publish`` would refuse."""
    return (
        limits.protocol_version < 5
        or limits.maximum_qos < 2
        or not limits.retain_available
        or limits.maximum_packet_size is not None
        or limits.maximum_payload_bytes is not None
        or limits.maximum_topic_bytes is not None
        or limits.maximum_topic_slashes is not None
    )


def check_publish(message: Message, limits: BrokerLimits) -> None:
    """Refuse a message that the broker cannot take.

    Raises:
        UnsupportedError: it is beyond a limit; ``reason_code`` is what the broker would say of its size
            (0x95) or its topic (0x90).
    """
    if message.qos > limits.maximum_qos:
        raise UnsupportedError(
            f"{_broker(limits)} takes at most QoS {limits.maximum_qos}: publish with that",
            topic=message.topic,
            qos=message.qos,
        )
    if message.retain and not limits.retain_available:
        raise UnsupportedError(
            f"{_broker(limits)} takes no retained messages: publish without retain", topic=message.topic
        )
    if limits.protocol_version < 5 and message.properties != NO_PROPERTIES:
        raise UnsupportedError(
            "the session speaks MQTT 3.1.1, which has no properties: leave them out, or use MQTT 5",
            topic=message.topic,
        )
    most = limits.maximum_payload_bytes
    if most is not None and len(message.payload) > most:
        raise UnsupportedError(
            f"the payload is {len(message.payload)} bytes; {_broker(limits)} takes at most {most}: "
            "send less, or in parts",
            topic=message.topic,
            reason_code=PACKET_TOO_LARGE,
        )
    if limits.maximum_topic_bytes is not None or limits.maximum_topic_slashes is not None:
        _check_levels(message.topic, "topic", TOPIC_NAME_INVALID, limits)
    most = limits.maximum_packet_size
    if most is not None and (size := publish_size(message, limits.protocol_version)) > most:
        raise UnsupportedError(
            f"the message makes a packet of {size} bytes; {_broker(limits)} takes at most {most}: "
            "send less, or in parts",
            topic=message.topic,
            reason_code=PACKET_TOO_LARGE,
        )


def check_filter(topic_filter: str, limits: BrokerLimits) -> None:
    """Refuse a topic filter that the broker cannot take.

    Raises:
        UnsupportedError: it is beyond a limit; ``reason_code`` is what the broker would say.
    """
    share, rest = split_share(topic_filter)
    if share is not None and not limits.shared_available:
        raise UnsupportedError(
            f"{_broker(limits)} has no shared subscriptions: subscribe to {rest!r} itself",
            topic=topic_filter,
            reason_code=SHARED_NOT_SUPPORTED,
        )
    if not limits.wildcard_available and ("+" in rest or "#" in rest):
        raise UnsupportedError(
            f"{_broker(limits)} takes no wildcards in topic filters: name each topic",
            topic=topic_filter,
            reason_code=WILDCARDS_NOT_SUPPORTED,
        )
    _check_levels(topic_filter, "topic filter", TOPIC_FILTER_INVALID, limits)


def _check_levels(topic: str, kind: str, reason_code: int, limits: BrokerLimits) -> None:
    prefix = PROFILES[limits.profile].reserved_prefix
    if prefix is not None and (found := prefix.match(topic)) is not None:
        counted = topic[found.end() :]
    else:
        counted = topic
    most = limits.maximum_topic_slashes
    if most is not None and (slashes := counted.count("/")) > most:
        raise UnsupportedError(
            f"the {kind} has {slashes} slashes; {_broker(limits)} takes at most {most}: use fewer levels",
            topic=topic,
            reason_code=reason_code,
        )
    most = limits.maximum_topic_bytes
    if most is not None and (size := len(counted.encode())) > most:
        raise UnsupportedError(
            f"the {kind} is {size} bytes of UTF-8; {_broker(limits)} takes at most {most}: use a shorter one",
            topic=topic,
            reason_code=reason_code,
        )


def _broker(limits: BrokerLimits) -> str:
    return "AWS IoT" if limits.profile == "aws-iot" else "the broker"
