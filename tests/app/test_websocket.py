"""``/v1/ws``: what subscriptions give, over a real server and a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.websocket import SocketClient


@pytest.fixture(scope="module")
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """One bridge for the tests that only use it."""
    with running_bridge(mosquitto.url) as running:
        yield running


@pytest.fixture
def client(bridge: Bridge) -> Iterator[SocketClient]:
    """A WebSocket of the test's own."""
    with SocketClient(bridge.port) as opened:
        yield opened


def test_subscribe_message_unsubscribe(bridge: Bridge, client: SocketClient) -> None:
    """The acknowledgement comes first; a message names its subscription; after the end nothing comes."""
    answer = client.ask("subscribe", id=7, topics=["ws/first/+"])
    position = answer.pop("event_id")
    assert {"op": "ack", "id": 7, "subscription": 7} == answer
    bridge.client.post("/v1/topics/ws/first/a?qos=1", content=b'{"celsius": 21.50}')
    client.read_messages(7, 1)
    assert ["ack", "message"] == [each["op"] for each in client.frames]
    message = dict(client.frames[1])
    assert message.pop("time").endswith("Z")
    assert message.pop("id") != position
    assert {
        "op": "message",
        "subscription": 7,
        "topic": "ws/first/a",
        "payload": {"celsius": 21.5},
        "encoding": "json",
        "qos": 1,
        "retain": False,
        "properties": {},
    } == message
    assert '"payload":{"celsius": 21.50}' in client.texts[1]
    assert {"op": "ack", "id": 8, "subscription": 7} == client.ask("unsubscribe", id=8, subscription=7)
    control = client.subscribe("ws/first/a")
    bridge.client.post("/v1/topics/ws/first/a?qos=1", content=b"2")
    assert [2] == client.read_messages(control, 1)
    assert [{"celsius": 21.5}] == client.payloads(7)


def test_each_subscription_gets_its_own_copy_once(client: SocketClient) -> None:
    """Filters that overlap, on one socket and in one subscription: as MQTT clients of their own would see."""
    everything = client.subscribe("ws/copies/#")
    exact = client.subscribe("ws/copies/a")
    several = client.subscribe("ws/copies/+", "ws/copies/a", "ws/copies/#", "ws/copies/a")
    again = client.subscribe("ws/copies/a")
    for topic, payload in (("a", 1), ("b", 2), ("a", 3), ("a/b", 4), ("end", 5)):
        client.publish(f"ws/copies/{topic}", payload)
    client.publish("ws/copies/a", "end")
    for subscription in (everything, exact, several, again):
        client.read_to_payload(subscription, "end")
    assert [1, 2, 3, 4, 5, "end"] == client.payloads(everything) == client.payloads(several)
    assert [1, 3, "end"] == client.payloads(exact) == client.payloads(again)


def test_one_of_several_subscriptions_ends(client: SocketClient) -> None:
    """The others on the same filter go on."""
    first, second = client.subscribe("ws/some"), client.subscribe("ws/some")
    client.ask("unsubscribe", subscription=first)
    client.publish("ws/some", 1)
    client.read_messages(second, 1)
    client.ask("ping")
    assert [] == client.messages(first)


def test_filters_are_given_back(mosquitto: Mosquitto) -> None:
    """By ``unsubscribe``, and by the end of the socket."""
    with running_bridge(mosquitto.url) as bridge, SocketClient(bridge.port) as client:
        hub = bridge.app.state.hub
        first = client.subscribe("a/#", "b")
        client.subscribe("b", "c")
        assert {"a/#", "b", "c"} == set(hub.filters)
        assert 3 == hub.listeners
        client.ask("unsubscribe", subscription=first)
        assert {"b", "c"} == set(hub.filters)
        client.close()
        wait_until(lambda: hub.listeners == 0)
        assert () == hub.filters


@pytest.mark.parametrize("frame_id", [0, -1, 2**53 - 1, "", "x", "ä" * 64, "7"])
def test_ids_are_whole_numbers_or_strings(client: SocketClient, frame_id: int | str) -> None:
    """They come back as they were sent, and 7 is not "7"."""
    other = client.subscribe("ws/ids", id=7)
    assert frame_id == client.subscribe("ws/ids", id=frame_id)
    client.publish("ws/ids", 1, id="p")
    assert [1] == client.read_messages(frame_id, 1) == client.read_messages(other, 1)


def test_an_id_in_use_is_a_conflict(client: SocketClient) -> None:
    """The subscription that has it goes on, and once it has ended the id is free."""
    first = client.subscribe("ws/conflict/a", id="one")
    problem = client.refusal("subscribe", id="one", topics=["ws/conflict/b"])
    assert ("urn:tidegate:problem:conflict", 409, "/id") == (
        problem["type"],
        problem["status"],
        problem["field"],
    )
    client.publish("ws/conflict/b", "b")
    client.publish("ws/conflict/a", "a")
    assert ["a"] == client.read_messages(first, 1)
    client.ask("unsubscribe", subscription="one")
    client.subscribe("ws/conflict/b", id="one")


def test_an_id_in_use_is_a_conflict_before_the_acknowledgement_too(client: SocketClient) -> None:
    """Two frames in one write: the first is granted."""
    text = '{"op":"subscribe","id":"twice","topics":["ws/twice"]}'
    client.send_text(text, text)
    client.read_until(lambda: len(client.frames) == 2)
    assert ["ack", "error"] == sorted(each["op"] for each in client.frames)


def test_unsubscribing_behind_a_subscribe_ends_it(bridge: Bridge, client: SocketClient) -> None:
    """A client need not wait for the acknowledgement before it changes its mind."""
    client.send_text(
        '{"op":"subscribe","id":"s","topics":["ws/undone"]}',
        '{"op":"unsubscribe","id":"u","subscription":"s"}',
    )
    assert "ack" == client.answer_to("s")["op"]
    assert {"op": "ack", "id": "u", "subscription": "s"} == client.answer_to("u")
    assert "ws/undone" not in bridge.app.state.hub.filters


def test_retained_messages_are_for_who_subscribes(client: SocketClient) -> None:
    """A new subscription begins with them; one that was there, or does not want them, gets none again."""
    client.publish("ws/retained/a", "kept", retain=True)
    early = client.subscribe("ws/retained/+")
    assert ["kept"] == client.read_messages(early, 1)
    late = client.subscribe("ws/retained/+")
    unwilling = client.subscribe("ws/retained/+", retained=False)
    assert ["kept"] == client.read_messages(late, 1)
    client.publish("ws/retained/a", "live")
    for subscription in (early, late, unwilling):
        client.read_to_payload(subscription, "live")
    told = [(each["payload"], each["retain"]) for each in client.messages(early)]
    assert [("kept", True), ("live", False)] == told
    assert ["kept", "live"] == client.payloads(late)
    assert ["live"] == client.payloads(unwilling)


def test_the_qos_of_a_subscription_is_its_own(client: SocketClient) -> None:
    """Two subscriptions share one of the bridge's, and each is told what it would get by itself."""
    low = client.subscribe("ws/qos", qos=0)
    high = client.subscribe("ws/qos", qos=2)
    for qos in (0, 1, 2):
        client.publish("ws/qos", qos, qos=qos)
    client.read_messages(low, 3)
    client.read_messages(high, 3)
    assert {0: 0, 1: 0, 2: 0} == {each["payload"]: each["qos"] for each in client.messages(low)}
    assert {0: 0, 1: 1, 2: 2} == {each["payload"]: each["qos"] for each in client.messages(high)}


def test_resume_on_the_same_socket(client: SocketClient) -> None:
    """What came between ``unsubscribe`` and ``subscribe`` comes first, with no hole and nothing twice."""
    first = client.subscribe("ws/resume/#")
    for number in range(3):
        client.publish("ws/resume/a", number)
    client.read_messages(first, 3)
    client.ask("unsubscribe", subscription=first)
    for number in range(3, 6):
        client.publish("ws/resume/a", number)
    back = client.subscribe("ws/resume/#", last_event_id=client.messages(first)[1]["id"])
    client.publish("ws/resume/a", 6)
    assert [2, 3, 4, 5, 6] == client.read_messages(back, 5)
    assert [] == client.named("gap")


def test_resume_on_another_socket(bridge: Bridge) -> None:
    """By the id of the acknowledgement too, where no message had come yet."""
    with SocketClient(bridge.port) as before:
        position = before.ask("subscribe", topics=["ws/moved"], retained=False)["event_id"]
        before.cut()
    with SocketClient(bridge.port) as after:
        for number in range(3):
            after.publish("ws/moved", number)
        back = after.subscribe("ws/moved", retained=False, last_event_id=position)
        after.publish("ws/moved", 3)
        assert [0, 1, 2, 3] == after.read_messages(back, 4)
        assert [] == after.named("gap")


@pytest.mark.parametrize("last_event_id", ["nonsense", "deadbeef-5"])
def test_an_unknown_id_is_a_gap(client: SocketClient, last_event_id: str) -> None:
    """The subscription is told in front of its first message, and begins anew."""
    client.publish("ws/gap", "kept", retain=True)
    subscription = client.subscribe("ws/gap", last_event_id=last_event_id)
    client.read_messages(subscription, 1)
    assert ["gap", "message"] == [each["op"] for each in client.frames[-2:]]
    gap = client.named("gap")[0]
    assert gap.pop("id")
    assert {"subscription": subscription, "reason": "unknown_id", "last_event_id": last_event_id} == gap


def test_a_limit_ends_the_subscription_alone(client: SocketClient) -> None:
    """After so many messages it is closed; the other subscription goes on, and its id is free."""
    limited = client.subscribe("ws/limit", limit=2)
    other = client.subscribe("ws/limit")
    for number in range(3):
        client.publish("ws/limit", number)
    assert [0, 1, 2] == client.read_messages(other, 3)
    assert [0, 1] == client.payloads(limited)
    assert [{"subscription": limited, "reason": "limit", "may_reconnect": False}] == client.named("close")
    assert "/subscription" == client.refusal("unsubscribe", subscription=limited)["field"]
    client.subscribe("ws/limit", id=limited)


def test_an_interval_keeps_the_newest_of_each_topic(client: SocketClient) -> None:
    """The first comes at once, and then nothing for as long as the interval."""
    paced = client.subscribe("ws/interval/#", interval=3600)
    quick = client.subscribe("ws/interval/#", interval=0.05)
    other = client.subscribe("ws/interval/#")
    client.publish("ws/interval/a", 0)
    client.read_messages(paced, 1)
    for number in range(1, 50):
        client.publish("ws/interval/a", number)
    client.read_until(lambda: 49 in client.payloads(quick) and 49 in client.payloads(other))
    assert [0] == client.payloads(paced)
    assert list(range(50)) == client.payloads(other)
    assert sorted(client.payloads(quick)) == client.payloads(quick)
    assert [] == client.named("lag")


def test_the_filters_of_one_socket_are_bounded(mosquitto: Mosquitto) -> None:
    """All its subscriptions count together; what one gives back another may take."""
    with (
        running_bridge(mosquitto.url, max_filters_per_stream=3) as bridge,
        SocketClient(bridge.port) as client,
    ):
        first = client.subscribe("a", "b")
        problem = client.refusal("subscribe", topics=["c", "d"])
        assert ("/topics", 400) == (problem["field"], problem["status"])
        assert "3" in problem["detail"]
        client.subscribe("c")
        client.ask("unsubscribe", subscription=first)
        client.subscribe("d", "e")


def test_the_bound_holds_for_subscriptions_that_are_on_their_way(mosquitto: Mosquitto) -> None:
    """Asking for many before the first is granted makes no more room."""
    with (
        running_bridge(mosquitto.url, max_filters_per_stream=3) as bridge,
        SocketClient(bridge.port) as client,
    ):
        client.send_text(
            *(f'{{"op":"subscribe","id":{each},"topics":["{each}/a","{each}/b"]}}' for each in range(5))
        )
        answers = [client.answer_to(each)["op"] for each in range(5)]
        assert ["ack", "error", "error", "error", "error"] == answers
        assert 2 == len(bridge.app.state.hub.filters)
