"""How the log is written: one record, one line, in UTC, as JSON or for the eyes.

Rules:

1. The last step before writing is redaction; no record goes around it.
2. A record that is written while a request is served carries the request's id.
3. What is said of a record beside its text (``extra=``) is a member of its own.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.logs.context import request_id, trace_id
from app.logs.redaction import redact

LogFormat = Literal["auto", "console", "json"]

_FIRST: Final = ("time", "level", "logger", "message", "request_id", "trace_id")
"""The members of a record in JSON, in order; others follow."""


def configure_logging(level: str, log_format: LogFormat = "auto") -> None:
    """Log to stderr, one line a record.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``json``, ``console``, or ``auto`` for ``console`` on a terminal and ``json`` elsewhere.
    """
    is_terminal = sys.stderr.isatty()
    is_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    # uvicorn's own news of its process and of each step of its end is of no use to an operator, and what it
    # says of a WebSocket has the query string and the headers in it, and so may hold a secret.
    quiet: dict[str, Any] = {"level": "WARNING"}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": [
                        structlog.stdlib.add_log_level,
                        structlog.stdlib.add_logger_name,
                        structlog.stdlib.ExtraAdder(),
                        _add_time,
                        _add_request,
                    ],
                    "processors": _json() if is_json else _console(colors=is_terminal),
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {"uvicorn": quiet, "asyncio": quiet, "httpx": quiet, "watchfiles": quiet},
        }
    )


def _json() -> Sequence[Processor]:
    return (
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        _redact_all,
        _render_json,
    )


def _console(*, colors: bool) -> Sequence[Processor]:
    return (
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redact_all,
        _join_lines,
        structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, timestamp_key="time"),
    )


def _add_time(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    moment = datetime.fromtimestamp(event["_record"].created, UTC)
    event["time"] = moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    return event


def _add_request(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, found in (("request_id", request_id.get()), ("trace_id", trace_id.get())):
        if found:
            event.setdefault(name, found)
    return event


def _redact_all(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Every text goes through here; a lone surrogate, which UTF-8 cannot carry, shows as its escape."""
    return {name: _clean(value) for name, value in event.items()}


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _clean(each) for name, each in value.items()}
    return redact(str(value)).encode("utf-8", "backslashreplace").decode()


def _join_lines(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A trace's lines are joined by ``|``, and line breaks in a text are escaped."""
    trace = event.pop("exception", "").splitlines()
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value.replace("\r", "\\r").replace("\n", "\\n")
    event["event"] = " | ".join((event["event"], *trace))
    return event


def _render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    ordered = {name: event.pop(name) for name in _FIRST if name in event}
    return orjson.dumps({**ordered, **event}).decode()
