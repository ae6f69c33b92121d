"""Event loops in threads of their own, so that synchronous code can use the asynchronous engine.

There are two for a process, started when first needed: ``engine`` carries connections, and ``handlers`` runs
coroutine handlers that have no loop of their own. They are two so that a handler which blocks, or which calls
a synchronous function of the SDK, waits for the engine and not for itself.

A child process made by ``fork`` has no threads of its parent's, and starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from tidegate.errors import NotConnectedError
from tidegate.log_thread import log_thread

T = TypeVar("T")
Call = TypeVar("Call", bound=Callable[[], None])

OF_THE_PARENT: Final = "the connection is that of the parent process; make a new client after fork"

CANNOT_START: Final = (
    "the SDK's thread cannot be started, since the program ends; for threads that go on, which Python 3.12.0 "
    "to 3.12.2 does not allow for (CPython issue 113964), connect before the main thread ends"
)

EXIT_SECONDS: Final = 5.0
"""How long the end of a program may wait for brokers."""

LOG_EXIT_SECONDS: Final = 1.0
"""How long it may wait for log records, before that and after it."""


class ThreadForEachCall(ThreadPoolExecutor):
    """Runs what blocks (a look-up of a name, a TLS handshake) in a daemon thread of its own.

    A pool takes no work any more once the main thread has ended, though other threads may publish for days.
    Where no thread can be started then either (``CANNOT_START``), the caller's does the work.
    """

    def submit(self, call: Callable[..., T], /, *args: Any, **named: Any) -> Future[T]:
        """Begin; the future has the outcome."""
        future: Future[T] = Future()
        thread = threading.Thread(target=self._run, args=(future, call, args, named), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._run(future, call, args, named)
        return future

    @staticmethod
    def _run(future: Future[T], call: Callable[..., T], args: Any, named: Any) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call(*args, **named))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)


class BackgroundLoop:
    """An event loop that runs in a daemon thread.

    Args:
        name: the thread's name.
        begin: called first on the thread.
    """

    def __init__(self, name: str, *, begin: Callable[[], None] | None = None) -> None:
        self._name = name
        self._begin = begin
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id: int | None = None
        self._of_parents: list[asyncio.AbstractEventLoop] = []
        self.forks = 0
        """How many forks lie between this process and the one that imported the SDK."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running; it is started where it is not.

        Raises:
            NotConnectedError: the program ends, and no thread can be started any more.
        """
        if self._loop is not None:
            return self._loop
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                loop.set_default_executor(ThreadForEachCall())
                try:
                    threading.Thread(target=self._run, args=(loop,), name=self._name, daemon=True).start()
                except RuntimeError as error:
                    loop.close()
                    raise NotConnectedError(CANNOT_START) from error
                self._loop = loop
            return self._loop

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, without waiting for it."""
        try:
            loop = self.loop
        except NotConnectedError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, loop)

    def submit_call(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call and run on the loop without waiting; nothing happens where no loop runs."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            asyncio.run_coroutine_threadsafe(call(), loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it gives; a loop of the caller's waits too."""
        try:
            self.require_other_thread()
        except RuntimeError:
            work.close()
            raise
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def has_started(self) -> bool:
        """Whether the loop was ever used in this process."""
        return self._loop is not None

    def is_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether this is the loop; none is started."""
        return self._loop is loop

    def require_other_thread(self) -> None:
        """Raises RuntimeError on the loop's own thread, which cannot wait for itself."""
        if threading.get_ident() == self._thread_id:
            raise RuntimeError(
                f"the thread {self._name!r} cannot wait for itself; await the asynchronous call"
            )

    def forget(self) -> None:
        """In a child process: the parent's thread is not here.

        The parent's loop is kept from being collected: taking it down here would take file descriptors out of
        an epoll instance that the parent still uses.
        """
        self._lock = threading.Lock()
        if self._loop is not None:
            self._of_parents.append(self._loop)
        self._loop = None
        self._thread_id = None
        self.forks += 1

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._thread_id = threading.get_ident()
        if self._begin is not None:
            self._begin()
        asyncio.set_event_loop(loop)
        loop.run_forever()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def at_fork_in_child(call: Call) -> Call:
    """Have a function called in each child process, where the system has ``fork``."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)
    return call


def at_exit(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Have a coroutine function run on the engine when the program ends, if the engine ever ran."""

    def run() -> None:
        if engine.has_started:
            log_thread.flush(LOG_EXIT_SECONDS)  # a handler that publishes still can
            with contextlib.suppress(TimeoutError):
                engine.submit(work()).result(EXIT_SECONDS)
            log_thread.end(LOG_EXIT_SECONDS)

    atexit.register(run)
    return work


engine: Final = BackgroundLoop("tidegate engine", begin=log_thread.serve_this_thread)
handlers: Final = BackgroundLoop("tidegate handlers")

at_fork_in_child(log_thread.forget)
at_fork_in_child(engine.forget)
at_fork_in_child(handlers.forget)
