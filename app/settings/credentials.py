"""Where TLS credentials are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, DirectoryPath, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.hosts import as_host, as_network


def _split_list(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


class CredentialSettings(BaseSettings):
    """The settings that begin with ``TIDEGATE_CREDENTIALS_``."""

    credentials_dir: Path | None = Field(
        None,
        description="Where TLS credentials are kept, each in an encrypted file; replicas may share it. It is "
        "made where there is none. Needs `TIDEGATE_CREDENTIALS_KEY`.",
        examples=["/var/lib/tidegate/credentials"],
    )
    credentials_key: SecretStr = Field(
        SecretStr(""),
        description="The key that those are encrypted with, as `tidegate credentials key` makes one. Several "
        "with commas between them: the first encrypts, all decrypt, until `tidegate credentials rekey` has "
        "made the others needless.",
        examples=["…"],
    )
    credentials_mount: DirectoryPath | None = Field(
        None,
        description="In place of both, a mounted Secret of Kubernetes with one credential: `tls.crt`, "
        "`tls.key` and `ca.crt`, or files of any names. It is read again when it is renewed.",
        examples=["/run/secrets/broker-tls"],
    )
    credentials_passphrase: SecretStr = Field(
        SecretStr(""), description="What opens an encrypted key in it.", examples=["…"]
    )

    credentials_test_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)] = Field(
        (),
        description="Brokers, besides the configured one, that a caller may have a credential tried at, with "
        "commas between them: names, with or without a port. An address of a private network, or of this "
        "machine, is connected to only where it is listed too, itself or as a network.",
        examples=["broker.example,broker.plant:8884,10.20.0.0/16"],
    )

    @field_validator("credentials_test_hosts")
    @classmethod
    def _check_credentials_test_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for each in hosts:
            if as_network(each) is None:
                as_host(each)
        return hosts

    @field_validator("credentials_key")
    @classmethod
    def _check_credentials_key(cls, keys: SecretStr) -> SecretStr:
        if not keys.get_secret_value():
            return keys
        from cryptography.fernet import Fernet  # noqa: PLC0415 - not every bridge needs it

        parts = _split(keys)
        if not parts:
            raise ValueError("there is no key in it; 'tidegate credentials key' makes one")
        for number, key in enumerate(parts, start=1):
            try:
                Fernet(key)
            except ValueError:
                raise ValueError(
                    f"its {_ordinal(number)} part is no Fernet key; 'tidegate credentials key' makes one"
                ) from None
        return keys

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        has_key = bool(self.credentials_key.get_secret_value())
        if self.credentials_dir is not None and self.credentials_mount is not None:
            raise ValueError(
                "TIDEGATE_CREDENTIALS_DIR and TIDEGATE_CREDENTIALS_MOUNT exclude each other: credentials are "
                "kept by the bridge, or come from a Secret"
            )
        if self.credentials_dir is not None and not has_key:
            raise ValueError(
                "TIDEGATE_CREDENTIALS_DIR needs TIDEGATE_CREDENTIALS_KEY; "
                "'tidegate credentials key' makes one"
            )
        if self.credentials_dir is None and has_key:
            raise ValueError("TIDEGATE_CREDENTIALS_KEY needs TIDEGATE_CREDENTIALS_DIR")
        if self.credentials_mount is None and self.credentials_passphrase.get_secret_value():
            raise ValueError("TIDEGATE_CREDENTIALS_PASSPHRASE needs TIDEGATE_CREDENTIALS_MOUNT")
        return self

    def credentials_keys(self) -> tuple[str, ...]:
        """The keys, the newest first."""
        return tuple(_split(self.credentials_key))


def _split(keys: SecretStr) -> list[str]:
    return [key.strip() for key in keys.get_secret_value().split(",") if key.strip()]


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
