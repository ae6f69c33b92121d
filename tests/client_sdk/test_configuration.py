from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tidegate import AsyncPublisher, ConfigurationError, Publisher, Subscriber, configure
from tidegate.configuration import Options, resolve
from tidegate.connection import ConnectOptions
from tidegate.memory import MemoryBroker
from tidegate.transports.bridge import BridgeTransport
from tidegate.transports.direct import DirectTransport


def lead_to(**options: Any) -> ConnectOptions | str:
    """Where options lead: what is said in CONNECT, or the bridge's URL."""
    transport = resolve(Options(**options)).make_transport()
    if isinstance(transport, BridgeTransport):
        return transport.url
    assert isinstance(transport, DirectTransport)
    return transport._session._options


def endpoint(**options: Any) -> tuple[str, int, bool]:
    """Host, port, and whether there is TLS."""
    found = lead_to(**options)
    assert isinstance(found, ConnectOptions)
    return found.host, found.port, found.tls is not None


def test_nothing_said_is_a_broker_on_this_machine() -> None:
    """The default is the one that everybody tries first."""
    assert endpoint() == ("localhost", 1883, False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "a"}, ("a", 1883, False)),
        ({"port": 1999}, ("localhost", 1999, False)),
        ({"host": "a", "tls": True}, ("a", 8883, True)),
        ({"host": "a", "port": 1, "tls": True}, ("a", 1, True)),
        ({"tls": True}, ("localhost", 8883, True)),
        ({"tls": False, "url": "mqtt://a"}, ("a", 1883, False)),
        ({"url": "mqtts://a"}, ("a", 8883, True)),
        ({"url": "mqtts://a", "port": 8884}, ("a", 8884, True)),
        ({"url": "mqtts://a:1", "host": "b"}, ("b", 1, True)),
        ({"url": "http://a", "host": "b"}, ("b", 1883, False)),
        ({"url": "http://a", "host": "b", "tls": True}, ("b", 8883, True)),
    ],
    ids=repr,
)
def test_arguments_win_over_the_url(options: dict[str, Any], expected: tuple[str, int, bool]) -> None:
    """Each argument replaces its part of the URL, and the rest of the URL stays, encryption above all."""
    assert expected == endpoint(**options)


def test_user_password_and_client_identifier_win_over_the_url() -> None:
    """The URL fills up what no argument says."""
    url = "mqtt://user:one@a?client_id=x&keepalive=7"
    found = lead_to(url=url, password="two", client_id="y")
    assert isinstance(found, ConnectOptions)
    assert (found.username, found.password, found.client_id) == ("user", "two", "y")
    assert found.keepalive_seconds == 7


def test_an_argument_wins_over_configure_and_configure_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who is nearer to the call decides."""
    monkeypatch.setenv("TIDEGATE_URL", "mqtt://environment:1")
    assert endpoint() == ("environment", 1, False)
    configure("mqtt://configured:2")
    assert endpoint() == ("configured", 2, False)
    assert endpoint(url="mqtt://argument:3") == ("argument", 3, False)
    assert endpoint(host="argument") == ("argument", 1883, False)
    assert endpoint(port=4) == ("configured", 4, False)
    configure(host="configured", port=5)
    assert endpoint() == ("configured", 5, False)
    assert endpoint(host="argument") == ("argument", 1883, False)
    assert endpoint(url="mqtt://argument") == ("argument", 1883, False)
    configure()
    assert endpoint() == ("environment", 1, False)


def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments set variables to nothing to unset them."""
    monkeypatch.setenv("TIDEGATE_URL", "")
    monkeypatch.setenv("TIDEGATE_TOKEN", "")
    assert endpoint() == ("localhost", 1883, False)
    assert resolve(Options()).token is None


def test_the_token_comes_from_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, ``configure``, then ``TIDEGATE_TOKEN``."""
    monkeypatch.setenv("TIDEGATE_TOKEN", "environment")
    assert resolve(Options()).token == "environment"
    configure(token="configured")
    assert resolve(Options()).token == "configured"
    assert resolve(Options(token="argument")).token == "argument"


@pytest.mark.parametrize("url", ["http://bridge", "https://bridge/path/"])
def test_an_http_url_leads_to_a_bridge(url: str) -> None:
    """The scheme decides the transport."""
    assert lead_to(url=url) == url.rstrip("/")


@pytest.mark.parametrize(
    "option",
    [
        {"port": 1},
        {"username": "a"},
        {"password": "s3cret"},
        {"client_id": "a"},
        {"connect": MemoryBroker().connect},
    ],
    ids=repr,
)
def test_what_a_bridge_has_no_use_for_is_refused(option: dict[str, Any]) -> None:
    """The bridge has its own connection to the broker; an option that would be ignored is an error."""
    for client in (Publisher, Subscriber, AsyncPublisher):
        with pytest.raises(ConfigurationError, match=next(iter(option))) as caught:
            client("http://bridge", **option)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "bridge", "ftp://bridge", "mqtt://"])
def test_a_url_that_cannot_be_used_is_told_where_it_is_given(url: str) -> None:
    """The mistake shows where it was made, and what was configured before stays."""
    configure("mqtt://before")
    with pytest.raises(ConfigurationError):
        configure(url)
    with pytest.raises(ConfigurationError):
        Publisher(url)
    assert endpoint() == ("before", 1883, False)


def test_a_wrong_variable_is_told_by_the_first_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing never fails over the environment; using it does, in words."""
    monkeypatch.setenv("TIDEGATE_URL", "broker:1883")
    with pytest.raises(ConfigurationError, match="must begin with"):
        Publisher()
    environment = {**os.environ, "TIDEGATE_URL": "broker:1883"}
    subprocess.run([sys.executable, "-c", "import tidegate"], env=environment, check=True)


def test_secrets_stay_out_of_the_options_text() -> None:
    """Options may be shown in an error or a debugger."""
    options = Options(
        url="mqtt://user:s3cret@host", password="s3cret", token="s3cret", tls={"keyfile_password": "s3cret"}
    )
    assert "s3cret" not in repr(options)


def test_what_proves_who_calls_stays_with_the_place_it_was_meant_for() -> None:
    """Credentials that were configured for one broker are not shown to another."""
    configure("mqtts://prod.example", username="user", password="s3cret", token="s3cret")
    for elsewhere in (Options(url="mqtt://other.example"), Options(host="other.example")):
        found = resolve(elsewhere)
        assert (found.username, found.password, found.token) == (None, None, None)
    assert resolve(Options()).password == "s3cret"
    assert resolve(Options(url="mqtts://prod.example")).password == "s3cret"
