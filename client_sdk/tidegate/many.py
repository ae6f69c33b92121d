"""Publishing many messages: several are under way at once, and what becomes of each is told in order.

Rules:

1. No more is taken from the source than may be under way; the source waits meanwhile.
2. A message that fails costs itself alone: its error stands in its place. What the source raises is raised,
   once what was taken before has its outcome.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final, TypedDict

from tidegate.errors import MQTTError, NotConnectedError, PayloadError, refusal
from tidegate.message import Message, Properties

MAX_IN_FLIGHT: Final = 1000


class PublishOptions(TypedDict, total=False):
    """What may be said about one message of many, in place of what is said about all."""

    qos: int
    retain: bool
    properties: Properties


Item = Message | tuple[str, Any] | tuple[str, Any, PublishOptions]
Read = Callable[[Item], Message]
Outcome = tuple[Message, int] | MQTTError
"""A message with the broker's reason code, or its error."""


def split_item(item: Item) -> tuple[str, Any, Mapping[str, Any]]:
    """Topic, payload and options of one of many.

    Raises:
        PayloadError: it is no message.
    """
    given: Any = item  # a program without types may give anything
    if isinstance(given, tuple) and len(given) == 2:
        return given[0], given[1], {}
    if isinstance(given, tuple) and len(given) == 3 and isinstance(given[2], Mapping):
        unknown = set(given[2]) - set(PublishOptions.__annotations__)
        if not unknown:
            return given[0], given[1], given[2]
        raise PayloadError(f"{min(unknown)!r} is no option of a message; known are qos, retain, properties")
    raise PayloadError(
        f"{item!r:.100} is no message: give (topic, payload), (topic, payload, options) or Message"
    )


class _Outcomes:
    """The outcomes so far, each in its place."""

    def __init__(self) -> None:
        self.found: list[Outcome | None] = []
        self.fault: BaseException | None = None

    def begin(self) -> int:
        """A place."""
        self.found.append(None)
        return len(self.found) - 1

    def settle(self, place: int, message: Message, future: asyncio.Future[int]) -> None:
        """What became of a message."""
        if future.cancelled():
            self.found[place] = NotConnectedError(
                "the client was disconnected meanwhile", topic=message.topic
            )
        elif (error := future.exception()) is not None:
            self.fail(place, error)
        elif (code := future.result()) >= 0x80:
            self.found[place] = refusal("publish", code, topic=message.topic, qos=message.qos)
        else:
            self.found[place] = message, code

    def fail(self, place: int, error: BaseException) -> None:
        """What went wrong; what is no MQTTError is the program's, and raised in the end."""
        if isinstance(error, MQTTError):
            self.found[place] = error
        else:
            self.fault = self.fault or error

    def all(self) -> list[Outcome]:
        """Every outcome, in order."""
        if self.fault is not None:
            raise self.fault
        return [each for each in self.found if each is not None]


async def publish_awaited(
    source: Iterable[Item] | AsyncIterable[Item],
    read: Read,
    submit: Callable[[Message], asyncio.Future[int]],
    max_in_flight: int,
) -> list[Outcome]:
    """Publish all messages of a source from a coroutine.

    Args:
        source: the messages.
        read: makes a message of an item, or raises MQTTError.
        submit: begins to publish one.
        max_in_flight: how many may be under way.
    """
    outcomes = _Outcomes()
    under_way = 0
    change = asyncio.Event()

    def settled(place: int, message: Message, future: asyncio.Future[int]) -> None:
        nonlocal under_way
        under_way -= 1
        change.set()
        outcomes.settle(place, message, future)

    async def until(most: int) -> None:
        while under_way > most:
            change.clear()
            await change.wait()

    def begin(item: Item) -> None:
        nonlocal under_way
        place = outcomes.begin()
        try:
            message = read(item)
            future = submit(message)
        except MQTTError as error:
            outcomes.fail(place, error)
            return
        under_way += 1
        future.add_done_callback(lambda done: settled(place, message, done))

    try:
        async for item in _each(source):
            begin(item)
            await until(max_in_flight - 1)
    finally:
        await until(0)
    return outcomes.all()


class HandedOver:
    """One of many messages on a lane; settled on the lane's loop."""

    def __init__(self, place: int, message: Message, outcomes: _Outcomes, done: Callable[[], None]) -> None:
        self.future: asyncio.Future[int] | None = None
        self.has_given_up = False
        self._place = place
        self._message = message
        self._outcomes = outcomes
        self._done = done

    def settle(self, future: asyncio.Future[int]) -> None:
        """The message has its outcome."""
        self._outcomes.settle(self._place, self._message, future)
        self._done()

    def fail(self, error: BaseException) -> None:
        """The message was not sent."""
        self._outcomes.fail(self._place, error)
        self._done()


def publish_blocking(
    source: Iterable[Item], read: Read, hand: Callable[[Message, HandedOver], None], max_in_flight: int
) -> list[Outcome]:
    """Publish all messages of a source from a thread, in which the source is iterated over.

    Args:
        source: the messages.
        read: makes a message of an item, or raises MQTTError.
        hand: hands one over to be published.
        max_in_flight: how many may be under way.
    """
    outcomes = _Outcomes()
    room = threading.Semaphore(max_in_flight)
    try:
        for item in source:
            place = outcomes.begin()
            try:
                message = read(item)
            except MQTTError as error:
                outcomes.fail(place, error)
                continue
            room.acquire()
            try:
                hand(message, HandedOver(place, message, outcomes, room.release))
            except BaseException:
                room.release()
                raise
    finally:
        for _ in range(max_in_flight):
            room.acquire()
    return outcomes.all()


async def _each(source: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item
