"""What is logged on the engine's thread reaches handlers, also those that publish."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.asked import Requests
from tests.support.bridge import running_bridge, wait_until
from tests.support.mosquitto import Mosquitto
from tidegate import AsyncPublisher, Publisher, Subscriber
from tidegate.background import engine
from tidegate.log_thread import MAX_WAITING_RECORDS
from tidegate.memory import MemoryBroker
from tidegate.testing import FakeBroker

logger = logging.getLogger("tidegate")


def run(program: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; one that waits for itself is ended, and fails the test."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *arguments],
        env={**os.environ, "TIDEGATE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Keeping(logging.Handler):
    """Keeps what it is given, with the thread that gave it, and lets nobody by while it is held."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.kept: list[tuple[str, str]] = []
        self.is_called = threading.Event()
        self.is_free = threading.Event()
        self.is_free.set()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by ``logging``."""
        self.is_called.set()
        self.is_free.wait(20)
        self.kept.append((record.getMessage(), threading.current_thread().name))

    @property
    def texts(self) -> list[str]:
        """The messages."""
        return [text for text, _ in self.kept]


@pytest.fixture
def keeping(caplog: pytest.LogCaptureFixture) -> Iterator[Keeping]:
    """A handler of the SDK's logger."""
    caplog.set_level(logging.INFO, "tidegate")
    handler = Keeping()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def say(*texts: str) -> None:
    """Log on the loop that runs this."""
    for text in texts:
        logger.warning(text)


PUBLISHING = """
import logging, sys
from tidegate import Publisher

class Publishing(logging.Handler):
    def __init__(self):
        super().__init__(logging.INFO)
        self.publisher = Publisher()
    def emit(self, record):
        if not record.name.startswith("http"):
            self.publisher.publish(f"logs/{record.name}", record.getMessage())

where = logging.getLogger(sys.argv[1])
where.setLevel(logging.INFO)
where.addHandler(Publishing())
logging.getLogger("mine").warning("begin")
logging.getLogger("tidegate").warning("begin")
"""


@pytest.mark.parametrize("where", ["tidegate", "root"])
@pytest.mark.parametrize("way", ["direct", "bridge"])
def test_a_handler_may_publish_what_the_sdk_logs(
    where: str, way: str, bridge_url: str, mosquitto: Mosquitto
) -> None:
    """The engine does not wait for a handler that waits for the engine; what it logs arrives too."""
    got: list[tuple[str, Any]] = []
    with Subscriber(mosquitto.url) as subscriber:
        subscriber.subscribe("logs/#", lambda topic, payload: got.append((topic, payload)))
        outcome = run(PUBLISHING, mosquitto.url if way == "direct" else bridge_url, where)
        assert outcome.returncode == 0
        assert "Traceback" not in outcome.stderr
        wait_until(lambda: ("logs/tidegate", "begin") in got)
        if way == "direct":
            wait_until(lambda: any(str(text).startswith("connected to") for _, text in got))
        assert (("logs/mine", "begin") in got) == (where == "root")


def test_a_handler_may_publish_that_the_broker_is_away(keeping: Keeping) -> None:
    """It waits for the broker itself, while others go on; the record arrives when the broker is back."""
    away, there = MemoryBroker(), MemoryBroker()
    publisher = Publisher(connect=away.connect)

    class Publishing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            publisher.publish("logs", record.getMessage())

    handler = Publishing(logging.WARNING)
    publisher.connect()
    logger.addHandler(handler)
    try:
        away.stop()
        wait_until(lambda: any("not connected" in text for text in keeping.texts))
        with Publisher(connect=there.connect) as other:
            other.publish("goes/on", 1)
        away.start()
        wait_until(lambda: any(b"not connected" in each.payload for each in away.published))
    finally:
        logger.removeHandler(handler)
        publisher.disconnect()


def test_records_wait_within_bounds_and_the_engine_does_not(keeping: Keeping) -> None:
    """What is beyond is dropped, and counted in the log when there is room again."""
    keeping.is_free.clear()
    engine.run(say("first"))
    assert keeping.is_called.wait(20)
    engine.run(say(*(f"record {number}" for number in range(MAX_WAITING_RECORDS + 7))))
    keeping.is_free.set()
    wait_until(lambda: len(keeping.kept) == MAX_WAITING_RECORDS + 2)
    assert keeping.texts[:2] == ["first", "handlers of log records are too slow: 7 records dropped"]
    assert keeping.texts[2:] == [f"record {number}" for number in range(MAX_WAITING_RECORDS)]


def test_levels_filters_and_origins_count_as_ever(keeping: Keeping, caplog: pytest.LogCaptureFixture) -> None:
    """A record is asked for once at each place, and tells where it arose."""
    asked: list[str] = []

    def not_this(record: logging.LogRecord) -> bool:
        asked.append(record.getMessage())
        return record.getMessage() != "not this"

    high = Keeping(logging.ERROR)
    logger.addHandler(high)
    logger.addFilter(not_this)
    try:
        engine.run(say("this", "not this"))
        wait_until(lambda: asked == ["this", "not this"])
        caplog.set_level(logging.ERROR, "tidegate")
        engine.run(say("too low"))
        caplog.set_level(logging.INFO, "tidegate")
        engine.run(say("last"))
        wait_until(lambda: "last" in caplog.text)
    finally:
        logger.removeFilter(not_this)
        logger.removeHandler(high)
    assert keeping.kept == [("this", "tidegate log"), ("last", "tidegate log")]
    assert high.kept == []
    assert [(each.threadName, each.funcName) for each in caplog.records] == [("tidegate engine", "say")] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_that_fails_costs_no_other_record(keeping: Keeping) -> None:
    """Not even one that means to exit."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit if record.getMessage() == "exit" else LookupError

    handler = Failing()
    logger.addHandler(handler)
    try:
        engine.run(say("one", "exit", "two"))
        wait_until(lambda: keeping.texts == ["one", "exit", "two"])
    finally:
        logger.removeHandler(handler)


async def test_another_event_loop_writes_by_itself(keeping: Keeping) -> None:
    """A session on a loop of the user's, or of a bridge, has its records written at once."""
    async with AsyncPublisher(connect=MemoryBroker().connect):
        pass
    connected = [name for text, name in keeping.kept if text.startswith("connected to")]
    assert connected == [threading.current_thread().name]


def test_the_end_of_a_broker_for_tests_waits_for_its_records(
    keeping: Keeping,
) -> None:
    """What a test caused is in its log, and not in that of the next."""
    with FakeBroker():
        engine.run(say("of this test"))
        keeping.is_free.clear()
        threading.Timer(0.01, keeping.is_free.set).start()
    assert "of this test" in keeping.texts


def test_what_was_logged_is_written_before_the_program_ends(mosquitto: Mosquitto) -> None:
    """By the parent, and by a forked child, which has a thread of its own for it."""
    program = """
import logging, os, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
from tidegate import Publisher

def publish(who):
    publisher = Publisher(client_id=f"log-{who}-{os.getpid()}")
    publisher.publish("logs/end", who)

publish("parent")
if (child := os.fork()) == 0:
    publish("child")
    sys.exit(0)
os.waitpid(child, 0)
"""
    outcome = run(program, mosquitto.url)
    assert outcome.returncode == 0
    lines = outcome.stderr.splitlines()
    assert [
        sum("connected to" in line and f"log-{who}" in line for line in lines) for who in ("parent", "child")
    ] == [1, 1]


def test_a_handler_that_cannot_publish_does_not_hold_up_the_end(fresh_mosquitto: Mosquitto) -> None:
    """The broker answers nothing any more: what is logged is given up with the rest."""
    program = """
import logging, sys
from tidegate import Publisher
publisher = Publisher()
publisher.connect()

class Publishing(logging.Handler):
    def emit(self, record):
        publisher.publish("logs", record.getMessage())

logger = logging.getLogger("tidegate")
logger.addHandler(Publishing())
print("ready", flush=True)
input()
from tidegate.background import engine
async def say():
    for number in range(100):
        logger.warning("record %d", number)
engine.run(say())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TIDEGATE_URL": fresh_mosquitto.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == "ready\n"
        fresh_mosquitto.pause()
        with contextlib.suppress(BrokenPipeError):
            running.stdin.write("\n")
            running.stdin.flush()
        assert running.wait(60) == 0
        fresh_mosquitto.resume()


def test_a_tokens_coroutine_does_not_run_on_the_engine(mosquitto: Mosquitto) -> None:
    """It may log to a handler that publishes, and block; one that means to exit fails its call alone."""
    names: list[str] = []

    async def token() -> str:
        names.append(threading.current_thread().name)
        return "token"

    requests = Requests()
    with (
        running_bridge(mosquitto.url, prepare=requests.prepare) as bridge,
        Publisher(bridge.url, token=token) as publisher,
    ):
        publisher.publish("tokens", 1)
    assert set(names) == {"tidegate handlers"}
    assert [each.authorization for each in requests.of("/v1/topics")] == ["Bearer token"]
