from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import AsyncPublisher, AsyncSubscriber, Message, NotConnectedError, Publisher, Subscriber
from tidegate.background import BackgroundLoop, ThreadForEachCall


def environment(url: str) -> dict[str, str]:
    """Where the program under test connects."""
    return {**os.environ, "TIDEGATE_URL": url}


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-W", "default", "-W", "ignore::DeprecationWarning", "-c", program],
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_a_call_took_is_sent_before_the_program_ends(fresh_mosquitto: Mosquitto) -> None:
    """Unwaited QoS 0 messages too, without ``disconnect``; the broker gets a goodbye."""
    got: list[tuple[str, Any, int]] = []

    def keep(message: Message) -> None:
        got.append((message.topic, message.json(), message.qos))

    program = """
from tidegate import Publisher, publish
publisher = Publisher(client_id="ending")
publisher.connect()
@publish("exit/decorated", qos=0)
def read(number):
    return number
for number in range(200):
    publisher.publish("exit/class", number, qos=0)
    read(number)
publisher.publish("exit/last", 1, qos=1)
"""
    with Subscriber(fresh_mosquitto.url) as subscriber:
        subscriber.subscribe("exit/#", keep)
        outcome = run(program, fresh_mosquitto.url)
        assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")
        wait_until(lambda: len(got) == 401)
    for topic in ("exit/class", "exit/decorated"):
        assert [payload for each, payload, _ in got if each == topic] == list(range(200))
    assert ("exit/last", 1, 1) in got
    assert "Client ending disconnected." in fresh_mosquitto.log


THREADS = """
import threading
from tidegate import publish

@publish("exit/threads", qos=1)
def send(number):
    return number

threads = [threading.Thread(target=send, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
"""


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3),
    reason="Python 3.12.0 to 3.12.2 starts no thread once the main thread has ended (CPython issue 113964)",
)
def test_threads_that_still_publish_are_waited_for(mosquitto: Mosquitto) -> None:
    """The main thread's end takes nothing from the calls of others."""
    got: list[int] = []
    with Subscriber(mosquitto.url) as subscriber:
        subscriber.subscribe("exit/threads", lambda _, number: got.append(number))
        outcome = run(THREADS, mosquitto.url)
        assert (outcome.returncode, outcome.stderr) == (0, "")
        wait_until(lambda: sorted(got) == list(range(16)))


def test_a_program_that_can_start_no_thread_any_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own cannot be; what would have a thread of its own is done by the caller's."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    late = BackgroundLoop("late")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(NotConnectedError, match="connect before the main thread ends"):
        late.run(asyncio.sleep(0))
    assert not late.has_started
    assert ThreadForEachCall().submit(threading.get_ident).result(0) == threading.get_ident()


@pytest.mark.parametrize("scheme", ["mqtt", "http"])
def test_a_broker_that_is_away_keeps_no_program_alive(scheme: str) -> None:
    """Handlers and publishers that never got a connection end with the program, without a trace."""
    program = """
from tidegate import MQTTError, Publisher, subscribe
@subscribe("a/#")
def handle(message): pass
@subscribe("b/#")
async def handle_too(message): pass
try:
    Publisher().connect()
except MQTTError:
    pass
"""
    with ReservedPort() as reserved:
        outcome = run(program, f"{scheme}://127.0.0.1:{reserved.number}")
    assert outcome.returncode == 0
    assert "Traceback" not in outcome.stderr
    assert "never retrieved" not in outcome.stderr


def test_a_frozen_broker_does_not_hold_up_the_end_for_ever(fresh_mosquitto: Mosquitto) -> None:
    """What is in flight when the program ends has a bounded time."""
    program = """
import threading
from tidegate import Publisher
publisher = Publisher()
publisher.connect()
print("ready", flush=True)
input()
threading.Thread(target=publisher.publish, args=("a", 1), daemon=True).start()
print("sent", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(fresh_mosquitto.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == "ready\n"
        fresh_mosquitto.pause()
        running.stdin.write("\n")
        running.stdin.flush()
        assert running.stdout.readline() == "sent\n"
        assert running.wait(60) == 0
        fresh_mosquitto.resume()


def test_a_program_of_handlers_alone_ends_like_any_other(mosquitto: Mosquitto) -> None:
    """Listening is background work: whoever wants to wait says so."""
    program = "from tidegate import subscribe\n@subscribe('exit/#')\ndef handle(message): pass\n"
    outcome = run(program, mosquitto.url)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


WAITING = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by a shell's background programs
from tidegate import Subscriber, subscribe

def has_begun_to_wait():
    # Ctrl-C before that would end the program, as it should.
    frame, names = sys._current_frames()[threading.main_thread().ident], []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return {"wait", "loop_forever"} <= set(names)

@subscribe("life/waiting")
def handle(message):
    while not has_begun_to_wait():
        time.sleep(0.001)
    print(message, flush=True)

print("ready", flush=True)
Subscriber().loop_forever()
print("ended", flush=True)
"""

LISTENING = """
import asyncio, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tidegate import AsyncSubscriber

async def handle(topic, payload):
    print(payload, flush=True)

async def main():
    async with AsyncSubscriber() as subscriber:
        await subscriber.subscribe("life/waiting", handle)
        print("ready", flush=True)
        await subscriber.start_listening()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended", flush=True)
"""


@pytest.mark.parametrize("program", [WAITING, LISTENING], ids=["loop_forever", "start_listening"])
def test_waiting_goes_on_until_control_c(program: str, mosquitto: Mosquitto) -> None:
    """``loop_forever`` of any subscriber keeps decorated handlers going; Ctrl-C ends either wait cleanly."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment(mosquitto.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running,
        Publisher(mosquitto.url) as publisher,
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        publisher.publish("life/waiting", 7, retain=True)
        assert running.stdout.readline() == "7\n"
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
        publisher.publish("life/waiting", b"", retain=True)
    assert (running.returncode, output, errors) == (0, "ended\n", "")


FORKING = """
import os, sys
from tidegate import publish, subscribe

@subscribe("fork/in")
def handle(message):
    pass

@publish("fork/out", qos=QOS)
def read(who):
    return who

read("parent")
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        try:
            read(f"child {number}")
            read(f"child {number} again")
            sys.exit(0)
        except SystemExit:
            raise
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    children.append(child)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
read("parent again")
sys.exit(max(statuses))
"""


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("identifier", ["", "?client_id=forking"])
def test_children_publish_over_connections_of_their_own(
    qos: int, identifier: str, fresh_mosquitto: Mosquitto
) -> None:
    """Several children of a process that listens and publishes; nothing of the parent's is used or broken.

    With a client identifier in the options the processes take the connection from one another, as the
    standard says, so there is one child then.
    """
    got: list[str] = []
    program = FORKING.replace("QOS", str(qos))
    if identifier:
        program = program.replace("range(3)", "range(1)")
    with Subscriber(fresh_mosquitto.url) as subscriber:
        subscriber.subscribe("fork/out", lambda _, who: got.append(who))
        outcome = run(program, fresh_mosquitto.url + identifier)
        if not identifier:
            assert outcome.stderr == ""
        assert outcome.returncode == 0
        expected = {"parent", "parent again"}
        for number in range(1 if identifier else 3):
            expected |= {f"child {number}", f"child {number} again"}
        wait_until(lambda: set(got) == expected)


@pytest.mark.parametrize("identifier", ["", "?client_id=left"])
def test_a_loop_that_ends_takes_its_clients_along(identifier: str, fresh_mosquitto: Mosquitto) -> None:
    """A client that nobody disconnected says goodbye when ``asyncio.run`` returns; nothing is left open."""
    program = """
import asyncio, gc
from tidegate import AsyncPublisher, AsyncSubscriber

async def main():
    publisher = AsyncPublisher()
    await publisher.connect()
    await publisher.publish("left", 1)
    subscriber = AsyncSubscriber()
    await subscriber.subscribe("left", print)
    global kept
    kept = publisher, subscriber

async def keep():
    publisher = AsyncPublisher()
    await publisher.publish("left", 2, qos=0)
    await asyncio.sleep(3600)

async def both():
    asyncio.create_task(keep())
    await main()

asyncio.run(both())
gc.collect()
print("ended")
"""
    outcome = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(fresh_mosquitto.url + identifier),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "ended\n", "")
    goodbyes = fresh_mosquitto.log.count(" disconnected.")
    assert (goodbyes, fresh_mosquitto.log.count("New client connected")) == ((1, 1) if identifier else (3, 3))


async def test_an_asynchronous_client_that_is_dropped_leaves_no_connection(
    fresh_mosquitto: Mosquitto,
) -> None:
    """A publisher that nobody holds any more disconnects."""
    publisher = AsyncPublisher(fresh_mosquitto.url)
    await publisher.publish("dropped", 1)
    del publisher
    gc.collect()
    async with asyncio.timeout(20):
        while " disconnected." not in fresh_mosquitto.log:
            await asyncio.sleep(0.01)


async def test_a_subscriber_that_is_dropped_goes_on_for_its_handlers(mosquitto: Mosquitto) -> None:
    """Nobody need hold a client for the sake of its handlers, blocking or not."""
    got: set[str] = set()

    async def listen() -> None:
        await AsyncSubscriber(mosquitto.url).subscribe("kept/async", lambda topic, _: got.add(topic))
        Subscriber(mosquitto.url).subscribe("kept/blocking", lambda topic, _: got.add(topic))

    await listen()
    gc.collect()
    async with AsyncPublisher(mosquitto.url) as publisher, asyncio.timeout(20):
        for topic in ("kept/async", "kept/blocking"):
            await publisher.publish(topic, 1)
        while got != {"kept/async", "kept/blocking"}:
            await asyncio.sleep(0.01)
