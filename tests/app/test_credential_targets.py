"""Which brokers a credential may be tried at, and which addresses are connected to."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.credentials.targets import ForbiddenTargetError, Targets
from app.settings import Settings
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError
from tidegate.url import parse_url

CONFIGURED = ConnectOptions("Broker.Example", 8883, username="bridge", password="secret")


def options_for(url: str, *allowed: str) -> ConnectOptions:
    """How a URL would be reached."""
    return Targets(allowed, CONFIGURED).options_for(url)


@pytest.mark.parametrize("url", ["mqtts://broker.example", "mqtts://BROKER.example.:8883"])
def test_the_configured_broker_is_always_listed(url: str) -> None:
    """Its user name and password are used for it."""
    assert options_for(url) is CONFIGURED
    assert Targets((), CONFIGURED).is_configured_address(options_for(url))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("mqtts://other.example:1234", "other.example"),
        ("mqtts://other.example:1234", "OTHER.example:1234"),
        ("mqtts://other.example.:8883", "other.example."),
        ("mqtts://192.0.2.7", "192.0.2.7"),
        ("mqtts://192.0.2.7", "192.0.2.0/24"),
        ("mqtts://[2001:db8::7]", "2001:db8::/32"),
        ("mqtts://[2001:db8::7]", "[2001:db8::7]"),
    ],
)
def test_what_is_listed(url: str, allowed: str) -> None:
    """By name, by name and port, by address, by network; no password of the settings goes along."""
    options = options_for(url, "something.else", allowed)
    assert (None, None) == (options.username, options.password)
    assert options.tls is not None


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("mqtts://broker.example:8884", ""),
        ("mqtts://other.example:1235", "other.example:1234"),
        ("mqtts://sub.other.example", "other.example"),
        ("mqtts://other.example.evil", "other.example"),
        ("mqtts://other.example@evil.example", "other.example"),
        ("mqtts://192.0.3.7", "192.0.2.0/24"),
        ("mqtts://127.1", "127.0.0.0/9"),
        ("mqtts://2130706433", "127.0.0.1"),
    ],
)
def test_what_is_not(url: str, allowed: str) -> None:
    """Neither what looks like a listed host nor an address in disguise."""
    with pytest.raises((ForbiddenTargetError, ConfigurationError)):
        options_for(url, *filter(None, [allowed]))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_connected_to(address: str) -> None:
    """Whatever name leads there: this machine, the link, and private or special networks."""
    assert not Targets(["broker.plant"], CONFIGURED).may_reach(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_public_addresses_are(address: str) -> None:
    """A listed name may lead anywhere in public."""
    assert Targets(["broker.plant"], CONFIGURED).may_reach(address)


def test_a_private_network_that_is_listed() -> None:
    """The list says it outright."""
    targets = Targets(["broker.plant", "10.20.0.0/16", "::1"], CONFIGURED)
    assert targets.may_reach("10.20.30.40")
    assert targets.may_reach("::ffff:10.20.30.40")
    assert targets.may_reach("::1")
    assert not targets.may_reach("10.21.0.1")


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "a:b", "a:0", ":1883", "a/b"])
def test_an_entry_that_cannot_be_read(entry: str) -> None:
    """The settings refuse it at the start."""
    with pytest.raises(ValidationError, match="credentials_test_hosts"):
        Settings(credentials_test_hosts=entry)  # type: ignore[arg-type]


def test_the_list_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With commas, and spaces that do not count."""
    monkeypatch.setenv("TIDEGATE_CREDENTIALS_TEST_HOSTS", "a.example, b.example:8884 ,10.0.0.0/8")
    assert ("a.example", "b.example:8884", "10.0.0.0/8") == Settings().credentials_test_hosts
    assert parse_url("mqtts://a.example").connect_options.port == 8883
