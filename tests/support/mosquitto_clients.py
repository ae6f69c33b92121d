"""Mosquitto's own clients: an independent side that publishes, and that reads what came of a publish."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.support.mosquitto import Mosquitto, find_program

SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as mosquitto_sub(1) tells it (``-F %j``).

    Attributes:
        topic: the topic.
        payload: the payload as text.
        qos: the quality of service.
        retain: whether it is the kept message.
        properties: the MQTT 5 properties but for user properties, under the names of mosquitto_pub(1).
        user_properties: names and values, in order.
    """

    topic: str
    payload: str
    qos: int
    retain: bool
    properties: dict[str, Any]
    user_properties: list[tuple[str, str]]


class Subscriber:
    """A mosquitto_sub that runs; made by ``subscribed``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def next(self) -> Seen:
        """The next message."""
        return _seen(self._line("{"))

    def wait_until_subscribed(self) -> None:
        """Return when the broker granted what was asked for."""
        self._line("Subscribed (")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(SECONDS)
        self._thread.join(SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _line(self, begins_with: str) -> str:
        while not (line := self._lines.get(timeout=SECONDS)).startswith(begins_with):
            pass
        return line

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)


@contextmanager
def subscribed(broker: Mosquitto, *filters: str) -> Iterator[Subscriber]:
    """Follow filters with QoS 2 over MQTT 5; the broker has granted them once this begins."""
    # Into a pipe it would write what fills a block.
    command = [find_program("stdbuf"), "-oL", *_command("mosquitto_sub", broker), "-q", "2", "-d", "-F", "%j"]
    for each in filters:
        command += ["-t", each]
    subscriber = Subscriber(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8"))
    try:
        subscriber.wait_until_subscribed()
        yield subscriber
    finally:
        subscriber.close()


def publish(
    broker: Mosquitto,
    topic: str,
    payload: bytes,
    *,
    retain: bool = False,
    qos: int = 1,
    version: str = "5",
    properties: Sequence[Sequence[str]] = (),
) -> None:
    """Publish one message; each property is what follows ``-D publish`` (mosquitto_pub(1))."""
    command = [*_command("mosquitto_pub", broker, version), "-q", str(qos), "-t", topic, "-s"]
    command += ["-r"] if retain else []
    for each in properties:
        command += ["-D", "publish", *each]
    subprocess.run(command, check=True, input=payload, capture_output=True, timeout=SECONDS)


def retained(broker: Mosquitto, topic: str) -> Seen:
    """What the broker keeps for a topic."""
    command = [*_command("mosquitto_sub", broker), "-t", topic, "-C", "1", "-W", "10", "-F", "%j"]
    return _seen(subprocess.run(command, check=True, capture_output=True, timeout=SECONDS).stdout.decode())


def _command(name: str, broker: Mosquitto, version: str = "5") -> list[str]:
    return [find_program(name), "-h", broker.host, "-p", str(broker.port), "-V", version]


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, of which a name may repeat."""


def _seen(text: str) -> Seen:
    members = dict(json.loads(text, object_pairs_hook=_Pairs))
    properties = dict(members.get("properties", ()))
    return Seen(
        members["topic"],
        members["payload"],
        members["qos"],
        bool(members["retain"]),
        {name: value for name, value in properties.items() if name != "user-properties"},
        list(properties.get("user-properties", ())),
    )
