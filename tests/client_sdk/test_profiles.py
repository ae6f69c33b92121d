"""Kinds of brokers: how they are found, and which limits they bring."""

from __future__ import annotations

import pytest

from tidegate.profiles import is_aws_iot


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
