"""Kinds of brokers, and the limits that they do not tell in CONNACK.

- ``generic``: nothing is known but what CONNACK says.
- ``aws-iot``: AWS IoT Core. It answers QoS 2 and packets beyond its quotas by closing the connection, or not
  at all, so that they must be kept before sending. The figures are its quotas as published.

MQTT 3.1.1 is no profile: any broker may speak it, and its CONNACK tells no limit. A session that speaks it
has no properties, no subscription identifiers and no reason codes: a refused publish looks like an accepted
one, or ends the connection. Twenty messages are in flight at most, which brokers take without being asked.

A profile narrows what CONNACK said, and never widens it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from tidegate.connection import BrokerLimits, ConnectOptions, ProfileChoice
from tidegate.errors import ConfigurationError

ProfileName = Literal["generic", "aws-iot"]

ALPN_PORT: Final = 443
"""Where AWS IoT speaks HTTPS too, and tells MQTT from it by ALPN."""

_AWS_PAYLOAD_BYTES: Final = 131_072

_is_aws_host: Final = re.compile(
    r"""(?: [a-z0-9-]+ \. )+
        iot (?: -fips )? \.
        [a-z0-9-]+ \.                                    # the region
        (?: vpce \. )?
        (?: amazonaws\.com (?: \.cn )? | amazonaws\.eu | api\.aws )
        \.?""",
    re.VERBOSE | re.IGNORECASE,
).fullmatch


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of one kind of broker; None is no limit.

    Attributes:
        name: as it is set and shown.
        maximum_qos: the highest QoS that is acknowledged.
        maximum_payload_bytes: bytes of a PUBLISH's payload.
        maximum_topic_bytes: bytes of UTF-8 in a topic name or filter.
        maximum_topic_slashes: slashes in a topic name or filter.
        maximum_filters: topic filters in one SUBSCRIBE or UNSUBSCRIBE.
        maximum_client_id_bytes: bytes of UTF-8 in a client identifier.
        subscription_identifiers_available: whether SUBSCRIBE may carry an identifier.
        reserved_prefix: what a topic may begin with that counts toward neither its bytes nor its slashes.
    """

    name: ProfileName
    maximum_qos: int = 2
    maximum_payload_bytes: int | None = None
    maximum_topic_bytes: int | None = None
    maximum_topic_slashes: int | None = None
    maximum_filters: int = 100
    maximum_client_id_bytes: int | None = None
    subscription_identifiers_available: bool = True
    reserved_prefix: re.Pattern[str] | None = None


GENERIC: Final = Profile("generic")

AWS_IOT: Final = Profile(
    "aws-iot",
    maximum_qos=1,
    maximum_payload_bytes=_AWS_PAYLOAD_BYTES,
    maximum_topic_bytes=256,
    maximum_topic_slashes=7,
    maximum_filters=8,
    maximum_client_id_bytes=128,
    subscription_identifiers_available=False,
    reserved_prefix=re.compile(r"\$aws/rules/[^/]*/|\$share/[^/]*/"),
)

PROFILES: Final[dict[str, Profile]] = {profile.name: profile for profile in (GENERIC, AWS_IOT)}


def is_aws_iot(host: str) -> bool:
    """Whether a host name is that of an AWS IoT endpoint.

    Endpoints of every region count, with ``-ats`` and without, FIPS and VPC endpoints, and those in China
    (``amazonaws.com.cn``). A custom domain does not tell.
    """
    return _is_aws_host(host) is not None


def find_profile(host: str, chosen: ProfileChoice = "auto") -> Profile:
    """The profile that was chosen, else the one that the host name tells.

    Raises:
        ConfigurationError: there is no such profile.
    """
    if chosen == "auto":
        return AWS_IOT if is_aws_iot(host) else GENERIC
    if chosen not in PROFILES:
        raise ConfigurationError(
            f"there is no broker profile {chosen!r}; known are auto, {', '.join(PROFILES)}"
        )
    return PROFILES[chosen]


def narrowed(limits: BrokerLimits, host: str, chosen: ProfileChoice = "auto") -> BrokerLimits:
    """What CONNACK said, within the limits of the broker's profile.

    Where neither the choice nor the host name tells the profile, CONNACK may: AWS IoT behind a custom domain.
    """
    profile = find_profile(host, chosen)
    if chosen == "auto" and profile is GENERIC and _speaks_like_aws_iot(limits):
        profile = AWS_IOT
    if profile is GENERIC:
        return limits
    return replace(
        limits,
        profile=profile.name,
        maximum_qos=min(limits.maximum_qos, profile.maximum_qos),
        maximum_payload_bytes=profile.maximum_payload_bytes,
        maximum_topic_bytes=profile.maximum_topic_bytes,
        maximum_topic_slashes=profile.maximum_topic_slashes,
        maximum_filters=profile.maximum_filters,
        subscription_identifiers_available=limits.subscription_identifiers_available
        and profile.subscription_identifiers_available,
    )


def check_client_id(client_id: str, host: str, chosen: ProfileChoice = "auto") -> None:
    """Refuse a client identifier that the broker would answer by closing the connection.

    Raises:
        ConfigurationError: it is too long; the text says by how much.
    """
    profile = find_profile(host, chosen)
    size, limit = len(client_id.encode()), profile.maximum_client_id_bytes
    if limit is not None and size > limit:
        raise ConfigurationError(
            f"the client identifier is {size} bytes of UTF-8; the broker profile {profile.name} takes at "
            f"most {limit}: choose a shorter one"
        )


def alpn_protocol(options: ConnectOptions) -> str | None:
    """The protocol to name in the TLS handshake, where the broker tells MQTT from HTTPS by it; else None.

    AWS IoT expects ``x-amzn-mqtt-ca`` from clients with a certificate, and ``mqtt`` from those that a custom
    authorizer judges by their user name.
    """
    if options.port != ALPN_PORT or options.transport != "tcp" or options.tls is None:
        return None
    if find_profile(options.host, options.profile) is not AWS_IOT:
        return None
    return "x-amzn-mqtt-ca" if options.username is None else "mqtt"


def _speaks_like_aws_iot(limits: BrokerLimits) -> bool:
    size = limits.maximum_packet_size
    return (
        limits.maximum_qos == 1
        and not limits.subscription_identifiers_available
        and size is not None
        and _AWS_PAYLOAD_BYTES <= size < _AWS_PAYLOAD_BYTES + 32_768
    )
