from __future__ import annotations

import ssl
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate import ConfigurationError
from tidegate.connection import ConnectOptions
from tidegate.url import DEFAULT_URL, Target, parse_url, without_password


def broker(**options: object) -> Target:
    """A broker with these options; the others are the defaults."""
    return Target("mqtt", ConnectOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (DEFAULT_URL, broker()),
        ("mqtt://broker.example", broker(host="broker.example", port=1883)),
        ("mqtt://broker.example:1999/", broker(host="broker.example", port=1999)),
        ("MQTT://broker.example", broker(host="broker.example")),
        ("mqtt://[::1]:1884", broker(host="::1", port=1884)),
        ("mqtt://user:p%40ss%2Fword@host", broker(host="host", username="user", password="p@ss/word")),
        ("mqtt://user@host", broker(host="host", username="user")),
        ("mqtt://:secret@host", broker(host="host", username="", password="secret")),
        ("mqtt://host?client_id=a%2Fb", broker(host="host", client_id="a/b")),
        (
            "mqtt://host?keepalive=5&protocol=3.1.1",
            broker(host="host", keepalive_seconds=5, protocol_version=4),
        ),
        ("mqtt://host?protocol=5", broker(host="host", protocol_version=5)),
        ("mqtt://host?protocol=auto", broker(host="host", protocol_version=None)),
        ("ws://host", broker(host="host", port=80, transport="websockets", path="/mqtt")),
        (
            "ws://host:8080/broker/ws",
            broker(host="host", port=8080, transport="websockets", path="/broker/ws"),
        ),
        ("http://host", Target("bridge", bridge_url="http://host")),
        ("https://host:8443/tidegate/", Target("bridge", bridge_url="https://host:8443/tidegate")),
    ],
)
def test_a_url_says_where_to_connect_and_how(url: str, target: Target) -> None:
    """Each part of a URL has the meaning that it has everywhere, and defaults fill up the rest."""
    assert target == parse_url(url)


@pytest.mark.parametrize(
    ("url", "port"), [("mqtts://host", 8883), ("wss://host", 443), ("mqtts://host:1", 1)]
)
def test_a_secure_scheme_verifies_by_default(url: str, port: int) -> None:
    """Without a context of the caller's, the system's authorities decide and the host name must match."""
    options = parse_url(url).connect_options
    assert options.port == port
    assert options.tls is not None
    assert (options.tls.verify_mode, options.tls.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_context_of_the_callers_means_tls_whatever_the_scheme() -> None:
    """Who gives a context wants encryption; the port is then that of TLS unless the URL has one."""
    context = ssl.create_default_context()
    for url, port in (("mqtts://h", 8883), ("mqtt://h", 8883), ("mqtt://h:99", 99), ("ws://h", 443)):
        options = parse_url(url, tls=context).connect_options
        assert (context, port) == (options.tls, options.port)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must begin with"),
        ("localhost", "must begin with"),
        ("localhost:1883", "must begin with"),
        ("amqp://host", "'amqp://'"),
        ("mqtt://", "names no host"),
        ("http:///path", "names no host"),
        ("mqtt://host:port", "cannot be read"),
        ("mqtt://host:70000", "cannot be read"),
        ("mqtt://[::1", "cannot be read"),
        ("mqtt://host/topic", "'/topic'"),
        ("mqtt://host#a", "%23"),
        ("mqtt://host?keepalive=0", "1 to 65535"),
        ("mqtt://host?keepalive=-1", "1 to 65535"),
        ("mqtt://host?keepalive=٣", "1 to 65535"),
        ("mqtt://host?keepalive=" + "9" * 5000, "1 to 65535"),
        ("mqtt://host?protocol=4", "3.1.1"),
        ("mqtt://host?cleint_id=a", "did you mean 'client_id'"),
        ("mqtt://host?client_id=a&client_id=b", "twice"),
        ("http://user:secret@host", "token"),
        ("http://host?a=b", "token"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_reason(url: str, words: str) -> None:
    """Nothing in a URL is ignored, and the text says what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://user:s3cret@host:port",
        "mqtt://user:s3cret@[::1",
        "mqtt://user:s3cret@host/path",
        "amqp://user:s3cret@host",
        "user:s3cret@host",
        "mqtt://user:s3cret@",
        "http://user:s3cret@host",
    ],
)
def test_an_error_never_repeats_a_password(url: str) -> None:
    """An error text may end up in a log; the password in the URL must not."""
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("mqtt://user:", "@host:port"),
        ("mqtt://user:", "@host/path"),
        ("mqtt://user:", "@host?unknown=1"),
        ("amqp://user:", "@host"),
        ("http://user:", "@host"),
    ],
)
@given(tail=st.text(st.characters(exclude_characters="/?#", exclude_categories=["Cs"])))
@example(tail="℀")
def test_no_password_is_repeated_whatever_is_in_it(before: str, after: str, tail: str) -> None:
    """Error text and shown URL stay clean for every password in which "/", "?" and "#" are encoded."""
    url = f"{before}s3cret{tail}{after}"
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r} {without_password(url)}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://host", "mqtt://host"),
        ("mqtt://user@host/", "mqtt://user@host/"),
        ("mqtt://user:s3cret@host:1?client_id=a", "mqtt://user:***@host:1?client_id=a"),
        ("mqtt://user:s3@cret@host", "mqtt://user:***@host"),
        ("mqtt://:s3cret@host", "mqtt://:***@host"),
    ],
)
def test_a_url_can_be_shown_without_its_password(url: str, shown: str) -> None:
    """All but the password stays readable."""
    assert shown == without_password(url)


@given(st.text())
def test_any_text_is_a_url_or_a_configuration_error(text: str) -> None:
    """Whatever stands after a scheme, no other kind of error comes out."""
    for url in (text, f"mqtt://{text}", f"ws://{text}", f"http://{text}"):
        try:
            target = parse_url(url)
        except ConfigurationError:
            continue
        assert target.kind in ("mqtt", "bridge")


@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_user_and_password_can_be_written(user: str, password: str) -> None:
    """Percent-encoding carries every character."""
    try:
        url = f"mqtt://{quote(user, safe='')}:{quote(password, safe='')}@host"
    except UnicodeEncodeError:  # a lone surrogate is no character
        return
    options = parse_url(url).connect_options
    assert (options.username, options.password) == (user, password)
    assert "password=" not in repr(options)
