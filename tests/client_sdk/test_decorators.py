from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import (
    ConfigurationError,
    JSONFormatter,
    Message,
    NotAuthorizedError,
    NotConnectedError,
    PayloadError,
    Subscriber,
    TopicError,
    configure,
    publish,
    subscribe,
)
from tidegate.connection import ConnectOptions
from tidegate.decorators import _delay, disconnect_all
from tidegate.memory import MemoryBroker

SECONDS = 20.0


def deny(action: str, topic: str, options: ConnectOptions) -> int:
    """Refuse what begins with ``denied/``."""
    return 0x87 if topic.startswith("denied/") else 0


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker in memory that every decorator uses by default, and that denies some topics."""
    made = MemoryBroker(authorize=deny)
    configure(connect=made.connect)
    return made


def test_functions_with_the_same_options_share_one_connection(broker: MemoryBroker) -> None:
    """However many functions there are and however often they are called, there is one to publish over."""

    @publish("a")
    def one() -> int:
        return 1

    @publish("b", qos=2, connect=broker.connect)
    def two() -> int:
        return 2

    for _ in range(3):
        one()
        two()
    assert len(broker.client_ids) == 1

    @publish("c", formatter=JSONFormatter())
    def other() -> int:
        return 3

    other()
    assert len(broker.client_ids) == 2


def test_handlers_with_the_same_options_share_one_connection(broker: MemoryBroker) -> None:
    """The connection has all their subscriptions."""
    subscribe("a")(print)
    subscribe(["b", "c/#"])(print)
    wait_until(
        lambda: len(broker.client_ids) == 1 and len(broker.subscriptions_of(broker.client_ids[0])) == 3
    )
    filters = {each.filter for each in broker.subscriptions_of(broker.client_ids[0])}
    assert filters == {"a", "b", "c/#"}


def test_tls_options_that_say_the_same_share_one_connection(broker: MemoryBroker) -> None:
    """Equal mappings are one configuration, and different ones never are."""

    def made(ciphers: str) -> None:
        publish("a", tls={"ciphers": ciphers})(lambda: 1)()

    for ciphers in ("ECDHE+AESGCM", "ECDHE+CHACHA20", "ECDHE+AESGCM"):
        made(ciphers)
    assert len(broker.client_ids) == 2


def test_configure_applies_to_calls_that_come_after_it(broker: MemoryBroker) -> None:
    """A decorated function looks up where to publish when it is called."""
    other = MemoryBroker()

    @publish("a")
    def read() -> int:
        return 1

    read()
    configure(connect=other.connect)
    read()
    assert [len(each.published) for each in (broker, other)] == [1, 1]


def test_decorating_connects_to_nothing(broker: MemoryBroker) -> None:
    """A module of publishing functions can be imported where there is no broker."""
    publish("a")(print)
    assert broker.client_ids == []


def test_a_connection_that_was_ended_is_made_again(broker: MemoryBroker) -> None:
    """``disconnect_all`` ends what there is; the next call works."""

    @publish("a")
    def read() -> int:
        return 1

    read()
    disconnect_all()
    assert broker.client_ids == []
    read()
    assert len(broker.client_ids) == 1


def test_a_handler_is_given_back_itself(broker: MemoryBroker) -> None:
    """Nothing is wrapped round a handler, so that decorators stack and a test can call it."""

    def handle(payload: Any) -> Any:
        return payload

    assert subscribe("a")(subscribe("b")(handle)) is handle


def test_the_filters_may_come_in_any_iterable(broker: MemoryBroker) -> None:
    """A tuple, a set or a generator is as good as a list."""
    got: list[str] = []

    @subscribe(f"iterable/{number}" for number in range(2))
    def handle(message: Message) -> None:
        got.append(message.topic)

    wait_until(lambda: any(len(broker.subscriptions_of(each)) == 2 for each in broker.client_ids))
    for number in range(3):
        publish(f"iterable/{number}")(lambda: 1)()
    wait_until(lambda: len(got) == 2)
    assert got == ["iterable/0", "iterable/1"]


def test_what_is_wrong_with_the_arguments_is_told_at_decoration(broker: MemoryBroker) -> None:
    """A typing error in a topic is found when the module is imported."""
    with pytest.raises(TopicError):
        publish("a/#")
    with pytest.raises(TopicError):
        subscribe("a/#/b")
    with pytest.raises(TopicError):
        subscribe(["a", ""])
    with pytest.raises(ConfigurationError, match="no topic filter"):
        subscribe([])
    for qos in (3, -1, True, "1"):
        with pytest.raises(ConfigurationError, match="0, 1 or 2"):
            publish("a", qos=qos)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="0, 1 or 2"):
            subscribe("a", qos=qos)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="negative"):
        publish("a", retry_count=-1)
    with pytest.raises(ConfigurationError, match="negative"):
        publish("a", retry_delay=-0.1)


async def test_what_no_retry_can_help_is_raised_at_once(broker: MemoryBroker) -> None:
    """A refusal and an unwritable payload are not tried again: a retry would wait an hour here."""
    calls: list[int] = []

    @publish("denied/a", retry_count=5, retry_delay=3600)
    def refused() -> int:
        calls.append(1)
        return 1

    @publish("denied/a", retry_count=5, retry_delay=3600)
    async def refused_too() -> int:
        calls.append(1)
        return 1

    @publish("a", retry_count=5, retry_delay=3600)
    def unwritable() -> object:
        calls.append(1)
        return object()

    with pytest.raises(NotAuthorizedError):
        refused()
    with pytest.raises(NotAuthorizedError):
        await refused_too()
    with pytest.raises(PayloadError):
        unwritable()
    assert len(calls) == 3


def test_retries_back_off_with_jitter() -> None:
    """Each delay is about twice the one before, no two alike; after the last the error comes out."""
    error = NotConnectedError("away")
    delays = [_delay(error, attempt, 5, 0.5) for attempt in range(5)]
    for attempt, delay in enumerate(delays):
        assert 0.75 * 0.5 * 2**attempt <= delay <= 1.25 * 0.5 * 2**attempt
    assert len({_delay(error, 0, 1, 1.0) for _ in range(20)}) > 1
    with pytest.raises(NotConnectedError):
        _delay(error, 5, 5, 0.5)
    for final in (TopicError("bad"), PayloadError("bad"), ConfigurationError("bad")):
        with pytest.raises(type(final)):
            _delay(final, 0, 5, 0.5)


def test_a_function_that_raises_publishes_nothing(broker: MemoryBroker) -> None:
    """Its own error comes out as it is."""

    @publish("a")
    def fails() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fails()
    assert broker.published == []


def test_a_refused_handler_is_logged_and_asks_again(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is logged once, and access that is granted later is enough; others go on meanwhile."""
    denied = {"denied/a"}
    broker = MemoryBroker(authorize=lambda action, topic, options: 0x87 if topic in denied else 0)
    configure(connect=broker.connect)
    got: list[Any] = []

    @subscribe("denied/a")
    def handle(payload: Any) -> Any:
        got.append(payload)
        return payload

    others: list[Any] = []
    subscribe("allowed")(others.append)
    wait_until(lambda: "Not authorized" in caplog.text)
    assert handle(7) == 7
    allowed = publish("allowed")(lambda: 1)
    wait_until(lambda: bool(allowed() and others))
    denied.clear()
    send = publish("denied/a")(lambda: 8)
    wait_until(lambda: bool(send() and 8 in got))
    assert caplog.text.count("Not authorized") == 1


async def test_methods_and_classes_can_be_decorated(broker: MemoryBroker) -> None:
    """A method keeps its ``self``, a coroutine method stays one, and a bound method can listen."""

    class Sensor:
        def __init__(self) -> None:
            self.got: list[Any] = []

        @publish("sensor/value")
        def read(self, factor: int = 1) -> int:
            return 21 * factor

        @publish("sensor/value")
        async def read_slowly(self) -> int:
            await asyncio.sleep(0)
            return 1

        def on_value(self, payload: Any) -> None:
            self.got.append(payload)

    sensor = Sensor()
    subscribe("sensor/value")(sensor.on_value)
    assert inspect.iscoroutinefunction(Sensor.read_slowly)
    async with asyncio.timeout(SECONDS):
        while not sensor.got:
            assert sensor.read(factor=2) == 42
            await asyncio.sleep(0.01)
        assert await sensor.read_slowly() == 1
        while sensor.got[-1] != 1:
            await asyncio.sleep(0.01)
    assert set(sensor.got) == {42, 1}


def test_the_order_of_messages_is_kept_for_each_handler(way: Way) -> None:
    """A hundred messages arrive in the order in which they were published."""
    got: list[int] = []

    @publish("sdk/order", **way.options)
    def send(number: int) -> int:
        return number

    with Subscriber(**way.options) as subscriber:
        subscriber.subscribe("sdk/order", lambda _, number: got.append(number))
        for number in range(100):
            send(number)
        wait_until(lambda: len(got) == 100)
    assert got == list(range(100))


def test_nothing_secret_is_logged(broker: MemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    """Neither password nor token appears at any level."""
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"username": "user", "password": "s3cret", "connect": broker.connect}
    publish("a", **options)(lambda: 1)()
    publish("a", url="http://127.0.0.1:1", token="s3cret", retry_count=0)
    handle = publish("a", url="mqtt://user:s3cret@127.0.0.1:1", connect=broker.connect)(lambda: 1)
    handle()
    assert "s3cret" not in caplog.text


def test_functions_that_publish_and_listen_share_one_connection(fresh_mosquitto: Mosquitto) -> None:
    """With a client identifier of one's own, two connections would throw each other off for ever."""
    got: list[Any] = []
    configure(f"{fresh_mosquitto.url}?client_id=one-and-only")

    @subscribe("shared/connection")
    def handle(message: Any) -> None:
        got.append(message)

    @publish("shared/connection")
    def read() -> int:
        return 7

    wait_until(lambda: read() == 7 and bool(got))
    assert fresh_mosquitto.log.count("New client connected") == 1
