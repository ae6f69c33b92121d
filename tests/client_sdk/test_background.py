from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import Publisher, Subscriber
from tidegate.background import BackgroundLoop, engine, handlers


async def thread_name() -> str:
    """The name of the thread that runs this."""
    return threading.current_thread().name


def threads(name: str) -> list[threading.Thread]:
    """The threads of this name that live."""
    return [each for each in threading.enumerate() if each.name == name]


def test_the_thread_starts_with_the_first_use_and_serves_all() -> None:
    """Making a loop starts nothing; using it from many threads starts one thread."""
    background = BackgroundLoop("lazy")
    assert threads("lazy") == []
    callers = [threading.Thread(target=lambda: background.run(thread_name())) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert background.run(thread_name()) == "lazy"
    assert len(threads("lazy")) == 1
    assert threads("lazy")[0].daemon


def test_what_a_coroutine_raises_reaches_the_caller() -> None:
    """The error is the same object."""
    error = LookupError("here")

    async def fails() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        engine.run(fails())
    assert caught.value is error


async def test_a_caller_with_a_loop_of_its_own_waits_without_locking_up() -> None:
    """The engine is another thread, so a blocking call inside a running loop ends."""
    assert engine.run(thread_name()) == "tidegate engine"
    assert handlers.run(thread_name()) == "tidegate handlers"


def test_an_interrupted_caller_cancels_the_work() -> None:
    """Whoever stops waiting leaves nothing running behind."""
    was_cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    future = engine.submit(endless())
    engine.run(asyncio.sleep(0))
    future.cancel()
    assert was_cancelled.wait(10)
    with pytest.raises(CancelledError):
        future.result()


def test_a_call_without_a_loop_does_nothing() -> None:
    """``submit_call`` serves clean-up, which must not start a thread."""
    background = BackgroundLoop("idle")
    called: list[int] = []

    async def call() -> None:
        called.append(1)

    background.submit_call(call)
    assert (threads("idle"), called) == ([], [])
    background.run(asyncio.sleep(0))
    background.submit_call(call)
    wait_until(lambda: called == [1])


FORKING = """
import gc, os, sys
from tidegate import NotConnectedError, Publisher, publish

inherited = Publisher()
inherited.publish("fork/class", "parent")

@publish("fork/decorated")
def read(who):
    return who

read("parent")
child = os.fork()
if child == 0:
    try:
        read("child")
        with Publisher() as publisher:
            publisher.publish("fork/class", "child")
        try:
            inherited.publish("fork/class", "stolen")
        except NotConnectedError as error:
            assert "parent process" in str(error)
        inherited.disconnect()
        del inherited
        gc.collect()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
read("parent again")
inherited.publish("fork/class", "parent again")
sys.exit(status)
"""


def test_a_forked_child_connects_anew_and_leaves_the_parents_connection_alone(mosquitto: Mosquitto) -> None:
    """Publishing works in the child, and goes on working in the parent."""
    got: list[tuple[str, str]] = []
    with Subscriber(mosquitto.url) as subscriber:
        subscriber.subscribe("fork/#", lambda topic, payload: got.append((topic, payload)))
        outcome = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING],
            env={"TIDEGATE_URL": mosquitto.url, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (outcome.returncode, outcome.stderr) == (0, "")
        wait_until(lambda: len(got) == 6)
    assert got == [
        ("fork/class", "parent"),
        ("fork/decorated", "parent"),
        ("fork/decorated", "child"),
        ("fork/class", "child"),
        ("fork/decorated", "parent again"),
        ("fork/class", "parent again"),
    ]


def test_a_program_ends_when_its_main_thread_does(mosquitto: Mosquitto) -> None:
    """Open connections and listening handlers keep no program alive, and nothing is written at its end."""
    program = (
        "from tidegate import Publisher, Subscriber, publish, subscribe\n"
        "@subscribe('exit/#')\n"
        "def handle(message): pass\n"
        "@subscribe('exit/#')\n"
        "async def handle_too(message): pass\n"
        "@publish('exit/a', qos=2)\n"
        "def read(): return 1\n"
        "read()\n"
        "publisher = Publisher()\n"
        "publisher.publish('exit/b', 1, qos=0)\n"
        "subscriber = Subscriber()\n"
        "subscriber.subscribe('exit/#', lambda topic, payload: None)\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        env={"TIDEGATE_URL": mosquitto.url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_a_client_that_is_dropped_leaves_no_connection(fresh_mosquitto: Mosquitto) -> None:
    """A publisher that nobody holds any more disconnects."""
    publisher = Publisher(fresh_mosquitto.url, client_id="dropped")
    publisher.publish("dropped", 1)
    del publisher
    wait_until(lambda: "Client dropped disconnected" in fresh_mosquitto.log)
