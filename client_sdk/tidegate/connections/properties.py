"""MQTT 5 properties as attributes named like the standard's, which is how paho holds them.

Knows no client library: whoever calls brings the object to fill or the attributes that were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tidegate.connection import BrokerLimits, ProtocolVersion
from tidegate.message import NO_PROPERTIES, Properties

IN_FLIGHT_UNTOLD: Final = 20
"""In flight on MQTT 3.1.1, where a broker cannot tell its limit. Mosquitto's default is 20, and QoS 2
messages beyond it were seen to be acknowledged and dropped."""


def read(found: Mapping[str, Any]) -> tuple[Properties, tuple[int, ...]]:
    """The message's own properties, and the subscription identifiers of this copy."""
    correlation_data = found.get("CorrelationData")
    carried = Properties(
        payload_format=found.get("PayloadFormatIndicator"),
        message_expiry=found.get("MessageExpiryInterval"),
        content_type=found.get("ContentType"),
        response_topic=found.get("ResponseTopic"),
        correlation_data=None if correlation_data is None else bytes(correlation_data),
        user_properties=tuple((name, value) for name, value in found.get("UserProperty", ())),
    )
    identifiers = tuple(found.get("SubscriptionIdentifier", ()))
    return (NO_PROPERTIES if carried == NO_PROPERTIES else carried), identifiers


def read_limits(
    version: ProtocolVersion,
    found: Mapping[str, Any],
    *,
    session_present: bool,
    client_id: str,
    keepalive_seconds: int,
) -> BrokerLimits:
    """What CONNACK said (MQTT 5 §3.2.2.3), and what is known of brokers where it cannot say anything."""
    return BrokerLimits(
        protocol_version=version,
        session_present=session_present,
        client_id=found.get("AssignedClientIdentifier", client_id),
        receive_maximum=found.get("ReceiveMaximum", 65_535 if version >= 5 else IN_FLIGHT_UNTOLD),
        maximum_qos=found.get("MaximumQoS", 2),
        retain_available=bool(found.get("RetainAvailable", 1)),
        maximum_packet_size=found.get("MaximumPacketSize"),
        wildcard_available=bool(found.get("WildcardSubscriptionAvailable", 1)),
        subscription_identifiers_available=version >= 5
        and bool(found.get("SubscriptionIdentifierAvailable", 1)),
        shared_available=bool(found.get("SharedSubscriptionAvailable", 1)),
        topic_alias_maximum=found.get("TopicAliasMaximum", 0),
        keepalive_seconds=found.get("ServerKeepAlive", keepalive_seconds),
    )
