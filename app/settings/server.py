"""Where the bridge listens, who may call, how it stops, and what it logs."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, DirectoryPath, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from tidegate.url import without_password


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


class ServerSettings(BaseSettings):
    """The settings of the HTTP server and of the process."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address to listen on. One other than loopback needs authentication "
        "([authentication.md](authentication.md)), or `TIDEGATE_INSECURE=1`.",
        examples=["::1"],
    )
    port: int = Field(8080, ge=0, le=65_535, description="The TCP port; 0 for any free one.", examples=[8081])
    management_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="A second port with `/livez`, `/readyz` and `/metrics` alone; `/metrics` is then not at "
        "the first. Left out, there is none.",
        examples=[9090],
    )
    management_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address of the management port. It asks nobody who they are: it tells counts and "
        "states, and no topic ([operating.md](operating.md)).",
        examples=["0.0.0.0"],  # noqa: S104 - an example
    )
    drain_seconds: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="How long open requests and streams may take to end when the bridge stops.",
        examples=[20],
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Origins of web pages that may call the bridge, with commas between them. Left out, only "
        "its own pages may.",
        examples=["https://panel.example,https://plant.example"],
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="Host names by which the bridge may be called, with commas between them, besides "
        "addresses and `localhost`. Left out, any name will do where there is authentication or where "
        "`TIDEGATE_INSECURE` opens another address than loopback.",
        examples=["bridge.example,tidegate.plant.svc"],
    )
    insecure: bool = Field(
        False,
        description="Listen on an address other than loopback also with no authentication: whoever reaches "
        "the port may read and publish everything that the broker lets the bridge.",
        examples=["1"],
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least severe level that is logged.", examples=["debug"]
    )
    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)] = Field(
        "auto",
        description="How a line of the log looks: `json`, `console`, or `auto` for `console` on a terminal "
        "and `json` elsewhere.",
        examples=["json"],
    )
    access_log: bool = Field(
        False,
        description="Log each request when it is through: method, route, status, milliseconds, bytes and id; "
        "never its path, which holds the topic, nor its query.",
        examples=["1"],
    )
    secrets_dir: DirectoryPath | None = Field(
        None,
        description="A directory with files named like these variables, each holding a value: mounted "
        "secrets.",
        examples=["/run/secrets/tidegate"],
    )

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, separator, authority = origin.partition("://")
            if (
                scheme not in {"http", "https"}
                or not separator
                or not authority
                or set("/?#@*") & set(authority)
            ):
                raise ValueError(
                    f"{without_password(origin)!r} is no origin; write scheme and host alone, as in https://panel.example"
                )
        return origins

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if set("/:*@?# ") & set(host):
                raise ValueError(
                    f"{without_password(host)!r} is no host name; write it alone, as in bridge.example"
                )
        return hosts


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name counts only where it is ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
