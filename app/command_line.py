"""What the commands have in common: how they read the settings, and how they end."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import typer
from pydantic import ValidationError

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
