"""``on_connect``, ``on_disconnect`` and ``on_publish``: what a client tells whoever overrides them.

Rules:

1. A hook is called when its event happens, in the order of events, and never in the turn that carries
   connections: a blocking client's in a thread of the SDK's, an asynchronous one's on its event loop.
2. A blocking client's hook may block and may call its client; what a hook raises is logged.
3. Through a bridge there is no session to watch: the first call that succeeds counts as connected, and one
   that does not reach the bridge as disconnected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from tidegate.errors import MQTTError
from tidegate.session import SessionState, StateChange

logger = logging.getLogger("tidegate")

UNSPECIFIED_ERROR: Final = 0x80


class Hooked:
    """The hooks, which do nothing until a subclass, or an attribute of the instance, overrides them."""

    def on_connect(self, client: Any, userdata: Any, flags: dict[str, int], rc: int) -> Any:
        """Called when a connection is established, the first and each one after a loss.

        Args:
            client: this object.
            userdata: None; there is none in this SDK.
            flags: ``{"session present": 0 or 1}`` (MQTT 5 §3.2.2.1.1).
            rc: 0, for success; a connection that is refused is an error of the call, and logged.
        """

    def on_disconnect(self, client: Any, userdata: Any, rc: int) -> Any:
        """Called when a connection ended.

        Args:
            client: this object.
            userdata: None.
            rc: 0 after ``disconnect``, else the reason code that is known, else 0x80 (MQTT 5 §2.4).
        """

    def on_publish(self, client: Any, userdata: Any, mid: int) -> Any:
        """Called when a message is published: acknowledged at QoS 1 and 2, handed to the socket at QoS 0.

        Args:
            client: this object.
            userdata: None.
            mid: the number of the message among those that this client published, from 1.
        """


class Hooks:
    """Calls the hooks of one client.

    Args:
        client: whose hooks; held weakly.
        loop: the event loop to call them on; a thread of their own where there is none.
    """

    def __init__(self, client: Hooked, loop: asyncio.AbstractEventLoop | None) -> None:
        self._client = weakref.ref(client)
        self._loop = loop
        self._is_connected = False
        self._published = 0
        self._calls: queue.SimpleQueue[Callable[[], object] | None] | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self.tells_publish = _is_overridden(client, "on_publish")

    def changed(self, change: StateChange) -> None:
        """The session's state changed."""
        if change.state is SessionState.CONNECTED:
            self.connected(session_present=change.session_present)
        elif change.state is SessionState.DISCONNECTED:
            self.failed(change.error)

    def connected(self, *, session_present: bool = False) -> None:
        """There is a connection; nothing happens where that is known."""
        if not self._is_connected:
            self._is_connected = True
            self._tell("on_connect", {"session present": int(session_present)}, 0)

    def failed(self, error: MQTTError | None) -> None:
        """There is no connection any more; nothing happens where there was none."""
        if self._is_connected:
            self._is_connected = False
            code = error.reason_code if error is not None else None
            self._tell("on_disconnect", UNSPECIFIED_ERROR if code is None else code)

    def published(self) -> None:
        """A message was published."""
        self._published += 1
        self._tell("on_publish", self._published)

    def end(self) -> None:
        """The client was disconnected on purpose."""
        if self._is_connected:
            self._is_connected = False
            self._tell("on_disconnect", 0)
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None

    def _tell(self, name: str, *facts: object) -> None:
        reference = self._client
        client = reference()
        if client is None or not _is_overridden(client, name):
            return

        def call() -> object:  # the thread that called it last must keep no client alive
            client = reference()
            return None if client is None else getattr(client, name)(client, None, *facts)

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._call_on_loop, name, call)
            return
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(
                target=_call_each, args=(self._calls,), name="tidegate hooks", daemon=True
            ).start()
        self._calls.put(lambda: _safely(name, call))

    def _call_on_loop(self, name: str, call: Callable[[], object]) -> None:
        outcome = _safely(name, call)
        if asyncio.iscoroutine(outcome):
            task = asyncio.ensure_future(_awaited_safely(name, outcome))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _is_overridden(client: Hooked, name: str) -> bool:
    return getattr(getattr(client, name), "__func__", None) is not getattr(Hooked, name)


def _call_each(calls: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while (call := calls.get()) is not None:
        call()


def _safely(name: str, call: Callable[[], object]) -> object:
    try:
        return call()
    except BaseException:
        logger.exception("%s failed", name)
        return None


async def _awaited_safely(name: str, outcome: Any) -> None:
    try:
        await outcome
    except (GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException:
        logger.exception("%s failed", name)
