"""Publishing and subscribing, by class and by decorator, over every way to a broker."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    ConfigurationError,
    Message,
    NotConnectedError,
    PayloadError,
    Properties,
    Publisher,
    Subscriber,
    TopicError,
    async_publish,
    async_subscribe,
    publish,
    subscribe,
)
from tidegate.background import engine, handlers
from tidegate.memory import MemoryBroker

SECONDS = 20.0


def test_the_blocking_classes_publish_and_receive(way: Way) -> None:
    """A value arrives as the value it was, with its topic."""
    got: list[tuple[str, Any]] = []
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe("sdk/blocking/#", lambda topic, payload: got.append((topic, payload)))
        values = [{"a": [1, 2.5, None]}, "text", 7, True, "grün\n"]
        for number, value in enumerate(values):
            result = publisher.publish(f"sdk/blocking/{number}", value, qos=number % 3)
            assert (result.topic, result.qos, result.retain) == (f"sdk/blocking/{number}", number % 3, False)
            assert result.reason_code in (0x00, 0x10)
        wait_until(lambda: len(got) == len(values))
    assert got == [(f"sdk/blocking/{number}", value) for number, value in enumerate(values)]


async def test_each_result_tells_of_its_own_message() -> None:
    """Also where the message before it differs in one thing alone, or in nothing."""
    broker = MemoryBroker()
    sent: list[tuple[str, int, bool]] = [
        ("sdk/result/a", 1, False),
        ("sdk/result/a", 1, False),
        ("sdk/result/b", 1, False),
        ("sdk/result/b", 0, False),
        ("sdk/result/b", 0, True),
    ]
    async with (
        AsyncPublisher(connect=broker.connect) as publisher,
        AsyncSubscriber(connect=broker.connect) as subscriber,
    ):
        await subscriber.subscribe(["sdk/result/a", "sdk/result/b"], lambda _topic, _payload: None)
        results = [await publisher.publish(topic, 1, qos, retain) for topic, qos, retain in sent]
        assert [(each.topic, each.qos, each.retain) for each in results] == sent
        unheard = await publisher.publish("sdk/result/c", 1)
        await subscriber.subscribe("sdk/result/c", lambda _topic, _payload: None)
        heard = await publisher.publish("sdk/result/c", 1)
    assert (unheard.reason_code, unheard.reason) == (0x10, "No matching subscribers")
    assert (heard.reason_code, heard.reason) == (0x00, "Success")


async def test_the_asynchronous_classes_publish_and_receive(way: Way) -> None:
    """Functions and coroutine functions both serve as handlers, on the caller's loop and off it."""
    got: list[tuple[str, Any]] = []
    threads: set[str] = set()
    arrived = asyncio.Event()

    async def coroutine(topic: str, payload: Any) -> None:
        threads.add(threading.current_thread().name)
        got.append((topic, payload))
        if len(got) == 2:
            arrived.set()

    async with AsyncSubscriber(**way.options) as subscriber, AsyncPublisher(**way.options) as publisher:
        await subscriber.subscribe("sdk/async/+", coroutine)
        await publisher.publish("sdk/async/1", {"n": 1})
        await publisher.publish("sdk/async/2", b"\xff\x00")
        async with asyncio.timeout(SECONDS):
            await arrived.wait()
    assert got == [("sdk/async/1", {"n": 1}), ("sdk/async/2", b"\xff\x00")]
    assert threads == {threading.current_thread().name}


def test_several_filters_hand_a_message_over_once(way: Way) -> None:
    """Overlapping filters of one call are one subscription to its handler; another handler has its own."""
    one: list[str] = []
    other: list[str] = []
    with Subscriber(**way.options) as subscriber, Publisher(**way.options) as publisher:
        subscriber.subscribe_multiple(
            [("sdk/several/+", 0), ("sdk/several/a", 1), "sdk/several/#"], lambda topic, _: one.append(topic)
        )
        subscriber.subscribe("sdk/several/a", lambda topic, _: other.append(topic))
        for topic in ("sdk/several/a", "sdk/several/b", "sdk/several/a", "sdk/several/end"):
            publisher.publish(topic, 1)
        wait_until(lambda: len(one) >= 4 and len(other) >= 2)
    assert one == ["sdk/several/a", "sdk/several/b", "sdk/several/a", "sdk/several/end"]
    assert other == ["sdk/several/a", "sdk/several/a"]


def test_a_retained_message_comes_first_and_is_marked(way: Way) -> None:
    """A handler annotated with Message sees everything that came with the payload."""
    got: list[Message] = []

    def keep(message: Message) -> None:
        got.append(message)

    properties = Properties(content_type="text/plain", user_properties=(("a", "1"), ("a", "2")))
    with Publisher(**way.options) as publisher:
        publisher.publish("sdk/retained", b"kept", retain=True, properties=properties)
        with Subscriber(**way.options) as subscriber:
            subscriber.subscribe("sdk/retained", keep)
            wait_until(lambda: len(got) == 1)
        publisher.publish("sdk/retained", b"", retain=True)
    assert (got[0].payload, got[0].retain, got[0].properties) == (b"kept", True, properties)


def test_a_publishing_function_stays_the_function_it_was(way: Way) -> None:
    """It gives its own result, keeps its name and signature, and publishes what it returns."""
    got: list[Any] = []

    @publish("sdk/decorated", **way.options)
    def read(sensor: str, *, scale: float = 1.0) -> dict[str, Any]:
        """Read a sensor."""
        return {"sensor": sensor, "value": 2 * scale}

    with Subscriber(**way.options) as subscriber:
        subscriber.subscribe("sdk/decorated", lambda _, payload: got.append(payload))
        assert read("a", scale=1.5) == {"sensor": "a", "value": 3.0}
        wait_until(lambda: bool(got))
    assert got == [{"sensor": "a", "value": 3.0}]
    assert (read.__name__, read.__doc__) == ("read", "Read a sensor.")
    assert list(inspect.signature(read).parameters) == ["sensor", "scale"]


async def test_a_publishing_coroutine_function_stays_one(way: Way) -> None:
    """The same decorator serves both; a synchronous one may be called inside a running loop."""
    got: list[Any] = []

    @async_publish("sdk/coroutine", **way.options)
    async def compute() -> int:
        await asyncio.sleep(0)
        return 42

    @publish("sdk/coroutine", **way.options)
    def read() -> int:
        return 43

    async with AsyncSubscriber(**way.options) as subscriber:
        await subscriber.subscribe("sdk/coroutine", lambda _, payload: got.append(payload))
        assert inspect.iscoroutinefunction(compute)
        assert await compute() == 42
        assert read() == 43
        async with asyncio.timeout(SECONDS):
            while len(got) < 2:
                await asyncio.sleep(0.01)
    assert got == [42, 43]


def test_a_subscribing_function_listens_and_can_still_be_called(way: Way) -> None:
    """It gets payloads in the background, in order, and a unit test calls it as it is."""
    got: list[Any] = []

    @subscribe(["sdk/handler/+", "sdk/handler/a"], **way.options)
    def handle(message: dict[str, int]) -> int:
        got.append(message)
        return message["n"]

    assert handle({"n": -1}) == -1
    got.clear()
    with Publisher(**way.options) as publisher:
        wait_until_listening(publisher, "sdk/handler/warm", got, {"n": 0})
        for number in range(1, 50):
            publisher.publish("sdk/handler/a", {"n": number}, qos=1)
        wait_until(lambda: got[-1] == {"n": 49})
    assert [each["n"] for each in got if each["n"]] == list(range(1, 50))


def test_a_handler_may_raise_block_and_publish(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """One that raises is logged and gets the next message; one that blocks holds up nobody."""
    release = threading.Event()
    good: list[Any] = []
    answers: list[Any] = []

    @publish("sdk/robust/answer", **way.options)
    def answer(value: Any) -> dict[str, Any]:
        return {"answer": value}

    @subscribe("sdk/robust/answer", **way.options)
    def on_answer(message: Any) -> None:
        answers.append(message)

    @subscribe("sdk/robust/question", **way.options)
    def blocks(message: Any) -> None:
        release.wait(SECONDS)

    @subscribe("sdk/robust/question", **way.options)
    def raises(message: Any) -> None:
        good.append(message)
        if message == "bad":
            raise RuntimeError("boom")
        answer(message)

    with Publisher(**way.options) as publisher:
        wait_until_listening(publisher, "sdk/robust/question", good)
        publisher.publish("sdk/robust/question", "bad")
        publisher.publish("sdk/robust/question", "good")
        wait_until(lambda: "good" in good)
        wait_until(lambda: {"answer": "good"} in answers)
    release.set()
    assert "boom" in caplog.text


async def test_a_coroutine_handler_runs_on_the_loop_it_was_decorated_in(way: Way) -> None:
    """Decorated in a running loop it runs there; the loop is free meanwhile."""
    got: asyncio.Queue[Any] = asyncio.Queue()

    @async_subscribe("sdk/loop", **way.options)
    async def handle(message: Any) -> None:
        await asyncio.sleep(0)
        await got.put((message, asyncio.get_running_loop()))

    async with AsyncPublisher(**way.options) as publisher, asyncio.timeout(SECONDS):
        while got.empty():
            await publisher.publish("sdk/loop", 1)
            await asyncio.sleep(0.05)
        assert await got.get() == (1, asyncio.get_running_loop())


def test_a_coroutine_handler_without_a_loop_may_call_blocking_functions(way: Way) -> None:
    """It runs on a loop that is not the engine's, so a blocking publish inside it waits and does not hang."""
    got: list[Any] = []

    @publish("sdk/inner", **way.options)
    def inner(value: Any) -> Any:
        return value

    @subscribe("sdk/outer", **way.options)
    async def handle(message: Any) -> None:
        got.append((inner(message), asyncio.get_running_loop() is handlers.loop))

    with Publisher(**way.options) as publisher:
        wait_until_listening(publisher, "sdk/outer", got)
    assert got[0] == (0, True)


def wait_until_listening(publisher: Publisher, topic: str, got: list[Any], value: Any = 0) -> None:
    """Publish until a handler that was started in the background shows that it gets messages."""

    def is_heard() -> bool:
        publisher.publish(topic, value)
        return bool(got)

    wait_until(is_heard)


def test_what_cannot_be_published_is_refused_before_anything_is_sent(way: Way) -> None:
    """Topic, payload and QoS are looked at first; the next publish works."""
    with Publisher(**way.options) as publisher:
        with pytest.raises(TopicError):
            publisher.publish("a/+/b", 1)
        with pytest.raises(TopicError):
            publisher.publish("a\x00b", 1)
        with pytest.raises(PayloadError):
            publisher.publish("a", float("nan"))
        with pytest.raises(PayloadError):
            publisher.publish("a", object())
        with pytest.raises(ConfigurationError):
            publisher.publish("a", 1, qos=3)
        with pytest.raises(ConfigurationError):
            publisher.publish("a", 1, qos=False)
        assert publisher.publish("a", 1).reason_code in (0x00, 0x10)


def test_a_disconnected_client_says_so(way: Way) -> None:
    """Disconnecting twice is harmless; using it afterwards is an error with what to do."""
    publisher = Publisher(**way.options)
    publisher.publish("a", 1)
    publisher.disconnect()
    publisher.disconnect()
    with pytest.raises(NotConnectedError, match="make a new one"):
        publisher.publish("a", 1)


def test_loop_forever_ends_with_disconnect(way: Way) -> None:
    """The blocking wait returns when another thread disconnects."""
    subscriber = Subscriber(**way.options)
    subscriber.subscribe("sdk/forever", lambda topic, payload: None)
    waiting = threading.Thread(target=subscriber.loop_forever)
    waiting.start()
    subscriber.disconnect()
    waiting.join(SECONDS)
    assert not waiting.is_alive()


async def test_start_listening_ends_with_disconnect(way: Way) -> None:
    """The awaiting wait does so too."""
    async with AsyncSubscriber(**way.options) as subscriber:
        listening = asyncio.create_task(subscriber.start_listening())
        await asyncio.sleep(0)
        await subscriber.disconnect()
        async with asyncio.timeout(SECONDS):
            await listening


def test_a_broker_that_is_away_is_an_error_where_one_waits() -> None:
    """``connect`` tells why at once, and may be called again when the broker is there."""
    with ReservedPort() as reserved:
        publisher = Publisher(host="127.0.0.1", port=reserved.number)
        with pytest.raises(Exception, match="nothing listens"):
            publisher.connect()
        publisher.disconnect()
        publisher = Publisher(url=f"http://127.0.0.1:{reserved.number}")
        with pytest.raises(NotConnectedError, match="cannot be reached"):
            publisher.connect()
        publisher.disconnect()


@pytest.mark.parametrize("scheme", ["mqtt", "http"])
def test_a_broker_that_is_away_at_import_is_logged_and_not_raised(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Decorating works, and what was decorated stays callable."""
    caplog.set_level(logging.WARNING, "tidegate")
    with ReservedPort() as reserved:

        @subscribe("a", url=f"{scheme}://127.0.0.1:{reserved.number}")
        def handle(message: Any) -> Any:
            return message

        assert handle(1) == 1
        wait_until(lambda: "127.0.0.1" in caplog.text)


def test_a_handler_hears_a_broker_that_comes_later() -> None:
    """Listening goes on until the broker is there, and over its restart."""
    got: list[Any] = []
    with Mosquitto() as broker:
        broker.stop()

        @subscribe("sdk/later", url=broker.url)
        def handle(message: Any) -> None:
            got.append(message)

        broker.start()
        with Publisher(broker.url) as publisher:
            wait_until_listening(publisher, "sdk/later", got)
            broker.restart()
            got.clear()
            wait_until_listening(publisher, "sdk/later", got)


def test_a_publish_that_fails_is_tried_again() -> None:
    """``retry_count`` covers a broker that comes back late; the function runs once."""
    calls = 0
    with Mosquitto() as broker:
        broker.stop()

        @publish("sdk/retry", host="127.0.0.1", port=broker.port, retry_count=20, retry_delay=0.05)
        def read() -> int:
            nonlocal calls
            calls += 1
            return calls

        starting = threading.Timer(0.3, broker.start)
        starting.start()
        assert read() == 1
        starting.join()
    assert calls == 1


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(Publisher, AsyncPublisher), (Subscriber, AsyncSubscriber)]
)
def test_the_two_faces_have_the_same_signatures(blocking: type, asynchronous: type) -> None:
    """Every public method of the blocking class takes what its asynchronous twin takes.

    A handler alone may be left out of the asynchronous one, for whoever iterates.
    """

    def parameters(function: Callable[..., Any]) -> list[tuple[str, object, object]]:
        return [
            (each.name, None if each.name == "handler" else each.default, each.kind)
            for each in inspect.signature(function).parameters.values()
        ]

    twins = {"loop_forever": "start_listening"}
    names = [name for name in vars(blocking) if not name.startswith("_")]
    assert names
    for name in [*names, "__init__"]:
        twin: Callable[..., Any] = getattr(asynchronous, twins.get(name, name))
        assert parameters(twin) == parameters(getattr(blocking, name))


def test_the_engine_refuses_to_wait_for_itself() -> None:
    """A blocking call made on the engine's own thread is an error with words, not a lock-up."""

    async def blocking_call() -> None:
        engine.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="await the asynchronous call"):
        engine.run(blocking_call())
