"""Kinds of brokers, and the limits that they do not tell in CONNACK.

- ``generic``: nothing is known but what CONNACK says. On MQTT 3.1.1 it says nothing: the session then has no
  properties, no reason codes and no subscription identifiers, and ``IN_FLIGHT_UNTOLD`` bounds what is in flight.
- ``aws-iot``: AWS IoT Core. It answers QoS 2 and packets beyond its quotas by closing the connection, or not at
  all, so its quotas are kept before sending. They are those of its message broker at the time of writing.

A profile narrows what CONNACK said, and never widens it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

ProfileName = Literal["generic", "aws-iot"]

ALPN_PORT: Final = 443
"""Where AWS IoT speaks HTTPS too, and tells MQTT from it by ALPN."""

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
    maximum_payload_bytes=131_072,
    maximum_topic_bytes=256,
    maximum_topic_slashes=7,
    maximum_filters=8,
    maximum_client_id_bytes=128,
    subscription_identifiers_available=False,
    reserved_prefix=re.compile(r"\$aws/rules/[^/]*/|\$share/[^/]*/"),
)

PROFILES: Final = {profile.name: profile for profile in (GENERIC, AWS_IOT)}


def is_aws_iot(host: str) -> bool:
    """Whether a host name is that of an AWS IoT endpoint.

    Endpoints of every region count, with ``-ats`` and without, FIPS and VPC endpoints, and those in China
    (``amazonaws.com.cn``). A custom domain does not tell.
    """
    return _is_aws_host(host) is not None
