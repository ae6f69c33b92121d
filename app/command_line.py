"""What the commands have in common: how they read the settings, and how they end."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import typer
from pydantic import ValidationError

from app.diagnosis.steps import Step
from app.settings import Settings
from app.settings.errors import describe_errors

FAILED: Final = 1
WRONG_SETTINGS: Final = 2


def read_settings(**options: Any) -> Settings:
    """The settings, over which options win that are not None; ends the command where they cannot be used."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        fail(describe_errors(error), WRONG_SETTINGS)


def fail(text: str, status: int) -> NoReturn:
    """End the command with a status, and say why."""
    for line in text.splitlines():
        typer.echo(f"tidegate: {line}", err=True)
    raise typer.Exit(status)


def show_step(step: Step) -> None:
    """Show a step of a check when it ends."""
    word = "ok" if step.is_ok else "FAILED"
    typer.echo(f"{word:<7} {step.name:<10} {step.milliseconds:>7.1f} ms  {step.detail}")
    if step.advice:
        typer.echo(f"{'':<8}{step.advice}")
