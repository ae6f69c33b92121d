"""``POST /v1/requests``: each caller gets the reply to its own request, or is told why there is none."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from app.publishing import replies
from tests.support.bridge import Bridge, RawAnswer, running_bridge, wait_until
from tests.support.device import SECONDS, Device, post, reply_to, silence
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto, find_program
from tests.support.sse import following
from tidegate.connection import Connection, ConnectionEvents, ConnectOptions
from tidegate.connections.aiomqtt_connection import connect
from tidegate.memory import MemoryBroker
from tidegate.message import Message

MANY = 2000
FILES = 3 * MANY


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge that the tests of this module share."""
    with running_bridge(mosquitto.url, max_replies=5, max_request_timeout_seconds=60) as running:
        yield running


@pytest.fixture
async def device(mosquitto: Mosquitto) -> AsyncIterator[Device]:
    """A device at ask/device that sends back what it gets."""
    async with Device(mosquitto.port, "ask/device") as running:
        yield running


def problem(answer: RawAnswer) -> str:
    """The name of an answer's problem type; the answer must be a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status
    found: str = answer.json()["type"]
    return found.removeprefix("urn:tidegate:problem:")


def counts(bridge: Bridge) -> dict[str, int]:
    """What the status says of requests."""
    found: dict[str, int] = bridge.client.get("/v1/status").json()["requests"]
    return found


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, without holding up the device."""
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.01)


# The reply.


async def test_the_reply_is_the_answer(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Its payload is the body, byte for byte, its properties are headers, and no browser runs it."""
    octets = bytes(range(256))

    def answers(request: Message) -> Iterable[Message]:
        yield reply_to(
            request,
            request.payload,
            content_type="text/plain",
            user_properties=(("unit", "°C"), ("unit", "K")),
        )

    async with Device(mosquitto.port, "ask/whole", answers) as device:
        answer = await post(
            bridge.port,
            "/v1/requests/ask/whole?timeout=20",
            octets,
            {"Content-Type": "application/x-thing", "Mqtt-User-Property": "a=b%20c"},
        )
    assert (answer.status, answer.body) == (200, octets)
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["mqtt-user-property"] == "unit=K"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    (request,) = device.requests
    properties = request.properties
    assert (request.payload, request.qos, request.retain) == (octets, 1, False)
    assert (properties.content_type, properties.user_properties) == ("application/x-thing", (("a", "b c"),))
    assert answer.headers["mqtt-topic"] == properties.response_topic
    prefix, _, token = str(properties.response_topic).rpartition("/")
    assert prefix.rpartition("/")[0] == "tidegate/replies"
    assert properties.correlation_data == token.encode()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_request_goes_out_with_the_qos_that_it_names(
    bridge: Bridge, mosquitto: Mosquitto, qos: int
) -> None:
    """Also with QoS 0, which the broker does not acknowledge."""
    async with Device(mosquitto.port, "/ask//qos") as device:
        answer = await post(bridge.port, f"/v1/requests?topic=/ask//qos&qos={qos}", b"x")
    assert (answer.status, answer.body) == (200, b"x")
    assert device.requests[0].qos == min(qos, 1)


@pytest.mark.parametrize(("query", "expiry"), [("timeout=7.2", 8), ("timeout=7&expiry=100", 100)])
async def test_a_request_that_nobody_waits_for_expires(
    bridge: Bridge, device: Device, query: str, expiry: int
) -> None:
    """A device that comes back later does not get it, unless the caller wants it so."""
    assert (await post(bridge.port, f"/v1/requests/ask/device?{query}", b"x")).status == 200
    assert device.requests[0].properties.message_expiry == expiry


async def test_a_request_with_a_key_is_asked_once(bridge: Bridge, device: Device) -> None:
    """Also while the first still waits: all callers get the one reply, and another request is refused."""
    key = {"Idempotency-Key": "ask-once"}
    path = "/v1/requests/ask/device?timeout=20"
    answers = await asyncio.gather(*(post(bridge.port, path, b"x", key) for _ in range(3)))
    assert [(200, b"x")] * 3 == [(each.status, each.body) for each in answers]
    assert 2 == sum(each.headers.get("idempotency-replayed") == "true" for each in answers)
    assert 1 == len(device.requests)
    other = await post(bridge.port, path + "&replies=2", b"x", key)
    assert (422, "idempotency-key-reused") == (other.status, problem(other))
    assert 1 == len(device.requests)


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVENT = {"ce-specversion": "1.0", "ce-id": "A-1", "ce-source": "/s", "ce-type": "asked"}


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Mqtt-Message-Expiry": "70", "Mqtt-Payload-Format": "1"}),
        ("&expiry=70&payload_format=1", {}),
        ("&expiry=70&payload_format=1", {"Mqtt-Message-Expiry": "70", "Mqtt-Payload-Format": "1"}),
    ],
)
async def test_a_request_has_the_properties_of_a_publish(
    bridge: Bridge, device: Device, query: str, headers: dict[str, str]
) -> None:
    """In headers or in the query, as on /v1/topics."""
    answer = await post(bridge.port, f"/v1/requests/ask/device?timeout=20{query}", b"x", headers)
    assert (200, b"x") == (answer.status, answer.body)
    properties = device.requests[0].properties
    assert (70, 1) == (properties.message_expiry, properties.payload_format)


async def test_the_reply_topic_may_stand_in_a_header(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Mqtt-Response-Topic names where the device answers by itself, and makes it the same request."""
    reply_topic = "ask/header/r\u00e9ply"

    def answers(request: Message) -> Iterable[Message]:
        yield Message(reply_topic, b"re: " + request.payload, 1)

    target = "/v1/requests/ask/header?timeout=20"
    header = {"Mqtt-Response-Topic": "ask/header/r%C3%A9ply", "Idempotency-Key": "reply-topic"}
    async with Device(mosquitto.port, "ask/header", answers) as device:
        answer = await post(bridge.port, target, b"x", header)
        assert (200, b"re: x") == (answer.status, answer.body)
        assert reply_topic == device.requests[0].properties.response_topic
        again = await post(
            bridge.port,
            target + "&response_topic=ask/header/r%C3%A9ply",
            b"x",
            {"Idempotency-Key": "reply-topic"},
        )
        assert (200, "true") == (again.status, again.headers.get("idempotency-replayed"))


async def test_a_request_may_be_a_cloud_event(bridge: Bridge, device: Device) -> None:
    """In binary mode its attributes are user properties; in structured mode the body is the event."""
    target = "/v1/requests/ask/device?timeout=20"
    event = {name.removeprefix("ce-"): value for name, value in EVENT.items()}
    assert 200 == (await post(bridge.port, target, b"x", {**EVENT, "Mqtt-User-Property": "a=b"})).status
    body = json.dumps(event).encode()
    kind = "application/cloudevents+json"
    assert 200 == (await post(bridge.port, target, body, {"Content-Type": kind})).status
    binary, structured = (each.properties for each in device.requests)
    assert (*event.items(), ("a", "b")) == binary.user_properties
    assert ((), kind) == (structured.user_properties, structured.content_type)


async def test_a_request_carries_its_trace(bridge: Bridge, device: Device) -> None:
    """As user properties; another trace does not make it another request under the same key."""
    target = "/v1/requests/ask/device?timeout=20"
    key = {"Idempotency-Key": "traced"}
    trace = {"traceparent": PARENT, "tracestate": "vendor=1"}
    assert 200 == (await post(bridge.port, target, b"x", {**trace, **key})).status
    again = await post(bridge.port, target, b"x", {"traceparent": PARENT.replace("b7", "b8"), **key})
    assert (200, "true") == (again.status, again.headers.get("idempotency-replayed"))
    (request,) = device.requests
    assert tuple(trace.items()) == request.properties.user_properties


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_client_that_comes_back_with_its_key_gets_the_reply(
    bridge: Bridge, mosquitto: Mosquitto, qos: int
) -> None:
    """Who leaves while a request with a key waits makes it again, and the device is asked once."""
    key = {"Idempotency-Key": f"come-back-{qos}"}
    path = f"/v1/requests/ask/back?timeout=25&qos={qos}"
    before = counts(bridge)
    async with Device(mosquitto.port, "ask/back", silence) as device:
        left = asyncio.create_task(post(bridge.port, path, b"unlock", key))
        await device.heard(1)
        waiting = asyncio.create_task(post(bridge.port, path, b"unlock", key))
        left.cancel()
        await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 0)
        assert 1 == counts(bridge)["waiting"]
        again = asyncio.create_task(post(bridge.port, path, b"unlock", key))
        await device.publish(reply_to(device.requests[0], b"unlocked"))
        answers = [await waiting, await again, await post(bridge.port, path, b"unlock", key)]
    assert [(200, b"unlocked", "true")] * 3 == [
        (each.status, each.body, each.headers.get("idempotency-replayed")) for each in answers
    ]
    assert 1 == len(device.requests)
    assert before["answered"] + 1 == counts(bridge)["answered"]


async def test_a_request_with_a_key_whose_client_left_ends_with_the_bridge(
    mosquitto: Mosquitto,
) -> None:
    """It keeps nobody from stopping, and whoever came back with the key is told what became of it."""
    key = {"Idempotency-Key": "left-for-good"}
    target = "/v1/requests/ask/stop?timeout=60"
    with running_bridge(mosquitto.url) as bridge:
        async with Device(mosquitto.port, "ask/stop", silence) as device:
            left = asyncio.create_task(post(bridge.port, target, b"x", key))
            await device.heard(1)
            left.cancel()
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 0)
            waiting = asyncio.create_task(post(bridge.port, target, b"x", key))
            bridge.drain()
            answer = await waiting
            assert (504, "no-reply", "true") == (
                answer.status,
                problem(answer),
                answer.headers.get("idempotency-replayed"),
            )
            assert "the bridge stops" in answer.json()["detail"]
            await until(lambda: counts(bridge)["waiting"] == 0)
        assert 1 == len(device.requests)


async def test_a_late_refusal_of_a_request_with_a_key_is_told() -> None:
    """The broker says no after the time was up: the next request with the key is told that."""
    key = {"Idempotency-Key": "late-refusal"}
    with (
        Mosquitto(acl="topic readwrite #\ntopic deny forbidden/#") as broker,
        running_bridge(broker.url) as bridge,
    ):
        assert problem(await post(bridge.port, "/v1/requests/allowed?timeout=0.2", b"x")) == "no-reply"
        broker.pause()
        first = await post(bridge.port, "/v1/requests/forbidden/a?timeout=0.3", b"x", key)
        assert (504, "outcome-unknown") == (first.status, problem(first))
        broker.resume()
        again = await post(bridge.port, "/v1/requests/forbidden/a?timeout=0.3", b"x", key)
        assert (403, "not-authorized", "true") == (
            again.status,
            problem(again),
            again.headers.get("idempotency-replayed"),
        )
        assert 0x87 == again.json()["reason_code"]


async def test_a_reply_topic_that_the_broker_forbids_leaves_the_key_free() -> None:
    """Nothing was sent, so that the same request is made anew, and is asked once access is given."""
    key = {"Idempotency-Key": "no-reply-topic"}
    denied = {"subscribe"}

    def authorize(action: str, topic: str, options: ConnectOptions) -> int:
        return 0x87 if action in denied else 0

    memory = MemoryBroker(authorize=authorize)
    with running_bridge("mqtt://memory.test", connect=memory.connect) as bridge:
        first = await post(bridge.port, "/v1/requests/a?timeout=0.5", b"x", key)
        assert (403, "not-authorized", 0x87) == (
            first.status,
            problem(first),
            first.json()["reason_code"],
        )
        assert [] == memory.published
        denied.clear()
        again = await post(bridge.port, "/v1/requests/a?timeout=0.5", b"x", key)
        assert (504, "no-reply") == (again.status, problem(again))
        assert "idempotency-replayed" not in again.headers
        assert 1 == len(memory.published)


async def test_a_reply_needs_no_correlation_data(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The reply topic says whose it is."""

    def answers(request: Message) -> Iterable[Message]:
        yield Message(str(request.properties.response_topic), b"plain")

    async with Device(mosquitto.port, "ask/plain", answers):
        answer = await post(bridge.port, "/v1/requests/ask/plain", b"x")
    assert (answer.status, answer.body) == (200, b"plain")
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_correlation_data_that_disagrees_is_no_reply(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """A device that echoes it has to echo the right one; what it says otherwise is dropped and counted."""

    def answers(request: Message) -> Iterable[Message]:
        yield reply_to(request, b"wrong", correlation_data=b"another")
        yield reply_to(request, b"right")

    before = counts(bridge)
    async with Device(mosquitto.port, "ask/wrong", answers):
        answer = await post(bridge.port, "/v1/requests/ask/wrong", b"x")
    assert (answer.status, answer.body) == (200, b"right")
    assert counts(bridge)["unmatched_replies"] == before["unmatched_replies"] + 1


class LateAcknowledgements:
    """Events of a connection that hears of its publishes only after the next message has come."""

    def __init__(self, events: ConnectionEvents) -> None:
        self.on_lost = events.on_lost
        self.on_resumed = events.on_resumed
        self._events = events
        self.held: list[tuple[Any, int]] = []

    def on_message(self, message: Message) -> None:
        """Pass on the message, and then what was held."""
        self._events.on_message(message)
        for token, reason_code in self.held:
            self._events.on_published(token, reason_code)
        self.held = []

    def on_published(self, token: Any, reason_code: int) -> None:
        """Hold it."""
        self.held.append((token, reason_code))


async def connect_late(options: ConnectOptions, events: ConnectionEvents) -> Connection:
    """Open a connection on which each reply overtakes the acknowledgement."""
    return await connect(options, LateAcknowledgements(events))


@asynccontextmanager
async def bridge_behind(proxy: FaultProxy) -> AsyncIterator[Bridge]:
    """A bridge that reaches its broker through a proxy of this loop, which therefore must not be held up."""
    with ExitStack() as stack:
        running = running_bridge(f"mqtt://{proxy.host}:{proxy.port}")
        try:
            yield await asyncio.to_thread(stack.enter_context, running)
        finally:
            await asyncio.to_thread(stack.close)


async def test_a_reply_may_overtake_the_acknowledgement(mosquitto: Mosquitto, device: Device) -> None:
    """The wait begins before the request is sent: a reply that is there before PUBACK is the answer."""
    with running_bridge(mosquitto.url, connect=connect_late) as bridge:
        answer = await post(bridge.port, "/v1/requests/ask/device", b"quick")
    assert (answer.status, answer.body) == (200, b"quick")
    assert len(device.requests) == 1


async def test_a_device_that_answers_mosquitto_rr_answers_the_bridge(
    bridge: Bridge, mosquitto: Mosquitto, device: Device
) -> None:
    """Mosquitto's own requester is asked the same, and gets the same."""
    command = [
        find_program("mosquitto_rr"),
        "-h",
        mosquitto.host,
        "-p",
        str(mosquitto.port),
        "-V",
        "5",
        "-q",
        "1",
    ]
    command += ["-t", "ask/device", "-e", "replies/to/mosquitto_rr", "-m", "what is it?", "-W", "20"]
    reference = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, check=True, timeout=SECONDS
    )
    answer = await post(bridge.port, "/v1/requests/ask/device", b"what is it?")
    assert (answer.status, answer.body) == (200, reference.stdout.rstrip(b"\n"))
    first, second = device.requests
    assert (first.payload, first.qos, first.retain) == (second.payload, second.qos, second.retain)
    assert first.properties.response_topic == "replies/to/mosquitto_rr"
    assert str(second.properties.response_topic).startswith("tidegate/replies/")


# Many.


@pytest.fixture
def many_files() -> Iterator[None]:
    """Enough sockets for both ends of many connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(FILES, before[0]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def answer_all(device: Device, count: int) -> None:
    """Wait until a device has heard so many requests, and answer the last one first."""
    requests = await device.heard(count)
    await device.publish(*(reply_to(each, b"re: " + each.payload) for each in reversed(requests)))


@pytest.mark.usefixtures("many_files")
async def test_thousands_of_requests_get_each_its_own_reply() -> None:
    """All wait at once, and the replies come in the reverse order."""
    with Mosquitto(extra=["max_queued_messages 0"]) as broker, running_bridge(broker.url) as bridge:
        async with Device(broker.port, "many/+", silence) as device, asyncio.TaskGroup() as group:
            asked = [
                group.create_task(
                    post(bridge.port, f"/v1/requests/many/{number % 7}?timeout=60", b"%d" % number)
                )
                for number in range(MANY)
            ]
            await device.heard(MANY)
            assert counts(bridge)["waiting"] == MANY
            await answer_all(device, MANY)
        answers = [each.result() for each in asked]
        assert [(each.status, each.body) for each in answers] == [
            (200, b"re: %d" % number) for number in range(MANY)
        ]
        assert counts(bridge) == {
            "waiting": 0,
            "answered": MANY,
            "timed_out": 0,
            "late_replies": 0,
            "unmatched_replies": 0,
        }


async def test_two_bridges_on_one_broker_do_not_get_one_anothers_replies(mosquitto: Mosquitto) -> None:
    """Each has reply topics of its own, also with the same settings."""
    count = 50
    with running_bridge(mosquitto.url) as one, running_bridge(mosquitto.url) as other:
        async with Device(mosquitto.port, "two/bridges", silence) as device, asyncio.TaskGroup() as group:
            asked = {
                (name, number): group.create_task(
                    post(each.port, "/v1/requests/two/bridges", f"{name} {number}".encode())
                )
                for number in range(count)
                for name, each in (("one", one), ("other", other))
            }
            await answer_all(device, 2 * count)
        for (name, number), task in asked.items():
            assert task.result().body == f"re: {name} {number}".encode()
        for each in (one, other):
            found = counts(each)
            assert (found["answered"], found["late_replies"], found["unmatched_replies"]) == (count, 0, 0)


async def test_who_follows_everything_sees_each_message_once(mosquitto: Mosquitto, device: Device) -> None:
    """The subscription for replies doubles nothing for streams, and a stream takes no reply away."""
    overlapping = ("tidegate/replies/#", "ask/+", "#")
    with running_bridge(mosquitto.url) as bridge:
        await post(bridge.port, "/v1/requests/ask/device", b"the subscription is there")
        with (
            following(bridge, "#", retained="false") as one,
            following(bridge, *overlapping, retained="false") as two,
        ):
            for number in range(3):
                answer = await post(bridge.port, "/v1/requests/ask/device", b"%d" % number)
                assert answer.body == b"%d" % number
            await device.publish(Message("ask/end", b"9"))
            await until(lambda: all(("ask/end", 9, False) in each.messages for each in (one, two)))
            for each in (one, two):
                assert sorted(payload for _, payload, _ in each.messages) == [0, 0, 1, 1, 2, 2, 9]


# No reply.


async def test_no_reply_in_time_is_504(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """The answer says that the broker acknowledged the request, so that nobody takes it for unsent."""
    before = counts(bridge)
    async with Device(mosquitto.port, "ask/silent", silence) as device:
        answer = await post(bridge.port, "/v1/requests/ask/silent?timeout=0.2", b"x")
    assert (answer.status, problem(answer), len(device.requests)) == (504, "no-reply", 1)
    assert answer.json()["detail"] == "the broker acknowledged the request; no reply came within 0.2 s"
    assert "reason_code" not in answer.json()
    assert counts(bridge)["timed_out"] == before["timed_out"] + 1


async def test_a_topic_that_nobody_listens_to_is_hinted_at(bridge: Bridge) -> None:
    """Where the broker says so; it is still a time-out, since some brokers say so wrongly."""
    answer = await post(bridge.port, "/v1/requests/ask/nobody?timeout=0.2", b"x")
    assert (answer.status, problem(answer)) == (504, "no-reply")
    assert answer.json()["reason_code"] == 16
    assert "nobody subscribes" in answer.json()["hint"]


async def test_a_request_of_qos_0_was_not_acknowledged(bridge: Bridge) -> None:
    """The answer claims no more than is known."""
    answer = await post(bridge.port, "/v1/requests/ask/nobody?timeout=0.2&qos=0", b"x")
    assert (answer.status, problem(answer)) == (504, "no-reply")
    assert answer.json()["detail"] == "the request was sent (QoS 0); no reply came within 0.2 s"


async def test_a_late_reply_is_dropped_and_counted(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """It is never the answer to a later request."""
    before = counts(bridge)
    async with Device(mosquitto.port, "ask/late", silence) as device:
        answer = await post(bridge.port, "/v1/requests/ask/late?timeout=0.2", b"x")
        assert problem(answer) == "no-reply"
        async with asyncio.TaskGroup() as group:
            later = group.create_task(post(bridge.port, "/v1/requests/ask/late", b"y"))
            first, second = await device.heard(2)
            await device.publish(reply_to(first, b"late"))
            await until(lambda: counts(bridge)["late_replies"] == before["late_replies"] + 1)
            await device.publish(reply_to(second, b"in time"))
    assert (later.result().status, later.result().body) == (200, b"in time")


async def test_a_publish_that_the_broker_forbids_is_403() -> None:
    """A request is refused as a publish is."""
    with (
        Mosquitto(acl="topic readwrite allowed/#\ntopic read forbidden/#") as broker,
        running_bridge(broker.url) as bridge,
    ):
        answer = await post(bridge.port, "/v1/requests/forbidden/a", b"x")
        assert (answer.status, problem(answer)) == (403, "not-authorized")
        assert answer.json()["reason_code"] == 135
        assert counts(bridge)["waiting"] == 0


async def test_reply_topics_that_the_broker_forbids_are_told() -> None:
    """Nothing is sent where no reply could come."""
    with Mosquitto(denied="tidegate/#") as broker, running_bridge(broker.url) as bridge:
        async with Device(broker.port, "ask/a", silence) as device:
            answer = await post(bridge.port, "/v1/requests/ask/a", b"x")
            assert (answer.status, problem(answer)) == (403, "not-authorized")
            assert "tidegate/replies/" in answer.json()["detail"]
            await device.publish(Message("ask/a", b"end"))
            await device.heard(1)
        assert [each.payload for each in device.requests] == [b"end"]
    with (
        Mosquitto(denied="tidegate/#") as broker,
        running_bridge(broker.url, reply_topic_prefix="elsewhere") as bridge,
    ):
        async with Device(broker.port, "ask/a"):
            assert (await post(bridge.port, "/v1/requests/ask/a", b"x")).body == b"x"


@pytest.mark.parametrize("is_subscribed", [False, True])
async def test_a_broker_that_is_away_is_503(fresh_mosquitto: Mosquitto, is_subscribed: bool) -> None:
    """Nothing was sent, whether the bridge had reply topics already or not; with the broker back it works."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        if is_subscribed:
            async with Device(fresh_mosquitto.port, "ask/a"):
                assert (await post(bridge.port, "/v1/requests/ask/a", b"x")).status == 200
        fresh_mosquitto.kill()
        await until(lambda: bridge.client.get("/readyz").status_code == 503)
        answer = await post(bridge.port, "/v1/requests/ask/a?timeout=0.3", b"x")
        assert (answer.status, problem(answer)) == (503, "broker-unavailable")
        assert "nothing was sent" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
        fresh_mosquitto.start()
        async with Device(fresh_mosquitto.port, "ask/a"):
            answer = await post(bridge.port, "/v1/requests/ask/a?timeout=20", b"again")
            assert (answer.status, answer.body) == (200, b"again")


async def test_a_broker_that_hangs_is_504(fresh_mosquitto: Mosquitto) -> None:
    """Sent and not acknowledged when the time is up: the outcome is unknown, as after any publish."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=3600) as bridge:
        async with Device(fresh_mosquitto.port, "ask/a"):
            assert (await post(bridge.port, "/v1/requests/ask/a", b"x")).status == 200
            fresh_mosquitto.pause()
            answer = await post(bridge.port, "/v1/requests/ask/a?timeout=0.3", b"x")
            fresh_mosquitto.resume()
        assert (answer.status, problem(answer)) == (504, "outcome-unknown")
        assert counts(bridge)["waiting"] == 0


@pytest.mark.parametrize(("seconds", "publish_seconds"), [(0.3, 10), (10, 0.3)])
async def test_a_broker_that_hangs_before_the_first_request_is_503(
    fresh_mosquitto: Mosquitto, seconds: float, publish_seconds: float
) -> None:
    """Without a subscription for the reply nothing is sent, whichever time is up first."""
    with running_bridge(fresh_mosquitto.url, publish_timeout_seconds=publish_seconds) as bridge:
        fresh_mosquitto.pause()
        answer = await post(bridge.port, f"/v1/requests/ask/a?timeout={seconds}", b"x")
        fresh_mosquitto.resume()
        assert (answer.status, problem(answer)) == (503, "broker-unavailable")
        async with Device(fresh_mosquitto.port, "ask/a") as device:
            answer = await post(bridge.port, "/v1/requests/ask/a?timeout=20", b"again")
            assert (answer.status, answer.body) == (200, b"again")
        assert [each.payload for each in device.requests] == [b"again"]


# A lost connection.


async def test_a_reply_may_come_after_a_lost_connection(mosquitto: Mosquitto) -> None:
    """The subscription comes back with the connection, and the wait goes on."""
    async with (
        FaultProxy(mosquitto.port) as proxy,
        Device(mosquitto.port, "ask/lost", silence) as device,
        bridge_behind(proxy) as bridge,
    ):
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(post(bridge.port, "/v1/requests/ask/lost?timeout=25", b"x"))
            (request,) = await device.heard(1)
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 0)
            proxy.reset_connections()
            await until(lambda: proxy.accepted == 2 and bridge.client.get("/readyz").status_code == 200)
            await device.publish(reply_to(request, b"after all"))
        assert (asked.result().status, asked.result().body) == (200, b"after all")


async def test_a_lost_connection_is_told_where_no_reply_came(mosquitto: Mosquitto) -> None:
    """The reply may have been lost with it: that is not the same as a device that did not answer."""
    async with (
        FaultProxy(mosquitto.port) as proxy,
        Device(mosquitto.port, "ask/lost", silence) as device,
        bridge_behind(proxy) as bridge,
    ):
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(post(bridge.port, "/v1/requests/ask/lost?timeout=3", b"x"))
            await device.heard(1)
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 0)
            proxy.reset_connections()
        answer = asked.result()
        assert (answer.status, problem(answer)) == (504, "no-reply")
        assert "the connection to the broker was lost meanwhile" in answer.json()["detail"]


async def test_a_request_that_was_lost_with_the_connection_is_sent_again(mosquitto: Mosquitto) -> None:
    """Not acknowledged before the connection was lost, it goes out again with the next one."""
    async with (
        FaultProxy(mosquitto.port) as proxy,
        Device(mosquitto.port, "ask/again"),
        bridge_behind(proxy) as bridge,
    ):
        assert (await post(bridge.port, "/v1/requests/ask/again", b"1")).body == b"1"
        await proxy.set(Fault.BLACK_HOLE)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(post(bridge.port, "/v1/requests/ask/again?timeout=25", b"2"))
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 1)
            await proxy.set(Fault.REFUSE)
            await until(lambda: bridge.client.get("/readyz").status_code == 503)
            await proxy.set(Fault.PASS)
        assert (asked.result().status, asked.result().body) == (200, b"2")


async def test_reply_topics_that_are_refused_after_a_reconnect_end_the_wait() -> None:
    """Nothing can come any more: the caller is told at once, and the next request subscribes anew."""
    denied: set[str] = set()
    clients: list[str] = []

    def authorize(action: str, topic: str, options: ConnectOptions) -> int:
        clients.append(options.client_id)
        return 0x87 if action in denied else 0

    memory = MemoryBroker(authorize=authorize)
    with running_bridge("mqtt://memory.test", connect=memory.connect) as bridge:
        asked = asyncio.create_task(post(bridge.port, "/v1/requests/a", b"x"))
        await until(lambda: bool(memory.published))
        denied.add("subscribe")
        memory.lose(clients[0])
        answer = await asked
        assert (answer.status, problem(answer)) == (504, "no-reply")
        assert "does not grant the subscription" in answer.json()["detail"]
        denied.clear()
        asked = asyncio.create_task(post(bridge.port, "/v1/requests/a", b"x"))
        await until(lambda: len(memory.published) == 2)
        request = memory.published[-1]
        assert request.properties.response_topic != memory.published[0].properties.response_topic
        reply = reply_to(request, b"again")
        assert (
            await asyncio.to_thread(bridge.client.post, f"/v1/topics/{reply.topic}", content=b"again")
        ).is_success
        assert (await asked).body == b"again"
        await until(lambda: bridge.client.get("/v1/status").json()["subscriptions_total"] == 1)


# Who leaves, and what stops.


async def test_a_client_that_leaves_is_forgotten_at_once(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """Nothing waits for a reply that nobody would get."""
    before = counts(bridge)
    async with Device(mosquitto.port, "ask/left", silence) as device:
        asked = asyncio.create_task(post(bridge.port, "/v1/requests/ask/left?timeout=60", b"x"))
        await device.heard(1)
        assert counts(bridge)["waiting"] == 1
        asked.cancel()
        await until(lambda: counts(bridge)["waiting"] == 0)
        await device.publish(reply_to(device.requests[0], b"to nobody"))
        await until(lambda: counts(bridge)["late_replies"] == before["late_replies"] + 1)
    assert counts(bridge)["timed_out"] == before["timed_out"]


async def test_a_request_that_waits_for_the_broker_is_not_sent_for_a_client_that_left(
    fresh_mosquitto: Mosquitto,
) -> None:
    """It gives up its place among the messages that wait."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        async with Device(fresh_mosquitto.port, "ask/a"):
            assert (await post(bridge.port, "/v1/requests/ask/a", b"x")).status == 200
        fresh_mosquitto.kill()
        await until(lambda: bridge.client.get("/readyz").status_code == 503)
        asked = asyncio.create_task(post(bridge.port, "/v1/requests/ask/a?timeout=60", b"x"))
        await until(lambda: bridge.client.get("/v1/status").json()["broker"]["waiting"] == 1)
        asked.cancel()
        await until(lambda: bridge.client.get("/v1/status").json()["broker"]["waiting"] == 0)


async def test_a_bridge_that_stops_tells_who_waits(mosquitto: Mosquitto) -> None:
    """The request was sent, so it is 504 and not 503; one that comes now is not sent, and is 503."""
    with running_bridge(mosquitto.url) as bridge:
        async with Device(mosquitto.port, "ask/stop", silence) as device:
            asked = asyncio.create_task(post(bridge.port, "/v1/requests/ask/stop?timeout=60", b"x"))
            await device.heard(1)
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 0)
            bridge.drain()
            answer = await asked
            assert (answer.status, problem(answer)) == (504, "no-reply")
            assert answer.json()["detail"] == (
                "the broker acknowledged the request; the bridge stops before a reply came"
            )
            refused = await post(bridge.port, "/v1/requests/ask/stop", b"y")
            assert (refused.status, problem(refused)) == (503, "shutting-down")
            await device.publish(Message("ask/stop", b"end"))
            await device.heard(2)
        assert [each.payload for each in device.requests] == [b"x", b"end"]


async def test_a_bridge_that_stops_before_the_acknowledgement_does_not_know(
    fresh_mosquitto: Mosquitto,
) -> None:
    """It may have arrived, or not."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        async with Device(fresh_mosquitto.port, "ask/stop"):
            assert (await post(bridge.port, "/v1/requests/ask/stop", b"x")).status == 200
            fresh_mosquitto.pause()
            asked = asyncio.create_task(post(bridge.port, "/v1/requests/ask/stop?timeout=60", b"x"))
            await until(lambda: bridge.client.get("/v1/status").json()["broker"]["in_flight"] == 1)
            bridge.drain()
            answer = await asked
            assert (answer.status, problem(answer)) == (504, "outcome-unknown")
            assert "the bridge stops" in answer.json()["detail"]
            fresh_mosquitto.resume()


async def test_a_bridge_that_stops_before_it_has_subscribed_sends_nothing(fresh_mosquitto: Mosquitto) -> None:
    """The request that waited for the subscription is told so at once."""
    with running_bridge(fresh_mosquitto.url) as bridge:
        fresh_mosquitto.pause()
        asked = asyncio.create_task(post(bridge.port, "/v1/requests/ask/stop?timeout=60", b"x"))
        await until(lambda: counts(bridge)["waiting"] == 1)
        bridge.drain()
        answer = await asked
        assert (answer.status, problem(answer)) == (503, "shutting-down")
        fresh_mosquitto.resume()


# Several replies.


def several(*payloads: bytes) -> Callable[[Message], Iterable[Message]]:
    """Devices that answer with these, in this order."""
    return lambda request: [reply_to(request, each) for each in payloads]


async def test_the_replies_of_several_devices_are_gathered(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """As soon as so many came; each as streams have it, in the order of arrival."""
    async with Device(mosquitto.port, "ask/all", several(b'{"n":1}', b"two", b'{"n":1}')) as device:
        answer = await post(bridge.port, "/v1/requests/ask/all?replies=3&timeout=20", b"x")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert [each["payload"] for each in answer.json()] == [{"n": 1}, "two", {"n": 1}]
    assert [each["encoding"] for each in answer.json()] == ["json", "text", "json"]
    assert answer.json()[0]["topic"] == device.requests[0].properties.response_topic
    assert (answer.headers["mqtt-replies-awaited"], answer.headers["mqtt-replies-received"]) == ("3", "3")


async def test_fewer_replies_than_wanted_are_an_answer_too(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """When the time is up; the headers tell how many were awaited and came."""
    async with Device(mosquitto.port, "ask/all", several(b"1", b"2")):
        answer = await post(
            bridge.port,
            "/v1/requests/ask/all?replies=3&timeout=0.5",
            b"x",
            {"Accept": "application/x-ndjson"},
        )
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line)["payload"] for line in answer.body.splitlines()] == [1, 2]
    assert (answer.headers["mqtt-replies-awaited"], answer.headers["mqtt-replies-received"]) == ("3", "2")


async def test_none_of_several_replies_is_504(bridge: Bridge) -> None:
    """An empty list would look like an answer."""
    answer = await post(bridge.port, "/v1/requests/ask/nobody?replies=3&timeout=0.2", b"x")
    assert (answer.status, problem(answer)) == (504, "no-reply")


async def test_more_replies_than_wanted_are_dropped(bridge: Bridge, mosquitto: Mosquitto) -> None:
    """What comes after the last one awaited is late."""
    before = counts(bridge)
    async with Device(mosquitto.port, "ask/all", several(b"1", b"2", b"3")):
        answer = await post(bridge.port, "/v1/requests/ask/all?replies=2&timeout=20", b"x")
        assert [each["payload"] for each in answer.json()] == [1, 2]
        await until(lambda: counts(bridge)["late_replies"] == before["late_replies"] + 1)


# Bounds, and what is refused.


async def test_too_many_waiting_requests_are_refused(mosquitto: Mosquitto) -> None:
    """The answer names the bound, and says when to try again; nothing was sent."""
    with running_bridge(mosquitto.url, max_waiting_requests=1) as bridge:
        async with Device(mosquitto.port, "ask/bound", silence) as device:
            asked = asyncio.create_task(post(bridge.port, "/v1/requests/ask/bound", b"x"))
            await device.heard(1)
            refused = await post(bridge.port, "/v1/requests/ask/bound", b"y")
            assert (refused.status, problem(refused)) == (503, "too-many-waiting")
            assert "TIDEGATE_MAX_WAITING_REQUESTS" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            await device.publish(reply_to(device.requests[0], b"free again"))
            assert (await asked).status == 200
            await until(lambda: counts(bridge)["waiting"] == 0)
            assert problem(await post(bridge.port, "/v1/requests/ask/bound?timeout=0.2", b"z")) == "no-reply"
        assert [each.payload for each in device.requests] == [b"x", b"z"]


async def test_a_reply_that_is_too_much_ends_the_gathering(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one request may hold is bounded in bytes too; it is answered with what it has."""
    monkeypatch.setattr(replies, "MAX_GATHERED_BYTES", 1000)
    with running_bridge(mosquitto.url) as bridge:
        async with Device(mosquitto.port, "ask/all", several(b"1" * 600, b"2" * 600, b"3")):
            answer = await post(bridge.port, "/v1/requests/ask/all?replies=9", b"x")
        assert answer.headers["mqtt-replies-received"] == "2"


async def test_a_body_slower_than_the_time_out_is_408(bridge: Bridge) -> None:
    """The time-out counts from the arrival of the request; what is over then is not sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write(
        b"POST /v1/requests/a?timeout=0.05 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\nx"
    )
    longer = await post(bridge.port, "/v1/requests/ask/nobody?timeout=0.5")
    assert problem(longer) == "no-reply"
    writer.write(b"y")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readuntil(b"}")
    writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["type"] == "urn:tidegate:problem:body-timeout"


@pytest.mark.parametrize(
    ("target", "kind", "field"),
    [
        ("/v1/requests", "invalid-topic", "topic"),
        ("/v1/requests/", "invalid-topic", "topic"),
        ("/v1/requests/a/+", "invalid-topic", "topic"),
        ("/v1/requests/a/%23", "invalid-topic", "topic"),
        ("/v1/requests/a%00", "invalid-topic", "topic"),
        ("/v1/requests/a?topic=b", "invalid-parameter", "topic"),
        ("/v1/requests/$SYS/a", "reserved-topic", "topic"),
        ("/v1/requests/a?retain=true", "unknown-parameter", "retain"),
        ("/v1/requests/a?timout=1", "unknown-parameter", "timout"),
        ("/v1/requests/a?timeout=1&timeout=2", "repeated-parameter", "timeout"),
        ("/v1/requests/a?timeout=0", "invalid-parameter", "timeout"),
        ("/v1/requests/a?timeout=soon", "invalid-parameter", "timeout"),
        ("/v1/requests/a?timeout=61", "invalid-parameter", "timeout"),
        ("/v1/requests/a?qos=3", "invalid-parameter", "qos"),
        ("/v1/requests/a?replies=1", "invalid-parameter", "replies"),
        ("/v1/requests/a?replies=6", "invalid-parameter", "replies"),
        ("/v1/requests/a?replies=many", "invalid-parameter", "replies"),
        ("/v1/requests/a?response_topic=", "invalid-parameter", "response_topic"),
        ("/v1/requests/a?response_topic=b/%23", "invalid-parameter", "response_topic"),
        ("/v1/requests/a?response_topic=b/%2B/c", "invalid-parameter", "response_topic"),
        ("/v1/requests/a?response_topic=b%0A", "invalid-parameter", "response_topic"),
        ("/v1/requests/a/b?response_topic=a/b", "invalid-parameter", "response_topic"),
        ("/v1/requests/a?response_topic=$share/workers/a", "reserved-topic", "response_topic"),
        ("/v1/requests/a?response_topic=$SYS/broker/uptime", "reserved-topic", "response_topic"),
    ],
)
async def test_a_request_that_cannot_be_is_refused(
    bridge: Bridge, target: str, kind: str, field: str
) -> None:
    """With the field that is at fault."""
    answer = await post(bridge.port, target, b"x")
    assert (problem(answer), answer.json()["field"]) == (kind, field)
    assert answer.status == (403 if kind == "reserved-topic" else 400)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("/v1/requests/a?timeout=61", "TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS allows: 60"),
        ("/v1/requests/a?replies=6", "TIDEGATE_MAX_REPLIES allows: 5"),
    ],
)
async def test_a_bound_is_named(bridge: Bridge, target: str, named: str) -> None:
    """Whoever runs the bridge knows what to change."""
    assert named in (await post(bridge.port, target)).json()["detail"]


@pytest.mark.parametrize(
    ("name", "value", "status", "kind"),
    [
        ("Mqtt-Correlation-Data", "AP8=", 400, "invalid-header"),
        ("Mqtt-User-Properties", "a=b", 400, "invalid-header"),
        ("Content-Type", "text/\u00e9", 400, "invalid-header"),
    ],
)
async def test_a_header_that_cannot_be_is_refused(
    bridge: Bridge, name: str, value: str, status: int, kind: str
) -> None:
    """Correlation data is the bridge's, which tells replies apart by it."""
    answer = await post(bridge.port, "/v1/requests/a", b"x", {name: value})
    assert (answer.status, problem(answer), answer.json()["field"]) == (status, kind, name)


@pytest.mark.parametrize(
    ("query", "headers", "status", "kind", "field"),
    [
        ("expiry=1", {"Mqtt-Message-Expiry": "2"}, 400, "invalid-header", "Mqtt-Message-Expiry"),
        ("payload_format=0", {"Mqtt-Payload-Format": "1"}, 400, "invalid-header", "Mqtt-Payload-Format"),
        ("response_topic=b", {"Mqtt-Response-Topic": "c"}, 400, "invalid-header", "Mqtt-Response-Topic"),
        ("", {"Mqtt-Response-Topic": "b/%23"}, 400, "invalid-header", "Mqtt-Response-Topic"),
        ("", {"Mqtt-Response-Topic": "a"}, 400, "invalid-parameter", "Mqtt-Response-Topic"),
        ("", {"Mqtt-Response-Topic": "$share/b/a"}, 403, "reserved-topic", "Mqtt-Response-Topic"),
        ("", {"Mqtt-Payload-Format": "1"}, 422, "invalid-payload", "Mqtt-Payload-Format"),
        ("payload_format=1", {}, 422, "invalid-payload", "payload_format"),
        ("", {"ce-id": "A-1"}, 400, "invalid-cloudevent", "ce-specversion"),
        ("", {"Content-Type": "application/cloudevents+json"}, 400, "malformed-body", None),
        (
            "",
            {"Content-Type": "application/cloudevents-batch+json"},
            415,
            "unsupported-media-type",
            "Content-Type",
        ),
    ],
)
async def test_what_a_publish_would_not_take_is_no_request(
    bridge: Bridge, query: str, headers: dict[str, str], status: int, kind: str, field: str | None
) -> None:
    """Headers that are not honoured are refused, and none is left aside in silence."""
    answer = await post(bridge.port, f"/v1/requests/a?{query}", b"\xff", headers)
    assert (status, kind, field) == (answer.status, problem(answer), answer.json().get("field"))


async def test_a_list_has_two_forms(bridge: Bridge) -> None:
    """Any other is refused before anything is sent."""
    answer = await post(bridge.port, "/v1/requests/a?replies=2", b"x", {"Accept": "text/html"})
    assert (answer.status, problem(answer)) == (406, "not-acceptable")


def test_a_request_is_a_post(bridge: Bridge) -> None:
    """Nothing is kept that could be read."""
    answer = bridge.client.get("/v1/requests/a")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_replies_that_wait_are_no_streams(mosquitto: Mosquitto) -> None:
    """The bridge's own subscription takes no stream's place."""
    with running_bridge(mosquitto.url, max_streams=1) as bridge:
        bridge.client.post("/v1/requests/ask/nobody?timeout=0.01", content=b"x")
        with following(bridge, "any"):
            # the subscription for replies may come after the request's time was up
            wait_until(lambda: bridge.client.get("/v1/status").json()["subscriptions_total"] == 2)
            assert bridge.client.get("/v1/status").json()["streams"]["open"] == 1
