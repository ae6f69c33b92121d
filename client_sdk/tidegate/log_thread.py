"""Log records of the engine's thread, written by a thread that nobody waits for.

A ``logging.Handler`` may publish what is logged. It holds its lock meanwhile, and the call waits for the
engine: an engine that waited for that lock, or called the handler itself, would wait for itself for ever.

Rules:

1. What the SDK, and the libraries under it, log on the engine's thread is put into a queue, and handled by
   its logger in one daemon thread: levels, filters and handlers count as ever, a moment later.
2. Every other thread writes its records itself; so does an event loop that is not the SDK's.
3. At most ``MAX_WAITING_RECORDS`` wait. What comes beyond is dropped, and the log says how many were.
4. The end of the program waits for what waits, within bounds.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from typing import Final

logger = logging.getLogger("tidegate")

MAX_WAITING_RECORDS: Final = 1000

LOGGERS: Final = (
    "tidegate",
    "asyncio",
    "concurrent.futures",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "httpx",
    "py.warnings",
)
"""What logs on the engine's thread. A filter counts for the very logger that it is added to."""


class LogThread:
    """Takes the records of one thread to another; a filter of loggers, since that comes before handlers."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[logging.LogRecord | threading.Event] = queue.SimpleQueue()
        self._of_thread: int | None = None
        self._is_ended = False
        self._dropped = 0
        self._told_dropped = 0

    def serve_this_thread(self) -> None:
        """From now on take the records that arise on the thread that calls this."""
        writing = threading.Thread(target=self._run, args=(self._waiting,), name="tidegate log", daemon=True)
        try:
            writing.start()
        except RuntimeError:  # the program ends: nobody is left who would wait
            return
        self._of_thread = threading.get_ident()
        for name in LOGGERS:
            filters = logging.getLogger(name).filters
            if self not in filters:
                filters.insert(0, self)  # before others, which would be asked twice

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be handled here and now; called by loggers, and never waits."""
        if threading.get_ident() != self._of_thread:
            return True
        # A SimpleQueue may be put to from within itself, as by an object that logs when it is collected.
        if self._waiting.qsize() < MAX_WAITING_RECORDS:
            self._waiting.put(record)
        else:
            self._dropped += 1
        return False

    def flush(self, seconds: float) -> None:
        """Wait until what was logged so far is written, for so long at most."""
        if self._of_thread is not None:
            is_reached = threading.Event()
            self._waiting.put(is_reached)
            is_reached.wait(seconds)

    def end(self, seconds: float) -> None:
        """The program ends: write what waits, within this time, and nothing more."""
        self.flush(seconds)
        self._is_ended = True

    def forget(self) -> None:
        """In a child process: the thread, and what waits for it, are the parent's."""
        self._waiting = queue.SimpleQueue()
        self._of_thread = None

    def _run(self, waiting: queue.SimpleQueue[logging.LogRecord | threading.Event]) -> None:
        while True:
            each = waiting.get()
            if isinstance(each, threading.Event):
                each.set()
            elif not self._is_ended:
                self._write(each)

    def _write(self, record: logging.LogRecord) -> None:
        try:
            logging.getLogger(record.name).handle(record)
            dropped = self._dropped
            if dropped != self._told_dropped:
                count, self._told_dropped = dropped - self._told_dropped, dropped
                logger.warning("handlers of log records are too slow: %d records dropped", count)
        except BaseException:  # noqa: BLE001 - a handler that fails costs this record, not the later ones
            failure = (*sys.exc_info(), threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(failure))


log_thread: Final = LogThread()
