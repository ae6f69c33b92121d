"""What every connection does, whichever client library or broker is behind it (``tidegate.connection``)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.support.brokers import BROKERS, SECONDS, Broker, Client
from tests.support.certificates import Certificates, make_certificates
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.mosquitto import Mosquitto
from tidegate.connection import ConnectOptions, Subscription, Will
from tidegate.connections.aiomqtt_connection import connect as connect_by_aiomqtt
from tidegate.errors import (
    ConnectRefusedError,
    MQTTConnectionError,
    MQTTTimeoutError,
    NotConnectedError,
    TLSError,
)
from tidegate.message import NO_PROPERTIES, Message, Properties

Open = Callable[..., Awaitable[Client]]

GAPS: Final[dict[str, str]] = {
    "test_a_wrong_password_is_a_refusal[iotcore-5]": "iotcore closes the connection without CONNACK",
    "test_a_publish_that_nobody_subscribed_to_says_so[iotcore-5-1]": "iotcore never reports 0x10",
    "test_a_refused_publish_is_reported[iotcore-5-1]": "iotcore has no rules for topics",
    "test_a_refused_publish_is_reported[iotcore-5-2]": "iotcore has no rules for topics",
    "test_a_refused_subscription_is_reported[iotcore-5]": "iotcore has no rules for topics",
    "test_a_message_comes_with_the_lower_qos[iotcore-5]": "iotcore sends with the subscription's QoS",
    "test_a_retained_message_comes_again_with_each_subscribe[iotcore-5]": "iotcore sends it the first time",
    "test_a_subscription_says_which_retained_messages_it_wants[iotcore-5]": "iotcore ignores retain handling",
    "test_a_subscription_may_keep_the_retain_flag[iotcore-5]": "iotcore ignores retain-as-published",
    "test_a_subscription_may_leave_out_what_was_published_here[iotcore-5]": "iotcore ignores no-local",
    "test_a_wildcard_does_not_reach_dollar_topics[iotcore-5]": "iotcore hangs up on a $ filter",
    "test_an_unsubscribe_ends_the_copies[iotcore-5]": "iotcore answers for the filters it knows alone",
    "test_a_forbidden_topic_costs_the_connection[iotcore-5]": "iotcore takes NUL in a topic",
}
"""What a broker is known to do otherwise, by test."""


@pytest.fixture(params=BROKERS)
def name(request: pytest.FixtureRequest) -> str:
    """The broker and protocol version of this run of the test."""
    found: str = request.param
    if request.node.name in GAPS:
        request.applymarker(pytest.mark.xfail(reason=GAPS[request.node.name], strict=True))
    return found


@pytest.fixture
def is_five(name: str) -> bool:
    """Whether the connection speaks MQTT 5."""
    return BROKERS[name][1] == 5


@pytest.fixture
def start(name: str) -> Iterator[Callable[[dict[str, str] | None], Broker]]:
    """Starts a broker with these passwords."""
    with ExitStack() as stack:
        yield lambda passwords: stack.enter_context(BROKERS[name][0](passwords))


@pytest.fixture
def broker(start: Callable[[dict[str, str] | None], Broker]) -> Broker:
    """A broker that anybody may use."""
    return start(None)


@pytest.fixture
async def connect(name: str, broker: Broker) -> AsyncIterator[Open]:
    """Opens a connection to the broker."""
    opened: list[Client] = []

    async def open_connection(**options: object) -> Client:
        client = Client()
        client.connection = await broker.connect(options_for(name, broker, **options), client)
        opened.append(client)
        return client

    yield open_connection
    for client in opened:
        async with asyncio.timeout(SECONDS):
            await client.connection.close()


_numbers = itertools.count()


def options_for(name: str, broker: Broker, **options: object) -> ConnectOptions:
    """Connect options for a broker, with a client identifier where none is given."""
    host, port = broker.address
    options = {"client_id": f"client-{next(_numbers)}", **options}
    return ConnectOptions(host=host, port=port, protocol_version=BROKERS[name][1], **options)  # type: ignore[arg-type]


# Connecting.


async def test_a_connection_knows_what_the_broker_said(connect: Open, name: str) -> None:
    """The limits tell the version, the client identifier, and that there was no session."""
    client = await connect(client_id="facts", keepalive_seconds=20)
    limits = client.connection.limits
    assert BROKERS[name][1] == limits.protocol_version
    assert limits.client_id == "facts"
    assert limits.keepalive_seconds == 20
    assert not limits.session_present
    assert limits.receive_maximum > 0
    assert (BROKERS[name][1] == 5) is limits.subscription_identifiers_available


async def test_a_kept_session_brings_what_was_missed(connect: Open) -> None:
    """A client that comes back to its session is told so, and gets the QoS 1 messages of its absence."""
    kept = {"client_id": "kept", "clean_start": False, "session_expiry_seconds": 60}
    first = await connect(**kept)
    assert not first.connection.limits.session_present
    await first.subscribe(Subscription("news/#", qos=1))
    await first.connection.close()
    publisher = await connect()
    await publisher.publish(Message("news/1", b"missed", qos=1))
    second = await connect(**kept)
    assert second.connection.limits.session_present
    assert (await second.message()).payload == b"missed"


async def test_a_clean_start_forgets_the_session(connect: Open) -> None:
    """A client that starts clean gets nothing from its earlier session."""
    kept = {"client_id": "kept", "session_expiry_seconds": 60}
    first = await connect(**kept, clean_start=False)
    await first.subscribe(Subscription("news/#", qos=1))
    await first.connection.close()
    publisher = await connect()
    await publisher.publish(Message("news/1", b"missed", qos=1))
    second = await connect(**kept, clean_start=True)
    assert not second.connection.limits.session_present
    assert [] == await second.collect()


async def test_a_second_connection_takes_the_session_over(connect: Open) -> None:
    """A connection with the same client identifier ends the first one, which is told once."""
    first = await connect(client_id="same")
    second = await connect(client_id="same")
    await first.until(lambda: bool(first.losses))
    assert [] == await second.collect()
    assert 1 == len(first.losses)
    assert [] == second.losses


async def test_a_will_is_published_for_a_client_that_vanishes(connect: Open) -> None:
    """The Will arrives when the connection ends without DISCONNECT."""
    watcher = await connect()
    await watcher.subscribe(Subscription("wills/#", qos=1))
    await connect(client_id="doomed", will=Will(Message("wills/doomed", b"gone", qos=1)))
    await connect(client_id="doomed")
    message = await watcher.message()
    assert ("wills/doomed", b"gone") == (message.topic, message.payload)


async def test_a_close_publishes_no_will(connect: Open) -> None:
    """DISCONNECT takes the Will back."""
    watcher = await connect()
    await watcher.subscribe(Subscription("wills/#", qos=1))
    polite = await connect(will=Will(Message("wills/polite", b"gone", qos=1)))
    await polite.connection.close()
    await connect()
    assert [] == await watcher.collect()


async def test_a_wrong_password_is_a_refusal(
    name: str, start: Callable[[dict[str, str] | None], Broker]
) -> None:
    """CONNECT with a wrong password raises the broker's refusal, and the right one connects."""
    guarded = start({"gate": "tide"})
    for password in ("ebb", None):
        options = options_for(name, guarded, username="gate", password=password)
        with pytest.raises(ConnectRefusedError) as caught:
            await guarded.connect(options, Client())
        assert caught.value.reason_code in (0x86, 0x87)
    connection = await guarded.connect(options_for(name, guarded, username="gate", password="tide"), Client())
    await connection.close()


async def test_a_broker_that_is_away_is_a_connection_error(name: str, broker: Broker) -> None:
    """Where nothing listens, connecting fails at once and says so."""
    broker.kill()
    with pytest.raises(MQTTConnectionError) as caught:
        await broker.connect(options_for(name, broker), Client())
    assert caught.value.retryable


async def test_a_broker_that_does_not_answer_is_a_time_out(name: str, broker: Broker) -> None:
    """A broker that accepts the connection and says nothing costs the connect time-out, not more."""
    broker.freeze()
    options = options_for(name, broker, connect_timeout_seconds=0.3)
    async with asyncio.timeout(SECONDS):
        with pytest.raises(MQTTTimeoutError):
            await broker.connect(options, Client())


async def test_a_ping_is_answered(connect: Open) -> None:
    """A round trip ends, again and again, whatever was subscribed to before."""
    client = await connect()
    for _ in range(3):
        await asyncio.wait_for(client.connection.ping(), SECONDS)
    assert [] == client.losses


# Publishing.


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_publish_is_reported_once(connect: Open, qos: int) -> None:
    """Each QoS ends in one report of success, and the message arrives as it was sent."""
    client = await connect()
    await client.subscribe(Subscription("a/b", qos=qos))
    client.connection.publish(Message("a/b", b"\x00\xff", qos=qos), "token")
    await client.until(lambda: bool(client.outcomes))
    message = await client.message()
    assert ("a/b", b"\x00\xff", qos, False) == (message.topic, message.payload, message.qos, message.retain)
    assert message.received_at > 0
    assert [] == await client.collect(qos=qos)
    assert [0] == client.outcomes["token"]


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_publish_that_nobody_subscribed_to_says_so(connect: Open, is_five: bool, qos: int) -> None:
    """MQTT 5 may report 0x10 where no subscription matches, and these do for QoS 1; 3.1.1 cannot."""
    client = await connect()
    assert (0x10 if is_five and qos == 1 else 0) == await client.publish(
        Message("nobody/here", b"x", qos=qos)
    )


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_refused_publish_is_reported(connect: Open, is_five: bool, qos: int) -> None:
    """A publish that the broker's rules forbid ends with 0x87 on MQTT 5, and the connection goes on."""
    client = await connect()
    await client.subscribe(Subscription("#", qos=2))
    assert (0x87 if is_five else 0) == await client.publish(Message("denied/x", b"x", qos=qos))
    assert [] == await client.collect(qos=qos)
    assert [] == client.losses


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_keep_their_order(connect: Open, qos: int) -> None:
    """500 messages arrive in the order in which they were published, each once."""
    publisher, subscriber = await connect(), await connect()
    await subscriber.subscribe(Subscription("order", qos=qos))
    await publisher.publish_numbers("order", 500, qos=qos)
    found = [int((await subscriber.message()).payload) for _ in range(500)]
    assert list(range(500)) == found
    await publisher.until(lambda: len(publisher.outcomes) == 500)
    assert all(codes == [0] for codes in publisher.outcomes.values())


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_close_flushes_what_was_published(connect: Open, qos: int) -> None:
    """200 messages arrive although the connection is closed before the last of them are answered."""
    publisher, subscriber = await connect(), await connect()
    await subscriber.subscribe(Subscription("flush", qos=qos))
    await publisher.publish_numbers("flush", 200, qos=qos)
    await asyncio.wait_for(publisher.connection.close(), SECONDS)
    found = [int((await subscriber.message()).payload) for _ in range(200)]
    assert list(range(200)) == found


async def test_a_large_payload_passes(connect: Open) -> None:
    """Half a megabyte arrives as it was sent."""
    client = await connect()
    await client.subscribe(Subscription("large", qos=1))
    payload = bytes(range(256)) * 2048
    await client.publish(Message("large", payload, qos=1))
    assert payload == (await client.message()).payload


async def test_messages_of_one_turn_arrive_whole_and_in_order(connect: Open) -> None:
    """Small ones, empty ones and ones that no socket takes in one go, with and without properties."""
    publisher, subscriber = await connect(), await connect()
    await subscriber.subscribe(Subscription("turn/+", qos=0))
    sizes = [1, 0, 100, 127, 128, 15_000, 400_000, 3, 16_384, 400_000, 0, 400_000, 5]
    with_properties = Properties(user_properties=(("a", "b" * 200),))
    sent = [
        Message(f"turn/{'t' * index}", b"%x" % index * size, 0, properties=properties)
        for index, (size, properties) in enumerate(
            (size, properties) for size in sizes for properties in (NO_PROPERTIES, with_properties)
        )
    ]
    if publisher.connection.limits.protocol_version < 5:
        sent = [replace(each, properties=NO_PROPERTIES) for each in sent]
    for number, message in enumerate(sent):
        publisher.connection.publish(message, number)
    await publisher.until(lambda: len(publisher.outcomes) == len(sent))
    assert [(number, [0]) for number in range(len(sent))] == list(publisher.outcomes.items())
    found = [await subscriber.message() for _ in sent]
    assert [(each.topic, each.payload, each.properties) for each in sent] == [
        (each.topic, each.payload, each.properties) for each in found
    ]


async def test_properties_pass_unchanged(connect: Open, is_five: bool) -> None:
    """On MQTT 5 every property arrives, user properties repeated and in order; 3.1.1 carries none."""
    client = await connect()
    await client.subscribe(Subscription("p", qos=1))
    sent = Properties(
        payload_format=1,
        content_type="text/plain; charset=utf-8",
        response_topic="answers/1",
        correlation_data=b"\x00\x01\xff",
        user_properties=(("b", "1"), ("a", "2"), ("b", "1"), ("é", "")),
    )
    await client.publish(Message("p", b"x", qos=1, properties=sent))
    assert (sent if is_five else Properties()) == (await client.message()).properties


async def test_an_expiry_passes(connect: Open, is_five: bool) -> None:
    """The expiry interval arrives, less the seconds that the message waited."""
    client = await connect()
    await client.subscribe(Subscription("p", qos=1))
    await client.publish(Message("p", b"x", qos=1, properties=Properties(message_expiry=600)))
    expiry = (await client.message()).properties.message_expiry
    if is_five:
        assert expiry is not None
        assert 500 < expiry <= 600
    else:
        assert expiry is None


# Subscribing.


async def test_a_subscription_is_granted_with_its_qos(connect: Open) -> None:
    """SUBSCRIBE returns a code for each filter, in order."""
    client = await connect()
    subscriptions = (Subscription("a", qos=2), Subscription("b", qos=0), Subscription("c/+", qos=1))
    assert [2, 0, 1] == await client.subscribe(*subscriptions)


async def test_a_refused_subscription_is_reported(connect: Open, is_five: bool) -> None:
    """The refused filter has a refusing code, and those beside it work."""
    client = await connect()
    codes = await client.subscribe(
        Subscription("a", qos=1), Subscription("denied/x", qos=1), Subscription("b", qos=1)
    )
    assert [1, 0x87 if is_five else 0x80, 1] == codes
    await client.publish(Message("b", b"x", qos=1))
    assert (await client.message()).topic == "b"


async def test_a_message_comes_with_the_lower_qos(connect: Open) -> None:
    """A copy has the QoS of the publish or of the subscription, whichever is lower."""
    client = await connect()
    await client.subscribe(Subscription("low", qos=0), Subscription("high", qos=2))
    await client.publish(Message("low", b"x", qos=2))
    assert (await client.message()).qos == 0
    await client.publish(Message("high", b"x", qos=1))
    assert (await client.message()).qos == 1


async def test_a_retained_message_is_flagged_on_subscribe_alone(connect: Open) -> None:
    """A new subscriber gets the kept value flagged retained; a live copy of the same is not flagged."""
    client = await connect()
    await client.subscribe(Subscription("state", qos=1))
    await client.publish(Message("state", b"on", qos=1, retain=True))
    assert not (await client.message()).retain
    late = await connect()
    await late.subscribe(Subscription("+", qos=1))
    message = await late.message()
    assert (b"on", True) == (message.payload, message.retain)


async def test_a_retained_message_comes_again_with_each_subscribe(connect: Open) -> None:
    """Subscribing anew to the same filter brings the kept value again."""
    client = await connect()
    await client.publish(Message("state", b"on", qos=1, retain=True))
    for _ in range(2):
        await client.subscribe(Subscription("state", qos=1))
        assert [True] == [message.retain for message in await client.collect()]


async def test_an_empty_retained_message_clears(connect: Open) -> None:
    """After a retained publish without payload there is nothing for a new subscriber."""
    client = await connect()
    await client.publish(Message("state", b"on", qos=1, retain=True))
    await client.publish(Message("state", b"", qos=1, retain=True))
    await client.subscribe(Subscription("state", qos=1))
    assert [] == await client.collect()


async def test_a_subscription_says_which_retained_messages_it_wants(connect: Open, is_five: bool) -> None:
    """Retain handling 2 brings none, 1 only for a new subscription; 3.1.1 always brings them."""
    client = await connect()
    await client.publish(Message("state", b"on", qos=1, retain=True))
    counts: list[int] = []
    for topic_filter, handling in (("+", 2), ("state", 1), ("state", 1), ("state", 0)):
        await client.subscribe(Subscription(topic_filter, 1, retain_handling=handling))  # type: ignore[arg-type]
        counts.append(len(await client.collect()))
    assert ([0, 1, 0, 1] if is_five else [1, 1, 1, 1]) == counts


async def test_a_subscription_may_keep_the_retain_flag(connect: Open, is_five: bool) -> None:
    """With retain-as-published a live copy says how it was published; 3.1.1 has no such option."""
    client = await connect()
    await client.subscribe(Subscription("state", qos=1, retain_as_published=True))
    await client.publish(Message("state", b"on", qos=1, retain=True))
    await client.publish(Message("state", b"off", qos=1, retain=False))
    assert [is_five, False] == [(await client.message()).retain for _ in range(2)]


async def test_a_subscription_may_leave_out_what_was_published_here(connect: Open, is_five: bool) -> None:
    """With no-local the connection's own messages do not come back, and others' do."""
    client, other = await connect(), await connect()
    await client.subscribe(Subscription("talk", qos=1, no_local=True))
    await client.publish(Message("talk", b"mine", qos=1))
    await other.publish(Message("talk", b"theirs", qos=1))
    found = [message.payload for message in await client.collect()]
    assert ([b"theirs"] if is_five else [b"mine", b"theirs"]) == found


async def test_each_copy_names_its_subscription(connect: Open, is_five: bool) -> None:
    """Overlapping filters bring a copy each on MQTT 5, with its own identifier; 3.1.1 brings one."""
    client = await connect()
    for identifier, topic_filter in enumerate(("x/+", "x/y", "#"), start=1):
        await client.subscribe(Subscription(topic_filter, qos=1, identifier=identifier))
    await client.publish(Message("x/y", b"x", qos=1))
    found = sorted(message.subscription_identifiers for message in await client.collect())
    assert ([(1,), (2,), (3,)] if is_five else [()]) == found


async def test_a_retained_copy_names_its_subscription(connect: Open, is_five: bool) -> None:
    """The kept value carries the identifier of the filter that asked for it."""
    client = await connect()
    await client.publish(Message("state", b"on", qos=1, retain=True))
    await client.subscribe(Subscription("#", qos=1, identifier=268_435_455, retain_handling=2))
    await client.collect()
    await client.subscribe(Subscription("state", qos=1, identifier=7))
    message = await client.message()
    assert ((7,) if is_five else ()) == message.subscription_identifiers
    assert message.retain


async def test_a_wildcard_does_not_reach_dollar_topics(connect: Open) -> None:
    """A filter that begins with a wildcard gets no message of a topic that begins with $."""
    client = await connect()
    await client.subscribe(Subscription("#", qos=1))
    await client.publish(Message("$app/x", b"hidden", qos=1))
    assert [] == await client.collect()
    await client.subscribe(Subscription("$app/#", qos=1))
    await client.publish(Message("$app/x", b"seen", qos=1))
    assert (await client.message()).payload == b"seen"


async def test_a_shared_subscription_hands_each_message_to_one_member(connect: Open) -> None:
    """Two members of a share get every message between them, and none twice."""
    members = [await connect(), await connect()]
    for member in members:
        await member.subscribe(Subscription("$share/team/jobs", qos=1))
    publisher = await connect()
    for number in range(20):
        await publisher.publish(Message("jobs", b"%d" % number, qos=1))
    shares = [[int(message.payload) for message in await member.collect(publisher)] for member in members]
    assert list(range(20)) == sorted(shares[0] + shares[1])
    assert all(shares)


async def test_an_unsubscribe_ends_the_copies(connect: Open, is_five: bool) -> None:
    """After UNSUBSCRIBE nothing comes; MQTT 5 says which filter had no subscription."""
    client = await connect()
    await client.subscribe(Subscription("a", qos=1), Subscription("b", qos=1))
    assert [0, 0x11 if is_five else 0] == await client.unsubscribe("a", "never")
    await client.publish(Message("a", b"x", qos=1))
    await client.publish(Message("b", b"x", qos=1))
    assert ["b"] == [message.topic for message in await client.collect()]


# The end.


async def test_a_loss_is_told_once_and_last(connect: Open, broker: Broker) -> None:
    """A broker that dies ends the connection: one ``on_lost``, no other event, and calls say so."""
    client = await connect()
    broker.freeze()
    client.connection.publish(Message("a", b"x", qos=1), "in flight")
    reply = asyncio.ensure_future(client.connection.ping())
    broker.kill()
    await client.until(lambda: bool(client.losses))
    with pytest.raises(MQTTConnectionError) as caught:
        await asyncio.wait_for(reply, SECONDS)
    assert not isinstance(caught.value, NotConnectedError), "it was sent, and NotConnectedError denies that"
    with pytest.raises(NotConnectedError):
        client.connection.publish(Message("a", b"x"), "too late")
    with pytest.raises(MQTTConnectionError):
        await client.subscribe(Subscription("a"))
    with pytest.raises(MQTTConnectionError):
        await client.unsubscribe("a")
    await asyncio.wait_for(client.connection.close(), SECONDS)
    assert 1 == len(client.losses)
    assert {} == client.outcomes
    assert 0 == client.told_after_end


async def test_a_close_is_no_loss(connect: Open) -> None:
    """After ``close`` nothing is told, a second one does nothing, and a publish says it was not sent."""
    client = await connect()
    await client.connection.close()
    await client.connection.close()
    with pytest.raises(NotConnectedError):
        client.connection.publish(Message("a", b"x"), "too late")
    with pytest.raises(MQTTConnectionError):
        await client.subscribe(Subscription("a"))
    assert [] == client.losses


async def test_a_forbidden_topic_costs_the_connection(connect: Open) -> None:
    """The broker hangs up on a NUL in a topic, which is why topics are checked before they get this far."""
    client, other = await connect(), await connect()
    client.connection.publish(Message("a\x00b", b"x", qos=1), "poison")
    await client.until(lambda: bool(client.losses or client.outcomes))
    assert [] == await other.collect()
    assert 1 == len(client.losses)
    assert [] == other.losses


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 2), (2, 1), (2, 2)])
async def test_a_packet_identifier_that_is_taken_is_passed(
    fresh_mosquitto: Mosquitto, first: int, second: int
) -> None:
    """When they come round again, a message gets none that the broker has not answered yet."""
    client = Client()
    connection = await connect_by_aiomqtt(ConnectOptions("127.0.0.1", fresh_mosquitto.port), client)
    client.connection = connection
    fresh_mosquitto.pause()
    connection._client._last_mid = 65_534
    connection.publish(Message("a", b"", qos=first), "65535")
    connection.publish(Message("a", b"", qos=first), "1")
    connection._client._last_mid = 65_534
    connection.publish(Message("a", b"", qos=second), "2")
    assert 2 == connection._client._last_mid
    fresh_mosquitto.resume()
    await client.until(lambda: client.outcomes.keys() == {"65535", "1", "2"})
    await connection.close()


# TLS.


@pytest.fixture(scope="module")
def tls_mosquitto(certificates: Certificates) -> Iterator[Mosquitto]:
    """A Mosquitto that speaks TLS alone and takes any client."""
    with Mosquitto(tls=certificates) as running:
        yield running


async def test_a_known_authority_is_trusted(tls_mosquitto: Mosquitto, certificates: Certificates) -> None:
    """A broker whose certificate the context trusts is connected to, by name and by address."""
    for host in ("localhost", "127.0.0.1"):
        options = ConnectOptions(host, tls_mosquitto.port, tls=certificates.client_context())
        connection = await connect_by_aiomqtt(options, Client())
        await asyncio.wait_for(connection.ping(), SECONDS)
        await connection.close()


async def test_a_socket_that_takes_no_more_is_waited_for(certificates: Certificates) -> None:
    """Over TLS a write that was refused is repeated with the same bytes, and more behind them."""
    with Mosquitto(tls=certificates) as broker:
        client = Client()
        options = ConnectOptions("127.0.0.1", broker.port, tls=certificates.client_context())
        client.connection = await connect_by_aiomqtt(options, client)
        await client.subscribe(Subscription("held", qos=0))
        broker.pause()
        for number in range(300):
            client.connection.publish(Message("held", b"%06d" % number * 10_000), number)
            if not number % 50:
                await asyncio.sleep(0)
        assert len(client.outcomes) < 300
        broker.resume()
        found = [int((await client.message()).payload[:6]) for _ in range(300)]
        assert list(range(300)) == found
        await client.connection.close()


async def test_an_unknown_authority_is_a_tls_error(tls_mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A certificate of an authority that is not trusted ends in a TLSError that says so."""
    other = make_certificates(tmp_path / "other")
    options = ConnectOptions("127.0.0.1", tls_mosquitto.port, tls=other.client_context())
    with pytest.raises(TLSError, match=r"certificate.*not accepted"):
        await connect_by_aiomqtt(options, Client())


async def test_a_name_that_the_certificate_lacks_is_a_tls_error(
    tls_mosquitto: Mosquitto, certificates: Certificates
) -> None:
    """A certificate that is for another name ends in a TLSError that names what was asked for."""
    options = ConnectOptions("127.0.0.2", tls_mosquitto.port, tls=certificates.client_context())
    async with FaultProxy(tls_mosquitto.port, host="127.0.0.2") as proxy:
        with pytest.raises(TLSError, match=r"127\.0\.0\.2"):
            await connect_by_aiomqtt(replace(options, port=proxy.port), Client())


async def test_a_broker_without_tls_is_a_tls_error(mosquitto: Mosquitto, certificates: Certificates) -> None:
    """A handshake with a listener that speaks plain MQTT ends in a TLSError."""
    options = ConnectOptions("127.0.0.1", mosquitto.port, tls=certificates.client_context())
    with pytest.raises(TLSError):
        await connect_by_aiomqtt(options, Client())


async def test_a_client_certificate_is_shown(certificates: Certificates) -> None:
    """Where the broker asks for a certificate, one connects and none is refused."""
    with Mosquitto(tls=certificates, require_certificate=True) as strict:
        with_one = ConnectOptions(
            strict.host, strict.port, tls=certificates.client_context(with_certificate=True)
        )
        connection = await connect_by_aiomqtt(with_one, Client())
        await connection.close()
        with pytest.raises(TLSError):
            await connect_by_aiomqtt(replace(with_one, tls=certificates.client_context()), Client())


# Faults of the network, which only a real one has.


async def test_a_reset_is_a_loss(mosquitto: Mosquitto) -> None:
    """A connection that the network resets is told as lost, once."""
    client = Client()
    async with FaultProxy(mosquitto.port) as proxy:
        client.connection = await connect_by_aiomqtt(ConnectOptions(proxy.host, proxy.port), client)
        await proxy.set(Fault.RESET)
        await client.until(lambda: bool(client.losses))
        await client.connection.close()
    assert 1 == len(client.losses)


async def test_a_connection_that_is_reset_in_the_handshake_is_an_error(mosquitto: Mosquitto) -> None:
    """A connection that is reset before CONNACK is a connection error, not a time-out."""
    async with FaultProxy(mosquitto.port) as proxy:
        await proxy.set(Fault.RESET)
        with pytest.raises(MQTTConnectionError):
            await asyncio.wait_for(
                connect_by_aiomqtt(ConnectOptions(proxy.host, proxy.port), Client()), SECONDS
            )


async def test_a_silent_network_is_noticed_by_keep_alive(mosquitto: Mosquitto) -> None:
    """A path that swallows everything ends the connection after the keep-alive interval."""
    client = Client()
    async with FaultProxy(mosquitto.port) as proxy:
        options = ConnectOptions(proxy.host, proxy.port, keepalive_seconds=1)
        client.connection = await connect_by_aiomqtt(options, client)
        await proxy.set(Fault.BLACK_HOLE)
        await client.until(lambda: bool(client.losses))
        await client.connection.close()


async def test_what_a_black_hole_held_arrives_when_it_heals(mosquitto: Mosquitto) -> None:
    """A publish that was not answered is answered after the path is back: the connection did not give up."""
    client = Client()
    async with FaultProxy(mosquitto.port) as proxy:
        client.connection = await connect_by_aiomqtt(ConnectOptions(proxy.host, proxy.port), client)
        await client.subscribe(Subscription("healed", qos=1))
        await proxy.set(Fault.BLACK_HOLE)
        client.connection.publish(Message("healed", b"x", qos=1), "held")
        await proxy.set(Fault.PASS)
        assert (await client.message()).topic == "healed"
        await client.until(lambda: client.outcomes["held"] == [0])
        await client.connection.close()
