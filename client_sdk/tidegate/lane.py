"""The way of a message from a thread of the caller's to a publisher on the SDK's engine.

Rules:

1. Order is kept for each thread: what it hands over first is sent first.
2. A call waits for what becomes of its message, and raises what went wrong, with one exception: a QoS 0
   message over a live connection that is known to take it does not wait for the socket. What still goes wrong
   with it is logged.
3. At most ``MAX_UNSENT`` messages are on their way unwaited; further ones wait until theirs is sent.
4. The loop is woken once for all messages that came meanwhile, and a coroutine's loop once for all outcomes
   (``tidegate.way_back``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from typing import Final, Protocol

from tidegate.background import OF_THE_PARENT, engine
from tidegate.errors import NotConnectedError, refusal
from tidegate.message import Message
from tidegate.way_back import way_back_to

logger = logging.getLogger("tidegate")

MAX_UNSENT: Final = 1000


class Goal(Protocol):
    """Where messages go: ``AsyncPublisher``."""

    def takes_unwaited(self, message: Message) -> bool:
        """Whether a message can be handed over now, and nothing is known against it; from any thread."""

    def submit(self, message: Message) -> asyncio.Future[int]:
        """Publish without waiting, on the loop; raises MQTTError."""


class Caller(Protocol):
    """Who is told what becomes of a message; on the loop."""

    future: asyncio.Future[int] | None

    @property
    def has_given_up(self) -> bool:
        """Whether nobody waits any more, and the message need not be sent."""

    def settle(self, future: asyncio.Future[int]) -> None:
        """The message has its outcome."""

    def fail(self, error: BaseException) -> None:
        """It was not sent."""


class Lane:
    """Hands messages to one publisher, from any thread but the engine's own.

    Args:
        publisher: used on the engine's loop and nowhere else.
    """

    def __init__(self, publisher: Goal) -> None:
        self._publisher = publisher
        self._forks = engine.forks
        self._handed: deque[tuple[Message, Caller | None]] = deque()
        self._unsent = 0
        self._is_woken = False

    def publish(self, message: Message) -> int:
        """Publish, and return the broker's reason code; raises what ``AsyncPublisher.publish`` raises.

        Raises:
            RuntimeError: it is called on the engine's own thread, which would wait for itself.
        """
        self._require_own_process()
        engine.require_other_thread()
        if (
            message.qos == 0
            and len(self._handed) + self._unsent < MAX_UNSENT
            and self._publisher.takes_unwaited(message)
        ):
            self._hand(message, None)
            return 0
        caller = _Caller(message)
        self._hand(message, caller)
        return caller.wait()

    async def publish_awaited(self, message: Message) -> int:
        """``publish`` for a coroutine on another loop, which goes on meanwhile."""
        self._require_own_process()
        caller = _AwaitingCaller()
        caller.way_back.waiting += 1
        try:
            self._hand(message, caller)
            code = await caller.answer
        except asyncio.CancelledError:
            engine.loop.call_soon_threadsafe(caller.cancel)
            raise
        finally:
            caller.way_back.waiting -= 1
        if code >= 0x80:
            raise refusal("publish", code, topic=message.topic, qos=message.qos)
        return code

    def begin(self, message: Message, caller: Caller) -> None:
        """Publish without waiting here; the caller is told what becomes of it."""
        self._require_own_process()
        engine.require_other_thread()
        self._hand(message, caller)

    def _require_own_process(self) -> None:
        if self._forks != engine.forks:
            raise NotConnectedError(OF_THE_PARENT)

    def _hand(self, message: Message, caller: Caller | None) -> None:
        self._handed.append((message, caller))
        if not self._is_woken:
            self._is_woken = True
            engine.loop.call_soon_threadsafe(self._send)

    def _send(self) -> None:
        """On the loop: send what was handed over."""
        # Cleared first: what is handed over from now on wakes the loop again, or is still seen below.
        self._is_woken = False
        handed = self._handed
        unwaited: list[asyncio.Future[int]] = []
        while handed:
            message, caller = handed.popleft()
            if caller is not None and caller.has_given_up:
                continue
            try:
                future = self._publisher.submit(message)
            except Exception as error:  # noqa: BLE001 - it is the caller's, not the loop's
                if caller is None:
                    logger.warning("a message to %r was not sent: %s", message.topic, error)
                else:
                    caller.fail(error)
                continue
            if caller is None:
                unwaited.append(future)
            else:
                caller.future = future
                future.add_done_callback(caller.settle)
        if unwaited:
            self._unsent += len(unwaited)
            unwaited[-1].add_done_callback(lambda _: self._sent(unwaited))

    def _sent(self, unwaited: list[asyncio.Future[int]]) -> None:
        """The last of a batch is settled, and as a rule all are; a callback for each would cost more."""
        for future in unwaited:
            if future.done():
                self._settle(future)
            else:
                future.add_done_callback(self._settle)

    def _settle(self, future: asyncio.Future[int]) -> None:
        self._unsent -= 1
        error = None if future.cancelled() else future.exception()
        if error is not None:
            logger.warning("a QoS 0 message was not sent: %s", error)


class _Caller:
    """A thread that waits for one message."""

    __slots__ = ("_code", "_error", "_message", "_turn", "future", "has_given_up")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._turn = threading.Lock()
        self._turn.acquire()
        self._code = 0
        self._error: BaseException | None = None
        self.future: asyncio.Future[int] | None = None
        self.has_given_up = False

    def wait(self) -> int:
        """Called on the thread; an interrupted wait gives up on the answer."""
        try:
            self._turn.acquire()
        except BaseException:
            self.has_given_up = True
            with contextlib.suppress(RuntimeError):  # the loop is gone with the process
                engine.loop.call_soon_threadsafe(self._cancel)
            raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # else the error, its traceback and this frame hold one another
        if self._code >= 0x80:
            raise refusal("publish", self._code, topic=self._message.topic, qos=self._message.qos)
        return self._code

    def settle(self, future: asyncio.Future[int]) -> None:
        """Called on the loop."""
        if future.cancelled():
            self._error = NotConnectedError("the client was disconnected meanwhile")
        else:
            self._error = future.exception()
            if self._error is None:
                self._code = future.result()
        self._turn.release()

    def fail(self, error: BaseException) -> None:
        """Called on the loop."""
        self._error = error
        self._turn.release()

    def _cancel(self) -> None:
        if self.future is not None:
            self.future.cancel()


class _AwaitingCaller:
    """A coroutine on a loop of its own that waits for one message."""

    __slots__ = ("_code", "_error", "_loop", "answer", "future", "way_back")

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.way_back = way_back_to(loop)
        self._code = 0
        self._error: BaseException | None = None
        self.answer: asyncio.Future[int] = loop.create_future()
        self.future: asyncio.Future[int] | None = None

    @property
    def has_given_up(self) -> bool:
        """Whether the coroutine was cancelled; a message that was not sent then stays unsent."""
        return self.answer.cancelled()

    def settle(self, future: asyncio.Future[int]) -> None:
        """Called on the engine's loop."""
        if future.cancelled():
            self._error = NotConnectedError("the client was disconnected meanwhile")
        elif (error := future.exception()) is not None:
            self._error = error
        else:
            self._code = future.result()
        self.way_back.tell(self._loop, self)

    def fail(self, error: BaseException) -> None:
        """Called on the engine's loop."""
        self._error = error
        self.way_back.tell(self._loop, self)

    def finish(self) -> None:
        """Called on the coroutine's loop."""
        error, self._error = self._error, None  # else the error and its traceback hold this, and it the error
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(self._code)
        else:
            self.answer.set_exception(error)

    def cancel(self) -> None:
        """Called on the engine's loop, when the coroutine waits no more."""
        if self.future is not None:
            self.future.cancel()
