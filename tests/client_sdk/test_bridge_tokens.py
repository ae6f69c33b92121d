"""Tokens for a bridge: where they come from, when they are renewed, and that nobody sees them."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.asked import Requests
from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tidegate import AsyncPublisher, AsyncSubscriber, ConfigurationError, NotAuthorizedError, Publisher
from tidegate.transports.calls import Calls

SECRET = "hunter2"
SECONDS = 20.0


class Renewed:
    """Gives a new token each time; ``sync`` and ``later`` are the two kinds of function."""

    def __init__(self) -> None:
        self.count = 0

    def sync(self) -> str:
        """The next token."""
        self.count += 1
        return f"{SECRET}-{self.count}"

    async def later(self) -> str:
        """The next token, after a while."""
        await asyncio.sleep(0)
        return self.sync()


@pytest.fixture(params=["sync", "later"])
def token(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """A function, and a coroutine function."""
    found: Callable[[], Any] = getattr(Renewed(), request.param)
    return found


async def test_a_token_that_is_refused_is_renewed_once(
    mosquitto: Mosquitto, token: Callable[[], Any]
) -> None:
    """For a publish and for a stream: 401 once, and the second token is taken; the message arrives."""
    requests = Requests(answers={"/v1/topics/tokens": [401, None], "/v1/subscribe": [401, None]})
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        publisher = AsyncPublisher(bridge.url, token=token)
        subscriber = AsyncSubscriber(bridge.url, token=token)
        await subscriber.subscribe("tokens")
        await publisher.publish("tokens", 1)
        assert (await anext(aiter(subscriber))).json() == 1
        await publisher.disconnect()
        await subscriber.disconnect()
    assert [each.authorization for each in requests.of("/v1/subscribe")] == [
        f"Bearer {SECRET}-{n}" for n in (1, 2)
    ]
    posts = requests.of("/v1/topics")
    assert [each.authorization for each in posts] == [f"Bearer {SECRET}-{n}" for n in (3, 4)]
    assert len({each.key for each in posts}) == 1


async def test_a_token_that_stays_refused_is_an_error(mosquitto: Mosquitto, token: Callable[[], Any]) -> None:
    """It is not asked for again and again, and the error does not show it."""
    requests = Requests(answers={"/v1/topics/tokens": [401], "/v1/subscribe": [401]})
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        publisher = AsyncPublisher(bridge.url, token=token)
        subscriber = AsyncSubscriber(bridge.url, token=token)
        for call in (publisher.publish("tokens", 1), subscriber.subscribe("tokens")):
            with pytest.raises(NotAuthorizedError) as caught:
                await call
            assert SECRET not in repr(caught.value)
        await publisher.disconnect()
        await subscriber.disconnect()
    assert len(requests.of("/v1/topics")) == len(requests.of("/v1/subscribe")) == 2


def test_a_token_from_the_environment_is_used_and_not_renewed(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no other to be had."""
    monkeypatch.setenv("TIDEGATE_TOKEN", SECRET)
    requests = Requests(answers={"/v1/topics/tokens": [401]})
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        publisher = Publisher(bridge.url)
        with pytest.raises(NotAuthorizedError):
            publisher.publish("tokens", 1)
        publisher.disconnect()
    assert [each.authorization for each in requests.of("/v1/topics")] == [f"Bearer {SECRET}"]


def test_a_token_is_in_no_log_and_no_repr(mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    """Even where every logger tells everything."""
    caplog.set_level(logging.DEBUG)
    with running_bridge(mosquitto.url) as bridge:
        with Publisher(bridge.url, token=SECRET) as publisher:
            publisher.publish("tokens", 1)
        shown = [repr(publisher), repr(publisher._asynchronous), repr(Calls(bridge.url, token=SECRET))]
    assert "tokens" in caplog.text
    assert SECRET not in caplog.text + "".join(shown)


def test_a_function_that_blocks_holds_nobody_else(mosquitto: Mosquitto) -> None:
    """It waits for what another client publishes, which it could not on the loop that carries both."""
    done = threading.Event()

    def slow() -> str:
        assert done.wait(SECONDS)
        return SECRET

    with running_bridge(mosquitto.url) as bridge, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Publisher(bridge.url, token=slow).publish, "tokens", 1)
        with Publisher(mosquitto.url) as other:
            other.publish("tokens", 2)
        done.set()
        assert waiting.result(SECONDS).qos == 1


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (lambda: sys.exit(3), "ended with SystemExit"),
        (SECRET.encode, "a token is text, not bytes"),
        (SECRET.encode(), "a token is text, not bytes"),
        (lambda: 123, "a token is text, not int"),
    ],
)
def test_what_is_no_token_is_an_error_of_the_call(mosquitto: Mosquitto, token: Any, words: str) -> None:
    """One of the tree; other calls go on, also of the same client."""
    with running_bridge(mosquitto.url) as bridge:
        publisher = Publisher(bridge.url, token=token)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=words) as found:
                publisher.publish("tokens", 1)
            assert SECRET not in str(found.value)
        assert Publisher(bridge.url, token=lambda: SECRET).publish("tokens", 1).qos == 1
