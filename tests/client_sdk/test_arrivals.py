from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from tests.client_sdk.conftest import Way
from tests.support.mosquitto import Mosquitto
from tidegate import (
    AsyncPublisher,
    AsyncSubscriber,
    Message,
    NotAuthorizedError,
    NotConnectedError,
    TopicError,
)
from tidegate.arrivals import Arrivals
from tidegate.memory import MemoryBroker

SECONDS = 20.0


async def test_a_subscriber_is_iterated_over(way: Way) -> None:
    """What has no handler comes by ``async for``, whole, in order; a handler beside it has its own."""
    handled: list[object] = []
    async with AsyncSubscriber(**way.options) as subscriber, AsyncPublisher(**way.options) as publisher:
        await subscriber.subscribe("arrivals/a/#")
        await subscriber.subscribe_multiple([("arrivals/b", 2)])
        await subscriber.subscribe("arrivals/handled", lambda _, payload: handled.append(payload))
        for topic in ("arrivals/a/1", "arrivals/handled", "arrivals/b", "arrivals/a/2"):
            await publisher.publish(topic, {"of": topic})
        got: list[Message] = []
        async with asyncio.timeout(SECONDS):
            async for message in subscriber:
                got.append(message)
                if len(got) == 3:
                    break
        assert {each.topic for each in got} == {"arrivals/a/1", "arrivals/a/2", "arrivals/b"}
        assert all(each.json() == {"of": each.topic} for each in got)


async def test_an_iteration_may_go_on_later_and_ends_with_disconnect(way: Way) -> None:
    """Leaving the loop keeps the subscription; ``disconnect`` ends the iteration after what has come."""
    async with AsyncPublisher(**way.options) as publisher:
        subscriber = AsyncSubscriber(**way.options)
        await subscriber.subscribe("arrivals/later")
        await publisher.publish("arrivals/later", 1)
        async with asyncio.timeout(SECONDS):
            async for message in subscriber:
                assert message.json() == 1
                break
            await publisher.publish("arrivals/later", 2)
            assert (await anext(aiter(subscriber))).json() == 2
            ending = asyncio.create_task(_all(subscriber))
            await asyncio.sleep(0)
            await subscriber.disconnect()
            assert await ending == []


async def _all(subscriber: AsyncSubscriber) -> list[Message]:
    return [message async for message in subscriber]


async def test_messages_of_a_filter_end_with_the_loop(way: Way) -> None:
    """``messages`` subscribes with its first step and unsubscribes when the loop is left."""
    async with AsyncSubscriber(**way.options) as subscriber, AsyncPublisher(**way.options) as publisher:
        await publisher.publish("arrivals/kept", "kept", retain=True)
        async with asyncio.timeout(SECONDS):
            async for message in subscriber.messages(["arrivals/kept", "arrivals/+"]):
                assert message.json() == "kept"
                assert message.retain
                break
        await publisher.publish("arrivals/kept", b"", retain=True)


async def test_leaving_the_loop_unsubscribes() -> None:
    """The broker holds nothing for an iteration that was left, and the other subscriptions stay."""
    broker = MemoryBroker()
    async with AsyncSubscriber(connect=broker.connect) as subscriber:
        (client,) = broker.client_ids

        def filters() -> set[str]:
            return {each.filter for each in broker.subscriptions_of(client)}

        await subscriber.subscribe("stays", print)
        async with contextlib.aclosing(subscriber.messages("a/#")) as messages:
            waiting = asyncio.ensure_future(anext(messages))
            while "a/#" not in filters():
                await asyncio.sleep(0)
            async with AsyncPublisher(connect=broker.connect) as publisher:
                await publisher.publish("a/1", 1)
            assert (await waiting).topic == "a/1"
        assert filters() == {"stays"}
        async with AsyncPublisher(connect=broker.connect) as publisher:
            await publisher.publish("b/1", 1, retain=True)
        async for _ in subscriber.messages("b/#"):
            break
        gc.collect()
        async with asyncio.timeout(SECONDS):
            while filters() != {"stays"}:
                await asyncio.sleep(0)


async def test_two_iterations_of_one_filter_each_get_all(mosquitto: Mosquitto) -> None:
    """One that ends takes nothing from the other, also where they share a connection."""
    url = f"{mosquitto.url}?client_id=arrivals"
    async with AsyncSubscriber(url) as subscriber, AsyncPublisher(url) as publisher:
        first, second = subscriber.messages("arrivals/two"), subscriber.messages("arrivals/two")
        await publisher.publish("arrivals/two", 0, retain=True)
        async with asyncio.timeout(SECONDS):
            assert [(await anext(each)).json() for each in (first, second)] == [0, 0]
            await publisher.publish("arrivals/two", 1)
            assert [(await anext(each)).json() for each in (first, second)] == [1, 1]
            await first.aclose()
            await publisher.publish("arrivals/two", 2)
            assert (await anext(second)).json() == 2
            await second.aclose()
        await publisher.publish("arrivals/two", b"", retain=True)


async def test_an_iteration_that_cannot_begin_says_why() -> None:
    """Bad filters and refusals come out of the first step."""
    broker = MemoryBroker(authorize=lambda action, topic, options: 0x87 if topic == "denied" else 0)
    async with AsyncSubscriber(connect=broker.connect) as subscriber:
        with pytest.raises(TopicError):
            await anext(subscriber.messages("a/#/b"))
        with pytest.raises(NotAuthorizedError):
            await anext(subscriber.messages("denied"))
    with pytest.raises(NotConnectedError, match="make a new one"):
        await anext(subscriber.messages("a"))
    with pytest.raises(NotConnectedError, match="make a new one"):
        aiter(subscriber)


async def test_messages_end_when_the_client_disconnects(way: Way) -> None:
    """Whoever iterates in another task is let go."""
    subscriber = AsyncSubscriber(**way.options)
    messages = subscriber.messages("arrivals/end")
    waiting = asyncio.ensure_future(anext(messages, None))
    while not subscriber._at_disconnect:
        await asyncio.sleep(0)
    await subscriber.disconnect()
    async with asyncio.timeout(SECONDS):
        assert await waiting is None


async def test_a_slow_iteration_loses_the_oldest_and_the_log_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The queue is bounded and the newest stay."""
    arrivals = Arrivals(asyncio.get_running_loop(), 3)
    for number in range(5):
        arrivals.receive(Message("a", b"%d" % number))
    arrivals.end()
    assert [each.json() async for each in arrivals] == [2, 3, 4]
    assert "2 messages dropped" in caplog.text
