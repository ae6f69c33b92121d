"""Where settings come from besides arguments, and what is done with names that are none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

PREFIX: Final = "TIDEGATE_"
SDK_VARIABLES: Final = frozenset(
    {"TIDEGATE_URL", "TIDEGATE_TOKEN", "TIDEGATE_TLS", "TIDEGATE_TLS_PASSPHRASE"}
)
"""Read by the SDK and not by the bridge."""


def variable(field: str) -> str:
    """The environment variable of a field: ``TIDEGATE_PORT`` for ``port``."""
    return PREFIX + field.upper()


def unknown_names(names: Iterable[str], settings: type[BaseSettings]) -> list[str]:
    """The names that claim to be settings and are none; upper and lower case are the same."""
    known = {variable(field) for field in settings.model_fields} | SDK_VARIABLES
    return [name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known]


class UnknownNames(PydanticBaseSettingsSource):
    """Hands over what is no setting, under its own name, so that it is refused with everything else."""

    def __init__(self, settings: type[BaseSettings], names: list[str]) -> None:
        super().__init__(settings)
        self._names = names

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """No field gets its value here."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The names; their values may be secrets and stay where they are."""
        return dict.fromkeys(self._names, "")
