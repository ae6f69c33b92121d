"""What all commands do alike: read the settings, and end with a word."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import typer
from pydantic import ValidationError

from app.diagnosis.steps import Step
from app.settings import Settings
from app.settings.errors import describe_errors

FAILED: Final = 1
WRONG_SETTINGS: Final = 2
LOOPBACK: Final = "127.0.0.1"

_WITHOUT_TLS: Final[dict[str, Any]] = {
    "broker_ca_file": None,
    "broker_certificate_file": None,
    "broker_key_file": None,
    "broker_key_passphrase": "",
}

_is_duration: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])").fullmatch
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read_settings(*, listens: bool = False, without_tls: bool = False, **options: Any) -> Settings:
    """The settings, or the end with words for each fault.

    Args:
        listens: the command serves; one that does not is asked nothing about who may reach ``TIDEGATE_HOST``.
        without_tls: leave out what the settings say of TLS to the broker, where no option says it.
        options: of the command; None where one was left out.
    """
    if not listens:
        options["host"] = LOOPBACK
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**({**_WITHOUT_TLS, **given} if without_tls else given))
    except ValidationError as error:
        fail(describe_errors(error), WRONG_SETTINGS)


def fail(text: str, status: int) -> NoReturn:
    """End with a status, and lines for people on stderr."""
    for line in text.splitlines():
        typer.echo(f"tidegate: {line}", err=True)
    raise typer.Exit(status)


def show_step(step: Step) -> None:
    """Show a step of a check when it ends."""
    word = "ok" if step.is_ok else "FAILED"
    typer.echo(f"{word:<7} {step.name:<10} {step.milliseconds:>7.1f} ms  {step.detail}")
    if step.advice:
        typer.echo(f"{'':<8}{step.advice}")


def duration(text: str) -> timedelta:
    """A duration: ``90d``, ``12h``.

    Raises:
        ValueError: it is none.
    """
    parts = _is_duration(text)
    if parts is None:
        raise ValueError(f"{text!r} is no duration; write it as in 90d, 12h or 30m")
    return timedelta(seconds=int(parts[1]) * _SECONDS[parts[2]])


def moment(text: str) -> datetime:
    """A time to come: so long from now, or a time with its zone as in ``2026-01-31T12:00:00Z``.

    Raises:
        ValueError: it is neither, or over.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    if _is_duration(text):
        try:
            return now + duration(text)
        except OverflowError:
            raise ValueError(f"{text!r} ends after the year 9999") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write 90d, 12h, or 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; write 2026-01-31T12:00:00Z")
    if found <= now:
        raise ValueError(f"{text!r} is over")
    return found.astimezone(UTC)
