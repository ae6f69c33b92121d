"""Kinds of brokers: how they are found, and which limits they bring."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_certificates
from tests.support.strict_broker import StrictBroker
from tidegate.connection import BrokerLimits, ConnectOptions, Subscription
from tidegate.errors import ConfigurationError, UnsupportedError
from tidegate.limits import check_filter, check_publish
from tidegate.message import Message
from tidegate.profiles import (
    AWS_IOT,
    GENERIC,
    alpn_protocol,
    find_profile,
    is_aws_iot,
    narrowed,
)
from tidegate.session import Session


@pytest.mark.parametrize(
    "host",
    [
        "a1b2c3-ats.iot.us-east-1.amazonaws.com",
        "a1b2c3.iot.eu-central-1.amazonaws.com",
        "A1B2C3-ATS.IOT.EU-WEST-1.AMAZONAWS.COM.",
        "a1b2c3.ats.iot.cn-north-1.amazonaws.com.cn",
        "a1b2c3-ats.iot.us-gov-west-1.amazonaws.com",
        "data.iot-fips.us-gov-west-1.amazonaws.com",
        "vpce-0a1b-2c3d.data.iot.eu-west-1.vpce.amazonaws.com",
        "a1b2c3-ats.iot.mars-north-7.api.aws",
    ],
)
def test_endpoints_of_aws_iot_are_known_by_their_name(host: str) -> None:
    """Every region, kind of certificate and partition counts, also one that is not there yet."""
    assert is_aws_iot(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "",
        "iot.example.com",
        "iot.amazonaws.com",
        "bucket.s3.us-east-1.amazonaws.com",
        "my-iot.us-east-1.amazonaws.com",
        "a1b2c3-ats.iot.us-east-1.amazonaws.com.example.org",
        "a1b2c3-ats.iot.us-east-1.amazonaws.community",
    ],
)
def test_other_hosts_are_not_taken_for_aws_iot(host: str) -> None:
    """A name that only looks like one is generic."""
    assert not is_aws_iot(host)


AWS_HOST = "a1b2c3-ats.iot.us-east-1.amazonaws.com"


def test_the_host_name_tells_the_profile_and_a_choice_wins() -> None:
    """``auto`` looks at the host; anything else is taken at its word."""
    assert find_profile(AWS_HOST) is AWS_IOT
    assert find_profile("localhost") is GENERIC
    assert find_profile(AWS_HOST, "generic") is GENERIC
    assert find_profile("mqtt.example.com", "aws-iot") is AWS_IOT
    with pytest.raises(ConfigurationError, match="known are auto, generic, aws-iot"):
        find_profile("localhost", "emqx")  # type: ignore[arg-type]


def test_connack_tells_aws_iot_behind_a_custom_domain() -> None:
    """QoS 1, no subscription identifiers and a packet size a little over 128 KB together are its mark."""
    said = BrokerLimits(maximum_qos=1, subscription_identifiers_available=False, maximum_packet_size=149_504)
    assert narrowed(said, "mqtt.example.com").profile == "aws-iot"
    assert narrowed(said, "mqtt.example.com", "generic") == said
    for other in (
        replace(said, maximum_qos=2),
        replace(said, subscription_identifiers_available=True),
        replace(said, maximum_packet_size=None),
        replace(said, maximum_packet_size=268_435_455),
    ):
        assert narrowed(other, "mqtt.example.com") == other


def test_a_profile_narrows_and_never_widens() -> None:
    """A limit that CONNACK said stays where it is the lower one."""
    assert narrowed(BrokerLimits(), AWS_HOST) == BrokerLimits(
        profile="aws-iot",
        maximum_qos=1,
        maximum_payload_bytes=131_072,
        maximum_topic_bytes=256,
        maximum_topic_slashes=7,
        maximum_filters=8,
        subscription_identifiers_available=False,
    )
    assert narrowed(BrokerLimits(maximum_qos=0), AWS_HOST).maximum_qos == 0


AWS_LIMITS = narrowed(BrokerLimits(), AWS_HOST)


@pytest.mark.parametrize(
    ("message", "reason_code", "words"),
    [
        (Message("a", b"", 2), None, "AWS IoT takes at most QoS 1"),
        (Message("a", b"x" * 131_073, 1), 0x95, "131073 bytes; AWS IoT takes at most 131072"),
        (Message("1/2/3/4/5/6/7/8/9", b"", 1), 0x90, "8 slashes; AWS IoT takes at most 7"),
        (Message("é" * 128 + "x", b"", 1), 0x90, "257 bytes of UTF-8; AWS IoT takes at most 256"),
        (Message("$aws/rules/r/1/2/3/4/5/6/7/8/9", b"", 1), 0x90, "8 slashes"),
    ],
)
def test_each_limit_of_aws_iot_is_named(message: Message, reason_code: int | None, words: str) -> None:
    """Before anything is sent, with what would be taken."""
    with pytest.raises(UnsupportedError, match=words) as caught:
        check_publish(message, AWS_LIMITS)
    assert caught.value.reason_code == reason_code


@pytest.mark.parametrize(
    "message",
    [
        Message("a", b"x" * 131_072, 1),
        Message("1/2/3/4/5/6/7/8", b"", 1, True),
        Message("é" * 128, b""),
        Message("$aws/rules/a_rule/1/2/3/4/5/6/7/8", b"", 1),
    ],
)
def test_aws_iot_takes_what_is_just_within_its_limits(message: Message) -> None:
    """The prefix of a rule counts toward neither slashes nor bytes."""
    check_publish(message, AWS_LIMITS)


def test_filters_are_held_to_the_same_limits() -> None:
    """The share name of a shared subscription does not count."""
    check_filter("$share/group/1/2/3/4/5/6/7/#", AWS_LIMITS)
    with pytest.raises(UnsupportedError, match="8 slashes") as caught:
        check_filter("1/2/3/4/5/6/7/8/#", AWS_LIMITS)
    assert caught.value.reason_code == 0x8F


def test_a_client_identifier_that_is_too_long_is_refused_at_once() -> None:
    """AWS IoT would close the connection again and again."""
    Session(ConnectOptions(AWS_HOST, client_id="é" * 64))
    with pytest.raises(ConfigurationError, match=r"129 bytes of UTF-8.*at most 128"):
        Session(ConnectOptions(AWS_HOST, client_id="é" * 64 + "x"))


async def test_a_session_splits_its_filters_and_asks_for_no_more_than_is_granted() -> None:
    """Eight filters a SUBSCRIBE, none with an identifier, and QoS 1, since QoS 2 is not answered."""
    async with StrictBroker() as broker:
        session = Session(ConnectOptions("127.0.0.1", broker.port, profile="aws-iot"))
        await session.start()
        wanted = [Subscription(f"f/{number}", qos=2, identifier=7) for number in range(20)]
        assert await session.subscribe(wanted) == [1] * 20
        assert [len(each.filters) for each in broker.subscribed] == [8, 8, 4]
        assert not any(each.has_identifier for each in broker.subscribed)
        assert session.profile == "aws-iot"
        await session.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "x-amzn-mqtt-ca"),
        ({"username": "device"}, "mqtt"),
        ({"port": 8883}, None),
        ({"transport": "websockets"}, None),
        ({"tls": None}, None),
        ({"host": "broker.example.com"}, None),
        ({"host": "mqtt.example.com", "profile": "aws-iot"}, "x-amzn-mqtt-ca"),
    ],
)
def test_port_443_of_aws_iot_is_told_that_this_is_mqtt(options: dict[str, Any], expected: str | None) -> None:
    """By ALPN, and only there: on 8883 and for other brokers nothing is named."""
    given = ConnectOptions(AWS_HOST, 443, tls=ssl.create_default_context())
    assert alpn_protocol(replace(given, **options)) == expected


async def test_the_protocol_is_named_in_the_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that knows ``x-amzn-mqtt-ca`` and no more agrees on it."""
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_certificate, made.server_key)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    agreed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed.set_result(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr("tidegate.profiles.ALPN_PORT", port)
    trusting = ssl.create_default_context(cafile=made.ca)
    session = Session(
        ConnectOptions("localhost", port, tls=trusting, profile="aws-iot", protocol_version=5),
        reconnect_min_seconds=60,
    )
    await session.start()
    async with asyncio.timeout(20):
        assert await agreed == "x-amzn-mqtt-ca"
    await session.close()
    server.close()
