"""Event loops in threads of their own, so that synchronous code can use the asynchronous engine.

There are two for a process, started when first needed: ``engine`` carries connections, and ``handlers`` runs
coroutine handlers that have no loop of their own. They are two so that a handler which blocks, or which calls
a synchronous function of the SDK, waits for the engine and not for itself.

A child process made by ``fork`` has no threads of its parent's, and starts its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An event loop that runs in a daemon thread.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._of_parents: list[asyncio.AbstractEventLoop] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running; it is started where it is not."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(loop,), name=self._name, daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, without waiting for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def submit_call(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call and run on the loop without waiting; nothing happens where no loop runs."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            asyncio.run_coroutine_threadsafe(call(), loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it gives; a loop of the caller's waits too."""
        if self._thread is not None and threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                f"the thread {self._name!r} cannot wait for itself; await the asynchronous call"
            )
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def forget(self) -> None:
        """In a child process: the parent's thread is not here.

        The parent's loop is kept from being collected: taking it down here would take file descriptors out of
        an epoll instance that the parent still uses.
        """
        self._lock = threading.Lock()
        if self._loop is not None:
            self._of_parents.append(self._loop)
        self._loop = None
        self._thread = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()


engine: Final = BackgroundLoop("tidegate engine")
handlers: Final = BackgroundLoop("tidegate handlers")

os.register_at_fork(after_in_child=engine.forget)
os.register_at_fork(after_in_child=handlers.forget)
