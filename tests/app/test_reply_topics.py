"""``?response_topic=``: a topic that the device answers on by itself, for those that speak MQTT 3.1.1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from app.publishing import reply_topics
from tests.app.test_requests import LateAcknowledgements, counts, problem, until
from tests.support.bridge import Bridge, running_bridge
from tests.support.device import Device, post, silence
from tests.support.mosquitto import Mosquitto
from tests.support.sse import following
from tidegate.connection import Connection, ConnectionEvents, ConnectOptions
from tidegate.connections.aiomqtt_connection import connect
from tidegate.message import Message, Properties


@pytest.fixture(scope="module")
def old_bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge whose connection to the broker speaks MQTT 3.1.1; late replies are not waited for."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1", reply_topic_settle_seconds=0) as running:
        yield running


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge with MQTT 5; late replies are not waited for."""
    with running_bridge(mosquitto.url, reply_topic_settle_seconds=0) as running:
        yield running


def at(topic: str) -> Callable[[Message], Iterable[Message]]:
    """A device that knows nothing of properties, and answers on its own topic."""
    return lambda request: [Message(topic, b"re: " + request.payload, 1)]


def correlated(topic: str, payload: bytes, correlation_data: bytes | None) -> Message:
    """A message on a reply topic with correlation data."""
    return Message(topic, payload, 1, properties=Properties(correlation_data=correlation_data))


async def test_a_device_without_properties_answers_on_its_own_topic(
    old_bridge: Bridge, mosquitto: Mosquitto
) -> None:
    """The bridge and the device both speak MQTT 3.1.1: the first message on the topic is the reply."""
    async with Device(mosquitto.port, "old/a", at("old/a/reply"), protocol_version=4) as device:
        for number in (b"1", b"2"):
            answer = await post(
                old_bridge.port,
                "/v1/requests/old/a?response_topic=old/a/reply&timeout=20",
                number,
                {"Content-Type": "text/plain", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
            )
            assert (answer.status, answer.body) == (200, b"re: " + number)
            assert answer.headers["mqtt-topic"] == "old/a/reply"
    assert [(each.payload, each.qos) for each in device.requests] == [(b"1", 1), (b"2", 1)]


async def test_without_properties_a_reply_topic_must_be_named(
    old_bridge: Bridge, mosquitto: Mosquitto
) -> None:
    """A 3.1.1 request cannot tell where its reply is expected: it is refused, with a hint, and not sent."""
    async with Device(mosquitto.port, "old/b", silence, protocol_version=4) as device:
        answer = await post(old_bridge.port, "/v1/requests/old/b", b"x")
        assert (answer.status, problem(answer)) == (400, "unsupported")
        assert answer.json()["field"] == "response_topic"
        assert "?response_topic=" in answer.json()["hint"]
        await device.publish(Message("old/b", b"end"))
        await device.heard(1)
    assert [each.payload for each in device.requests] == [b"end"]


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?response_topic=old/r&expiry=1", {}, "expiry"),
        ("?response_topic=old/r&payload_format=0", {}, "payload_format"),
        ("?response_topic=old/r", {"Mqtt-User-Property": "a=b"}, "Mqtt-User-Property"),
        ("", {"Mqtt-Response-Topic": "old/r", "Mqtt-Message-Expiry": "1"}, "Mqtt-Message-Expiry"),
        (
            "?response_topic=old/r",
            {"ce-specversion": "1.0", "ce-id": "A-1", "ce-source": "/s", "ce-type": "asked"},
            "ce-specversion",
        ),
    ],
)
async def test_a_property_is_refused_where_mqtt_has_none(
    old_bridge: Bridge, query: str, headers: dict[str, str], field: str
) -> None:
    """What a 3.1.1 connection cannot carry is refused, not dropped."""
    answer = await post(old_bridge.port, f"/v1/requests/old/c{query}", b"x", headers)
    assert (answer.status, problem(answer), answer.json()["field"]) == (400, "unsupported", field)


@pytest.mark.parametrize("version", ["old", "new"])
async def test_a_retained_message_is_no_reply(
    old_bridge: Bridge, bridge: Bridge, mosquitto: Mosquitto, version: str
) -> None:
    """It was there before the request; one that the device retains now is a reply."""
    asked = old_bridge if version == "old" else bridge
    topic = f"kept/{version}/reply"
    async with Device(
        mosquitto.port, f"kept/{version}", lambda _: [Message(topic, b"new", 1, True)], protocol_version=4
    ) as device:
        await device.publish(Message(topic, b"old", 1, True))
        for _ in range(2):
            answer = await post(
                asked.port, f"/v1/requests/kept/{version}?response_topic={topic}&timeout=20", b"x"
            )
            assert (answer.status, answer.body) == (200, b"new")
        await device.publish(Message(topic, b"", 1, True))


async def test_what_came_before_the_request_is_no_reply(old_bridge: Bridge, mosquitto: Mosquitto) -> None:
    """While the topic is subscribed to for others, or still, its messages answer nobody."""
    topic = "before/reply"
    async with Device(mosquitto.port, "before", at(topic), protocol_version=4) as device:
        target = f"/v1/requests/before?response_topic={topic}&timeout=20"
        assert (await post(old_bridge.port, target, b"1")).body == b"re: 1"
        before = counts(old_bridge)["unmatched_replies"]
        await device.publish(Message(topic, b"of nobody's asking", 1))
        await until(lambda: counts(old_bridge)["unmatched_replies"] == before + 1)
        assert (await post(old_bridge.port, target, b"2")).body == b"re: 2"


async def test_what_comes_while_a_request_waits_to_be_sent_is_no_reply(mosquitto: Mosquitto) -> None:
    """Its turn among the messages to the broker has not come: the device cannot have heard it."""
    connections: list[LateAcknowledgements] = []

    async def connect_late(options: ConnectOptions, events: ConnectionEvents) -> Connection:
        connections.append(LateAcknowledgements(events))
        return await connect(options, connections[-1])

    topic = "room/reply"
    target = f"/v1/requests/room?response_topic={topic}&timeout=25"
    with running_bridge(mosquitto.url, connect=connect_late, max_in_flight=1) as bridge:
        async with Device(mosquitto.port, "room", at(topic), protocol_version=4) as device:
            assert (await post(bridge.port, target, b"1")).body == b"re: 1"
            before = await asyncio.to_thread(counts, bridge)
            async with asyncio.TaskGroup() as group:
                group.create_task(post(bridge.port, "/v1/topics/room/before", b"x"))
                await until(lambda: bool(connections[-1].held))
                asked = group.create_task(post(bridge.port, target, b"2"))
                await until(lambda: bridge.client.get("/v1/status").json()["broker"]["waiting"] == 1)
                await device.publish(Message(topic, b"of nobody's asking", 1))
            assert (200, b"re: 2") == (asked.result().status, asked.result().body)
        assert before["unmatched_replies"] + 1 == counts(bridge)["unmatched_replies"]


async def test_a_topic_need_not_settle_after_a_request_that_waited_to_be_sent(
    fresh_mosquitto: Mosquitto,
) -> None:
    """Its client left before its turn came, and no reply can come to what was not sent."""
    target = "/v1/requests/away?response_topic=away/reply&timeout="
    with running_bridge(fresh_mosquitto.url, reply_topic_settle_seconds=3600) as bridge:
        async with Device(fresh_mosquitto.port, "away", at("away/reply")):
            assert (await post(bridge.port, target + "20", b"1")).body == b"re: 1"
        fresh_mosquitto.kill()
        await until(lambda: bridge.client.get("/readyz").status_code == 503)
        left = asyncio.create_task(post(bridge.port, target + "25", b"2"))
        await until(lambda: bridge.client.get("/v1/status").json()["broker"]["waiting"] == 1)
        left.cancel()
        await until(lambda: counts(bridge)["waiting"] == 0)
        fresh_mosquitto.start()
        async with Device(fresh_mosquitto.port, "away", at("away/reply")) as device:
            assert (await post(bridge.port, target + "20", b"3")).body == b"re: 3"
        assert [each.payload for each in device.requests] == [b"3"]


async def test_requests_with_one_reply_topic_take_turns(old_bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The device hears the next one when it has answered the last; each caller gets its own answer."""
    topic, count = "turns/reply", 30
    heard_unanswered: list[int] = []
    answered = 0

    async with Device(mosquitto.port, "turns", silence, protocol_version=4) as device:
        async with asyncio.TaskGroup() as group:
            target = f"/v1/requests/turns?response_topic={topic}&timeout=25"
            asked = {
                number: group.create_task(post(old_bridge.port, target, b"%d" % number))
                for number in range(count)
            }
            for answered in range(count):
                request = (await device.heard(answered + 1))[answered]
                heard_unanswered.append(len(device.requests) - answered)
                await device.publish(Message(topic, b"re: " + request.payload, 1))
        for number, task in asked.items():
            assert (task.result().status, task.result().body) == (200, b"re: %d" % number)
    assert heard_unanswered == [1] * count


async def test_different_reply_topics_do_not_wait_for_one_another(
    old_bridge: Bridge, mosquitto: Mosquitto
) -> None:
    """A device that is slow holds up its own callers alone."""
    async with (
        Device(mosquitto.port, "apart/+", silence, protocol_version=4) as device,
        asyncio.TaskGroup() as group,
    ):
        asked = [
            group.create_task(
                post(old_bridge.port, f"/v1/requests/apart/{name}?response_topic=apart/{name}/r", b"x")
            )
            for name in "ab"
        ]
        await device.heard(2)
        await device.publish(Message("apart/b/r", b"b", 1), Message("apart/a/r", b"a", 1))
    assert [each.result().body for each in asked] == [b"a", b"b"]


async def test_a_line_that_is_full_is_told(mosquitto: Mosquitto) -> None:
    """The answer names the bound; the ones that wait keep their turn."""
    with running_bridge(mosquitto.url, max_requests_per_reply_topic=1) as bridge:
        async with Device(mosquitto.port, "line", silence) as device:
            target = "/v1/requests/line?response_topic=line/reply&timeout=25"
            first = asyncio.create_task(post(bridge.port, target, b"1"))
            await device.heard(1)
            second = asyncio.create_task(post(bridge.port, target, b"2"))
            await until(lambda: counts(bridge)["waiting"] == 2)
            refused = await post(bridge.port, target, b"3")
            assert (refused.status, problem(refused)) == (503, "reply-topic-busy")
            assert "TIDEGATE_MAX_REQUESTS_PER_REPLY_TOPIC" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            await device.publish(Message("line/reply", b"one", 1))
            await device.heard(2)
            await device.publish(Message("line/reply", b"two", 1))
            assert ((await first).body, (await second).body) == (b"one", b"two")
        assert [each.payload for each in device.requests] == [b"1", b"2"]


async def test_a_turn_that_does_not_come_in_time_is_503(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The request was not sent, and the answer says so; a client that leaves the line is forgotten too."""
    async with Device(mosquitto.port, "turn", silence) as device:
        target = "/v1/requests/turn?response_topic=turn/reply&timeout="
        first = asyncio.create_task(post(bridge.port, target + "25", b"1"))
        await device.heard(1)
        left = asyncio.create_task(post(bridge.port, target + "25", b"left"))
        await until(lambda: counts(bridge)["waiting"] == 2)
        late = await post(bridge.port, target + "0.2", b"late")
        assert (late.status, problem(late)) == (503, "reply-topic-busy")
        assert "nothing was sent" in late.json()["detail"]
        left.cancel()
        await until(lambda: counts(bridge)["waiting"] == 1)
        last = asyncio.create_task(post(bridge.port, target + "25", b"2"))
        await until(lambda: counts(bridge)["waiting"] == 2)
        await device.publish(Message("turn/reply", b"one", 1))
        await device.heard(2)
        await device.publish(Message("turn/reply", b"two", 1))
        assert ((await first).body, (await last).body) == (b"one", b"two")
    assert [each.payload for each in device.requests] == [b"1", b"2"]


async def test_a_late_reply_is_not_given_to_the_next_request(mosquitto: Mosquitto) -> None:
    """After a time-out the topic is left alone until the late reply has come, or can be expected no more."""
    with running_bridge(f"{mosquitto.url}?protocol=3.1.1", reply_topic_settle_seconds=3600) as bridge:
        async with Device(mosquitto.port, "late", silence, protocol_version=4) as device:
            target = "/v1/requests/late?response_topic=late/reply&timeout="
            assert problem(await post(bridge.port, target + "0.2", b"1")) == "no-reply"
            next_one = asyncio.create_task(post(bridge.port, target + "25", b"2"))
            await until(lambda: counts(bridge)["waiting"] == 1)
            await device.publish(Message("late/reply", b"to the first", 1))
            await device.heard(2)
            assert counts(bridge)["late_replies"] == 1
            await device.publish(Message("late/reply", b"to the second", 1))
            assert (await next_one).body == b"to the second"


async def test_a_topic_settles_for_a_while_only(mosquitto: Mosquitto) -> None:
    """A device that does not answer at all keeps nobody for ever."""
    with running_bridge(mosquitto.url, reply_topic_settle_seconds=0.2) as bridge:
        async with Device(mosquitto.port, "settle", silence) as device:
            target = "/v1/requests/settle?response_topic=settle/reply&timeout="
            assert problem(await post(bridge.port, target + "0.1", b"1")) == "no-reply"
            next_one = asyncio.create_task(post(bridge.port, target + "25", b"2"))
            await device.heard(2)
            await device.publish(Message("settle/reply", b"two", 1))
            assert (await next_one).body == b"two"


async def test_a_topic_need_not_settle_after_a_request_that_was_refused() -> None:
    """No reply can come to what the broker did not take."""
    with (
        Mosquitto(acl="topic readwrite allowed/#\ntopic read forbidden/#") as broker,
        running_bridge(broker.url, reply_topic_settle_seconds=3600) as bridge,
    ):
        for _ in range(2):
            answer = await post(bridge.port, "/v1/requests/forbidden/a?response_topic=allowed/reply", b"x")
            assert (answer.status, problem(answer)) == (403, "not-authorized")


async def test_a_topic_need_not_settle_after_a_request_that_was_not_sent(fresh_mosquitto: Mosquitto) -> None:
    """The broker was away: with it back the next request is sent at once."""
    target = "/v1/requests/away?response_topic=away/reply&timeout="
    with running_bridge(fresh_mosquitto.url, reply_topic_settle_seconds=3600) as bridge:
        async with Device(fresh_mosquitto.port, "away", at("away/reply")):
            assert (await post(bridge.port, target + "20", b"1")).body == b"re: 1"
        fresh_mosquitto.kill()
        await until(lambda: bridge.client.get("/readyz").status_code == 503)
        assert problem(await post(bridge.port, target + "0.3", b"2")) == "broker-unavailable"
        fresh_mosquitto.start()
        async with Device(fresh_mosquitto.port, "away", at("away/reply")):
            assert (await post(bridge.port, target + "20", b"3")).body == b"re: 3"


async def test_correlation_data_tells_replies_apart_where_it_is_echoed(
    bridge: Bridge, mosquitto: Mosquitto
) -> None:
    """On MQTT 5 a message with other correlation data is another's; with this one, or none, it is ours."""
    before = counts(bridge)
    target = "/v1/requests/echo?response_topic=echo/reply&timeout=20"
    async with Device(mosquitto.port, "echo", silence) as device:
        for number, echoed in ((1, True), (2, False)):
            asked = asyncio.create_task(post(bridge.port, target, b"x"))
            request = (await device.heard(number))[-1]
            found = request.properties.correlation_data
            assert (found is not None, request.properties.response_topic) == (True, "echo/reply")
            await device.publish(correlated("echo/reply", b"another's", b"another"))
            await device.publish(correlated("echo/reply", b"ours", found if echoed else None))
            assert (await asked).body == b"ours"
    assert counts(bridge)["unmatched_replies"] == before["unmatched_replies"] + 2


async def test_several_replies_are_gathered_from_one_topic(old_bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The answers of several 3.1.1 devices, also when they say the same."""
    topic = "gather/reply"

    def answers(_: Message) -> Iterable[Message]:
        return [Message(topic, b"1", 1), Message(topic, b"1", 1), Message(topic, b"2", 1)]

    async with Device(mosquitto.port, "gather", answers, protocol_version=4):
        answer = await post(
            old_bridge.port, f"/v1/requests/gather?response_topic={topic}&replies=3&timeout=20", b"x"
        )
    assert [(each["topic"], each["payload"]) for each in answer.json()] == [
        (topic, 1),
        (topic, 1),
        (topic, 2),
    ]


@pytest.mark.parametrize("version", ["old", "new"])
async def test_a_stream_on_the_reply_topic_sees_each_reply_once(mosquitto: Mosquitto, version: str) -> None:
    """The topic is shared with whoever follows it, with identifiers or without."""
    url = f"{mosquitto.url}?protocol={'3.1.1' if version == 'old' else '5'}"
    with running_bridge(url) as bridge:
        topic = f"seen/{version}/reply"
        with (
            following(bridge, topic, retained="false") as same,
            following(bridge, f"seen/{version}/#", retained="false") as wider,
        ):
            async with Device(mosquitto.port, f"seen/{version}", at(topic), protocol_version=4) as device:
                for number in (b"1", b"2"):
                    await post(bridge.port, f"/v1/requests/seen/{version}?response_topic={topic}", number)
                await device.publish(Message(topic, b"end", 1))
            for each, count in ((same, 3), (wider, 5)):
                messages: list[Any] = await asyncio.to_thread(each.wait_for_messages, count)
                assert [payload for name, payload, _ in messages if name == topic] == [
                    "re: 1",
                    "re: 2",
                    "end",
                ]


async def test_a_reply_topic_is_let_go_some_time_after_its_last_request(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subscription is kept for the next request, but not for ever; after that it is made again."""
    monkeypatch.setattr(reply_topics, "KEEP_SECONDS", 0.05)
    with running_bridge(mosquitto.url) as bridge:
        async with Device(mosquitto.port, "let/go", at("let/go/reply")):
            for number in (b"1", b"2"):
                answer = await post(bridge.port, "/v1/requests/let/go?response_topic=let/go/reply", number)
                assert answer.body == b"re: " + number
                await until(lambda: not bridge.client.get("/v1/status").json()["subscriptions"])


async def test_a_reply_topic_that_the_broker_forbids_is_told() -> None:
    """Nothing is sent where no reply could come, and the next caller is told the same."""
    with Mosquitto(denied="denied/#") as broker, running_bridge(broker.url) as bridge:
        for _ in range(2):
            answer = await post(bridge.port, "/v1/requests/a?response_topic=denied/reply", b"x")
            assert (answer.status, problem(answer)) == (403, "not-authorized")
            assert "'denied/reply'" in answer.json()["detail"]


async def test_a_bridge_that_stops_tells_the_whole_line(mosquitto: Mosquitto) -> None:
    """Who was sent is told so, and who waited for a turn was not."""
    with running_bridge(mosquitto.url) as bridge:
        async with Device(mosquitto.port, "stop/line", silence) as device:
            target = "/v1/requests/stop/line?response_topic=stop/reply&timeout=60"
            first = asyncio.create_task(post(bridge.port, target, b"1"))
            await device.heard(1)
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 0)
            second = asyncio.create_task(post(bridge.port, target, b"2"))
            await until(lambda: counts(bridge)["waiting"] == 2)
            bridge.drain()
            assert problem(await first) == "no-reply"
            refused = await second
            assert (refused.status, problem(refused)) == (503, "shutting-down")
        assert [each.payload for each in device.requests] == [b"1"]


async def test_a_bridge_that_stops_waits_for_no_late_reply(mosquitto: Mosquitto) -> None:
    """While a topic settles, who waits for it is told at once."""
    with running_bridge(mosquitto.url, reply_topic_settle_seconds=3600) as bridge:
        async with Device(mosquitto.port, "stop/settling", silence) as device:
            target = "/v1/requests/stop/settling?response_topic=stop/reply&timeout="
            assert problem(await post(bridge.port, target + "0.1", b"1")) == "no-reply"
            waiting = asyncio.create_task(post(bridge.port, target + "60", b"2"))
            await until(lambda: counts(bridge)["waiting"] == 1)
            bridge.drain()
            refused = await waiting
            assert (refused.status, problem(refused)) == (503, "shutting-down")
        assert [each.payload for each in device.requests] == [b"1"]
