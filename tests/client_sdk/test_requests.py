"""Requests and replies, over every way to a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.client_sdk.conftest import Way
from tests.support.asked import Requests
from tests.support.bridge import running_bridge
from tests.support.mosquitto import Mosquitto
from tests.support.silent_proxy import SilentProxy
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    ConfigurationError,
    Message,
    MQTTError,
    MQTTTimeoutError,
    NotAuthorizedError,
    NotConnectedError,
    OutcomeUnknownError,
    Properties,
    Publisher,
    QueueFullError,
    Subscriber,
    TopicError,
    UnsupportedError,
    reply_turns,
)
from tidegate.connection import ConnectOptions
from tidegate.memory import MemoryBroker
from tidegate.replies import Replies
from tidegate.reply_turns import take_turn
from tidegate.transports.direct import DirectTransport

SECONDS = 20.0


def test_a_device_replies(way: Way) -> None:
    """The reply is a message, read as text or JSON; the request had what the caller gave it."""
    asked: list[Message] = []
    with (
        Subscriber(**way.options) as device,
        Publisher(**way.options) as answering,
        Publisher(**way.options) as asking,
    ):

        def handle(request: Message) -> None:
            asked.append(request)
            properties = Properties(content_type="application/json", user_properties=(("ü", "ö = %"),))
            answering.reply(request, {"seconds": 4711}, properties=properties)

        device.subscribe("requests/uptime", handle)
        properties = Properties(content_type="text/plain", user_properties=(("a", "1"), ("a", "2")))
        reply = asking.request("requests/uptime", {"unit": "s"}, properties=properties)
        assert asking.request("requests/uptime", b"again", qos=2).json() == {"seconds": 4711}
    assert (reply.text, reply.json()) == ('{"seconds":4711}', {"seconds": 4711})
    assert reply.properties.content_type == "application/json"
    assert reply.properties.user_properties == (("ü", "ö = %"),)
    assert reply.topic.startswith("tidegate/replies/")
    assert asked[0].json() == {"unit": "s"}
    assert asked[0].properties.user_properties == (("a", "1"), ("a", "2"))
    assert asked[0].properties.message_expiry in (9, 10)


async def test_requests_at_once_get_their_own_replies(way: Way) -> None:
    """However the replies are ordered, each goes to who asked."""
    async with (
        AsyncSubscriber(**way.options) as device,
        AsyncPublisher(**way.options) as answering,
        AsyncPublisher(**way.options) as asking,
    ):
        held: list[Message] = []

        async def handle(request: Message) -> None:
            held.append(request)
            if len(held) == 20:
                for each in reversed(held):
                    await answering.reply(each, each.json() * 2)

        await device.subscribe("requests/double", handle)
        replies = await asyncio.gather(*(asking.request("requests/double", n) for n in range(20)))
    assert [each.json() for each in replies] == [2 * n for n in range(20)]


@pytest.mark.parametrize(
    ("qos", "words"), [(0, "the request was sent"), (1, "the broker acknowledged the request")]
)
def test_no_reply_says_what_became_of_the_request(way: Way, qos: int, words: str) -> None:
    """It may have been carried out."""
    with Publisher(**way.options) as asking:
        with pytest.raises(MQTTTimeoutError, match=f"{words}.*; no reply came within 0.2.* s") as caught:
            asking.request("requests/nobody", 1, timeout=0.2, qos=qos)
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert caught.value.topic == "requests/nobody"


async def test_a_device_with_a_topic_of_its_own(way: Way) -> None:
    """Requests that name a response topic take turns, and what was kept there before is no reply."""
    async with (
        AsyncSubscriber(**way.options) as device,
        AsyncPublisher(**way.options) as answering,
        AsyncPublisher(**way.options) as asking,
    ):
        await answering.publish("requests/fixed/reply", "old", retain=True)

        async def handle(topic: str, payload: Any) -> None:
            await answering.publish("requests/fixed/reply", payload * 2)

        await device.subscribe("requests/fixed", handle)
        replies = await asyncio.gather(
            *(asking.request("requests/fixed", n, response_topic="requests/fixed/reply") for n in range(5))
        )
        await answering.publish("requests/fixed/reply", b"", retain=True)
    assert [each.json() for each in replies] == [2 * n for n in range(5)]
    assert {each.topic for each in replies} == {"requests/fixed/reply"}


async def test_clients_of_one_process_take_turns_too(way: Way) -> None:
    """On one event loop and in threads: each gets its own reply of a device that does not mark them."""
    topic = f"requests/turns/{way.name}"
    async with (
        AsyncSubscriber(**way.options) as device,
        AsyncPublisher(**way.options) as answering,
        AsyncPublisher(**way.options) as first,
        AsyncPublisher(**way.options) as second,
    ):

        async def handle(_: str, payload: Any) -> None:
            await answering.publish(f"{topic}/reply", payload * 2)

        await device.subscribe(topic, handle)
        third = Publisher(**way.options)
        replies = await asyncio.gather(
            *(
                asking.request(topic, n, response_topic=f"{topic}/reply")
                for n, asking in enumerate((first, second, first, second))
            ),
            *(
                asyncio.to_thread(third.request, topic, n, response_topic=f"{topic}/reply")
                for n in range(4, 8)
            ),
        )
        await asyncio.to_thread(third.disconnect)
    assert [each.json() for each in replies] == [2 * n for n in range(8)]


async def test_another_broker_has_turns_of_its_own() -> None:
    """A request that waits for its reply holds up nobody who asks elsewhere on a topic of that name."""
    silent, other = MemoryBroker(), MemoryBroker()
    async with (
        AsyncPublisher(connect=silent.connect) as waiting,
        AsyncPublisher(connect=other.connect) as asking,
        AsyncSubscriber(connect=other.connect) as device,
    ):

        async def handle(_: str, payload: Any) -> None:
            await asking.publish("device/reply", payload)

        await device.subscribe("device", handle)
        unanswered = asyncio.ensure_future(waiting.request("device", 1, response_topic="device/reply"))
        while not silent.published:
            await asyncio.sleep(0)
        assert (await asking.request("device", 2, response_topic="device/reply")).json() == 2
        unanswered.cancel()


def test_an_event_loop_that_is_gone_keeps_nobody_waiting() -> None:
    """Neither one that had its turn, which ends with its time, nor one that stood in line."""
    first = asyncio.run(take_turn("broker", "topic", 0.05))
    gone = asyncio.new_event_loop()
    waiting = gone.create_task(take_turn("broker", "topic", SECONDS))
    gone.run_until_complete(asyncio.sleep(0))
    gone.close()
    second = asyncio.run(take_turn("broker", "topic", SECONDS))
    first.end()
    assert not waiting.done()

    async def third() -> None:
        taking = asyncio.ensure_future(take_turn("broker", "topic", SECONDS))
        await asyncio.sleep(0)
        assert not taking.done()
        second.end()
        (await taking).end()

    asyncio.run(third())
    assert not reply_turns._lines


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda asking: asking.request("a/+", 1), TopicError),
        (lambda asking: asking.request("a", 1, timeout=0), ConfigurationError),
        (lambda asking: asking.request("a", 1, response_topic="a"), ConfigurationError),
        (lambda asking: asking.request("a", 1, response_topic="b/#"), TopicError),
        (
            lambda asking: asking.request("a", 1, properties=Properties(response_topic="b")),
            ConfigurationError,
        ),
        (lambda asking: asking.reply(Message("a"), 1), ConfigurationError),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(
    way: Way, call: Callable[[Publisher], object], kind: type[MQTTError]
) -> None:
    """Before anything is sent, with the same error over every way."""
    with Publisher(**way.options) as asking, pytest.raises(kind):
        call(asking)


def test_the_client_asks_for_replies_once() -> None:
    """One subscription serves all requests, and requests leave nothing behind."""
    broker = MemoryBroker()

    with (
        Publisher(connect=broker.connect, client_id="asking") as asking,
        Publisher(connect=broker.connect) as answering,
        Subscriber(connect=broker.connect) as device,
    ):

        def handle(request: Message) -> None:
            answering.reply(request, request.payload)

        device.subscribe("echo", handle)
        for number in range(3):
            assert asking.request("echo", number).json() == number
        assert len(broker.subscriptions_of("asking")) == 1
        with pytest.raises(MQTTTimeoutError):
            asking.request("nobody", 1, timeout=0.1)


async def test_an_older_protocol_needs_a_response_topic() -> None:
    """MQTT 3.1.1 cannot tell where a reply is expected: that is said, and with the topic named it works."""
    broker = MemoryBroker(protocol_versions=(4,))
    async with (
        AsyncPublisher(connect=broker.connect) as asking,
        AsyncSubscriber(connect=broker.connect) as device,
        AsyncPublisher(connect=broker.connect) as answering,
    ):

        async def handle(topic: str, payload: Any) -> None:
            await answering.publish("device/reply", payload)

        await device.subscribe("device", handle)
        with pytest.raises(UnsupportedError, match="response_topic="):
            await asking.request("device", 1)
        assert (await asking.request("device", 7, response_topic="device/reply")).json() == 7


async def test_a_late_reply_is_not_the_next_ones() -> None:
    """After a request without a reply the topic is left alone until the late one has come."""
    broker = MemoryBroker(protocol_versions=(4,))
    transport = DirectTransport(ConnectOptions(), connect=broker.connect)
    await transport.connect()
    replies = Replies(transport, settle_seconds=SECONDS)
    async with (
        AsyncPublisher(connect=broker.connect) as device,
        AsyncSubscriber(connect=broker.connect) as seen,
    ):
        asked: asyncio.Queue[bytes] = asyncio.Queue()

        def handle(message: Message) -> None:
            asked.put_nowait(message.payload)

        await seen.subscribe("device", handle)
        with pytest.raises(MQTTTimeoutError):
            await replies.ask(Message("device", b"1", 1), 0.1, "device/reply")
        assert await asked.get() == b"1"
        with pytest.raises(QueueFullError, match="nothing was sent"):
            await replies.ask(Message("device", b"impatient", 1), 0.05, "device/reply")
        second = asyncio.ensure_future(replies.ask(Message("device", b"2", 1), SECONDS, "device/reply"))
        await device.publish("device/reply", b"late")
        assert await asked.get() == b"2"
        await device.publish("device/reply", b"in time")
        assert (await second).payload == b"in time"
    replies.end()
    await transport.close()


def test_a_shared_connection_brings_replies_to_their_loop(mosquitto: Mosquitto) -> None:
    """The connection of a client with a name lives on another loop than its caller."""

    async def ask() -> Message:
        async with (
            AsyncPublisher(mosquitto.url, client_id="requests-shared") as asking,
            AsyncSubscriber(mosquitto.url, client_id="requests-shared") as device,
        ):

            async def handle(request: Message) -> None:
                await asking.reply(request, "yes")

            await device.subscribe("requests/shared", handle)
            return await asking.request("requests/shared", 1)

    assert asyncio.run(ask()).json() == "yes"


async def test_a_request_through_a_bridge_survives_a_cut_connection(mosquitto: Mosquitto) -> None:
    """It is made again under its key, and the device is asked once."""
    requests = Requests()
    with running_bridge(mosquitto.url, prepare=requests.prepare) as bridge:
        async with (
            SilentProxy(bridge.port) as proxy,
            AsyncSubscriber(mosquitto.url) as device,
            AsyncPublisher(mosquitto.url) as answering,
            AsyncPublisher(proxy.url) as asking,
        ):
            asked: list[Message] = []

            async def handle(request: Message) -> None:
                asked.append(request)
                await answering.reply(request, "done")

            await device.subscribe("requests/cut", handle)
            proxy.is_silent = True
            asking_once = asyncio.ensure_future(asking.request("requests/cut", 1))
            await proxy.withheld.wait()
            proxy.is_silent = False
            proxy.reset_connections()
            assert (await asking_once).json() == "done"
    assert len(asked) == 1
    keys = [each.key for each in requests.of("/v1/requests/")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_request_through_a_bridge_says_what_it_cannot_carry(bridge_url: str) -> None:
    """Refused, and not left out."""
    with Publisher(bridge_url) as asking, pytest.raises(UnsupportedError, match="payload_format"):
        asking.request("a", 1, properties=Properties(payload_format=1))


async def test_a_refused_subscription_for_replies_is_told_and_tried_again() -> None:
    """Access rules that keep a client from its replies are an error of the request, and no silence."""
    is_allowed = False

    def authorize(action: str, topic: str, _: ConnectOptions) -> int:
        return 0x87 if action == "subscribe" and "replies" in topic and not is_allowed else 0

    broker = MemoryBroker(authorize=authorize)
    async with (
        AsyncPublisher(connect=broker.connect) as asking,
        AsyncSubscriber(connect=broker.connect) as device,
    ):

        async def handle(request: Message) -> None:
            await asking.reply(request, "yes")

        await device.subscribe("device", handle)
        with pytest.raises(NotAuthorizedError):
            await asking.request("device", 1)
        assert not broker.published
        is_allowed = True
        assert (await asking.request("device", 1)).json() == "yes"


async def test_a_request_without_a_connection_was_not_sent() -> None:
    """It is told so, within its own time."""
    broker = MemoryBroker()
    asking = AsyncPublisher(connect=broker.connect)
    await asking.connect()
    broker.stop()
    with pytest.raises(NotConnectedError):
        await asking.request("device", 1, timeout=0.1)
    assert not broker.published
    await asking.disconnect()
