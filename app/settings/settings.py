"""Everything that can be set, in one class, and what is said about a value that cannot be used.

Rules:

1. A field ``port`` is the environment variable ``TIDEGATE_PORT``, or a file of that name in the directory
   that ``TIDEGATE_SECRETS_DIR`` names. An argument wins over the variable, the variable over the file.
2. An empty variable counts as one that is not there.
3. A name that begins with ``TIDEGATE_`` and is no setting is refused: a slip of the pen is not silence.
4. A secret appears in no ``repr``, no log and no error text.

docs/configuration.md is made from this class.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from app.settings.audit import AuditSettings
from app.settings.broker import BrokerSettings
from app.settings.credentials import CredentialSettings
from app.settings.limits import LimitSettings
from app.settings.publishing import PublishingSettings
from app.settings.security import SecuritySettings
from app.settings.server import ServerSettings, is_loopback
from app.settings.sources import PREFIX, UnknownNames, unknown_names
from app.settings.streams import StreamSettings


class Settings(
    AuditSettings,
    ServerSettings,
    LimitSettings,
    SecuritySettings,
    StreamSettings,
    PublishingSettings,
    CredentialSettings,
    BrokerSettings,
):
    """The bridge's settings; made once, at the start, and never changed.

    Raises:
        ValidationError: a value cannot be used; ``describe_errors`` puts it into words.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        if not (self.insecure or self.has_authentication or is_loopback(self.host)):
            raise ValueError(
                f"TIDEGATE_HOST={self.host!r} is not loopback, and there is no authentication: whoever "
                "reaches the port could read and publish everything; make an API key "
                "(docs/authentication.md), listen "
                "on 127.0.0.1 behind a proxy that authenticates, or set TIDEGATE_INSECURE=1"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library names the arguments
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, secret files, and last whatever nobody knows."""
        named = init_settings().get("secrets_dir") or env_settings().get("secrets_dir")
        sources = [init_settings, env_settings]
        unknown = unknown_names(os.environ, settings_cls)
        if named is not None and Path(named).is_dir():
            sources.append(SecretsSettingsSource(settings_cls, named))
            unknown += unknown_names((file.name for file in Path(named).iterdir()), settings_cls)
        return (*sources, UnknownNames(settings_cls, unknown))
