"""A broker in memory for the tests of programs that use the SDK: no server, no network, no configuration.

    def test_it_publishes(tidegate_broker):
        read_temperature()
        assert tidegate_broker.messages("sensors/#")[0].json() == {"celsius": 21.5}

``tidegate_broker`` is a pytest fixture that comes with the SDK. Elsewhere ``with FakeBroker() as broker:``
does the same: within it, every client and decorated function of the process uses this broker, whatever URL it
was told and whether it was made before or within (``tidegate.detour`` has the rules).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tidegate import detour
from tidegate.connection import ConnectOptions
from tidegate.formatters import Formatter, JSONFormatter
from tidegate.log_thread import log_thread
from tidegate.memory import Action, MemoryBroker
from tidegate.message import NO_PROPERTIES, Message, Properties
from tidegate.outgoing import make_message
from tidegate.reason_codes import NOT_AUTHORIZED, SUCCESS
from tidegate.topics import matches, split_share, validate_filter

__all__ = ["FakeBroker"]

T = TypeVar("T")

WAIT_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.005
LOG_SECONDS: Final = 1.0
"""How long the end of a broker waits for log records, so that they are the test's that caused them."""


class FakeBroker(MemoryBroker):
    """An MQTT 5 broker in memory that a test looks into.

    Topics, wildcards, QoS, retained messages and shared subscriptions are those of Mosquitto. Faults:
    ``refuse``, ``stop`` and ``start`` (the broker goes away, and comes back), ``freeze`` and ``thaw`` (it
    answers nothing), ``lose`` (one client's connection is cut).

    Attributes:
        published: every message that clients published, in order.
    """

    def __init__(self) -> None:
        super().__init__(authorize=self._judge)
        self._refused: dict[str, int] = {}

    # What happened.

    @property
    def filters(self) -> set[str]:
        """The topic filters that are subscribed to."""
        with self.lock:
            return {each.filter for client in self.client_ids for each in self.subscriptions_of(client)}

    def messages(self, topic_filter: str = "#") -> list[Message]:
        """The messages that clients published to topics that a filter matches, in order.

        Raises:
            TopicError: it is no topic filter.
        """
        validate_filter(topic_filter)
        with self.lock:
            return [message for message in self.published if matches(topic_filter, message.topic)]

    def clear(self) -> None:
        """Forget what was published so far; retained messages stay retained."""
        with self.lock:
            self.published.clear()

    # What happens.

    def publish(
        self,
        topic: str,
        payload: Any,
        qos: int = 1,
        retain: bool = False,
        *,
        properties: Properties = NO_PROPERTIES,
        formatter: Formatter | None = None,
    ) -> None:
        """Publish, as a device would; the message does not count among ``published``.

        Handlers that are about to listen do so first. They run in the background: wait for what they do
        with ``wait_for``.

        Args:
            topic: a topic name (MQTT 5 §4.7).
            payload: any value that the formatter writes; ``bytes`` go out as they are.
            qos: 0, 1 or 2.
            retain: keep it as the topic's value (§3.3.1.3).
            properties: MQTT 5 properties.
            formatter: what writes the payload; JSON where it is left out.

        Raises:
            TopicError: the topic name is not allowed.
            PayloadError: the formatter cannot write the payload.
        """
        message = make_message(formatter or JSONFormatter(), topic, payload, qos, retain, properties)
        if self._is_running and not self.is_frozen and not self._refused:
            detour.settle()
        with self.lock:
            self._routes.publish(replace(message, received_at=time.time()), None)

    def refuse(self, topic_filter: str, reason_code: int = NOT_AUTHORIZED) -> None:
        """Refuse from now on to publish to these topics, and to subscribe to this filter or a narrower one.

        Args:
            topic_filter: a topic filter.
            reason_code: what the broker answers, 0x80 or above (MQTT 5 §2.4).

        Raises:
            TopicError: it is no topic filter.
        """
        validate_filter(topic_filter)
        if not 0x80 <= reason_code <= 0xFF:
            raise ValueError(f"{reason_code:#x} is not a refusing reason code; those are 0x80 to 0xff")
        with self.lock:
            self._refused[topic_filter] = reason_code

    def allow(self, topic_filter: str) -> None:
        """Refuse this filter no longer; nothing happens where it was not refused."""
        with self.lock:
            self._refused.pop(topic_filter, None)

    # Waiting for what runs in the background.

    def wait_for(self, condition: Callable[[], T], timeout_seconds: float = WAIT_SECONDS) -> T:
        """Ask again and again until a condition is true, and return what it gave.

        Args:
            condition: called without arguments.
            timeout_seconds: how long to ask.

        Raises:
            AssertionError: the time was up.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(self._late(timeout_seconds))
            time.sleep(POLL_SECONDS)
        return found

    async def async_wait_for(self, condition: Callable[[], T], timeout_seconds: float = WAIT_SECONDS) -> T:
        """``wait_for`` in a coroutine, whose event loop goes on meanwhile."""
        deadline = time.monotonic() + timeout_seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(self._late(timeout_seconds))
            await asyncio.sleep(POLL_SECONDS)
        return found

    def wait_for_messages(
        self, topic_filter: str = "#", count: int = 1, timeout_seconds: float = WAIT_SECONDS
    ) -> list[Message]:
        """Wait until clients have published so many messages that a filter matches, and return them all."""
        self.wait_for(lambda: len(self.messages(topic_filter)) >= count, timeout_seconds)
        return self.messages(topic_filter)

    def _late(self, timeout_seconds: float) -> str:
        topics = ", ".join(dict.fromkeys(message.topic for message in self.messages())) or "nothing"
        filters = ", ".join(sorted(self.filters)) or "nothing"
        return (
            f"it did not come about within {timeout_seconds:g} s; published so far: {topics}; "
            f"subscribed to: {filters}"
        )

    def _judge(self, action: Action, topic: str, options: ConnectOptions) -> int:
        if action == "connect":
            return SUCCESS
        covers = matches if action == "publish" else _covers
        refused = (code for topic_filter, code in self._refused.items() if covers(topic_filter, topic))
        return next(refused, SUCCESS)

    def __enter__(self) -> Self:
        self.start()
        detour.begin(self.connect)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        detour.end(self.connect)
        self.stop(forget=True)
        log_thread.flush(LOG_SECONDS)


def _covers(wide: str, narrow: str) -> bool:
    """Whether one filter matches whatever the other does."""
    narrow = split_share(narrow)[1]
    if narrow.endswith("#"):
        return wide.endswith("#") and matches(wide, narrow[:-1].removesuffix("/"))
    return matches(wide, narrow)
