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

import ipaddress
import os
import re
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    DirectoryPath,
    Field,
    FilePath,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from app.settings_sources import PREFIX, UnknownNames, unknown_names, variable
from tidegate.bundles import bundle_of_files
from tidegate.connection import ConnectOptions, ProfileChoice, ProtocolVersion
from tidegate.profiles import check_client_id
from tidegate.topics import validate_topic
from tidegate.url import parse_url

_PROTOCOLS: Final[dict[str, ProtocolVersion | None]] = {"auto": None, "5": 5, "3.1.1": 4}


_is_uri_reference: Final = re.compile(r"[!#-;=?-\[\]_a-z~]+").fullmatch
"""Whether a text has the characters of one alone (RFC 3986 §2)."""


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _plain_topic(value: str) -> str:
    validate_topic(value)
    if value.startswith("$"):
        raise ValueError("a topic that begins with $ belongs to the broker")
    return value


class Settings(BaseSettings):
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

    broker_url: str = Field(
        "mqtt://localhost:1883",
        repr=False,
        description="Where the broker is: `mqtt://`, `mqtts://` (TLS), `ws://` or `wss://`. May hold "
        "`user:password@` and the parameters `client_id`, `keepalive` and `protocol`; a setting of its own "
        "wins over each.",
        examples=["mqtts://broker.example:8883"],
    )
    broker_client_id: str = Field(
        "",
        max_length=23_000,
        description="The client identifier (MQTT 5 §3.1.3.1). Left out, one is made up at each start.",
        examples=["tidegate-plant-7"],
    )
    broker_username: str = Field("", description="The user name for the broker.", examples=["tidegate"])
    broker_password: SecretStr = Field(
        SecretStr(""), description="The password for the broker; needs a user name.", examples=["…"]
    )
    broker_ca_file: FilePath | None = Field(
        None,
        description="Certificate authorities that may vouch for the broker, as PEM. Left out, those of the "
        "system.",
        examples=["/run/secrets/broker/ca.crt"],
    )
    broker_certificate_file: FilePath | None = Field(
        None,
        description="The client certificate that the broker is shown, with its chain, as PEM, DER or "
        "PKCS#12.",
        examples=["/run/secrets/broker/tls.crt"],
    )
    broker_key_file: FilePath | None = Field(
        None,
        description="The client certificate's key, as PEM or DER. Left out, it is read from the certificate "
        "file.",
        examples=["/run/secrets/broker/tls.key"],
    )
    broker_key_passphrase: SecretStr = Field(
        SecretStr(""), description="What opens that key, where it is encrypted.", examples=["…"]
    )
    broker_keepalive_seconds: int = Field(
        15,
        ge=1,
        le=65_535,
        description="The Keep Alive of CONNECT (MQTT 5 §3.1.2.10). A broker that is silent for longer counts "
        "as lost.",
        examples=[30],
    )
    broker_protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto",
        description="The version of MQTT. `auto` tries 5 first, and 3.1.1 where the broker has no 5.",
        examples=["3.1.1"],
    )
    broker_profile: ProfileChoice = Field(
        "auto",
        description="The kind of broker, whose limits are kept to before anything is sent: `aws-iot` for AWS "
        "IoT Core, `generic` for any other. `auto` tells it from the host name and from what the broker "
        "says; set it where AWS IoT stands behind a name of your own.",
        examples=["aws-iot"],
    )
    broker_session_expiry_seconds: int = Field(
        0,
        ge=0,
        le=4_294_967_295,
        description="How long the broker keeps the bridge's session while the connection is lost (MQTT 5 "
        "§3.1.2.11.2): messages of QoS 1 and 2 that come meanwhile are delivered afterwards, with no gap in "
        "streams. Needs `TIDEGATE_BROKER_CLIENT_ID`. With 0 the session ends with the connection.",
        examples=[300],
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address to listen on. One other than loopback needs `TIDEGATE_INSECURE=1` as long "
        "as the bridge has no authentication.",
        examples=["::1"],
    )
    port: int = Field(8080, ge=0, le=65_535, description="The TCP port; 0 for any free one.", examples=[8081])
    max_body_bytes: int = Field(
        1_048_576,
        ge=1,
        le=268_435_455,
        description="The largest request body; a larger one is answered with 413.",
        examples=[131_072],
    )
    body_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="How long a request body may take to arrive.", examples=[10]
    )
    publish_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long a publish may wait for the broker and its acknowledgement together.",
        examples=[5],
    )
    max_in_flight: int = Field(
        1000,
        ge=1,
        le=65_535,
        description="Messages of QoS 1 and 2 that are sent and not acknowledged. The broker's Receive "
        "Maximum (MQTT 5 §3.2.2.3.3) bounds it too.",
        examples=[100],
    )
    max_waiting: int = Field(
        10_000,
        ge=1,
        description="Messages that wait for the broker; one more is answered with 503.",
        examples=[1000],
    )
    idempotency_window_seconds: float = Field(
        3600.0,
        gt=0,
        le=604_800,
        description="How long the answer to a request with an `Idempotency-Key` is kept for the same request "
        "made again.",
        examples=[86_400],
    )
    idempotency_max_keys: int = Field(
        50_000,
        ge=1,
        description="Idempotency keys kept in memory; the oldest whose request has ended goes first. With "
        "`TIDEGATE_REDIS_URL` they are kept there, within its own bounds.",
        examples=[500_000],
    )
    idempotency_max_bytes: int = Field(
        64 * 1_048_576,
        ge=65_536,
        description="About the memory that those may take, with their answers.",
        examples=[268_435_456],
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        description="Redis or Valkey, shared by all replicas that serve one audience: `redis://` or "
        "`rediss://` (TLS), with `user:password@` where it asks for one. Idempotency keys are kept there. "
        "Left out, each replica keeps its own in memory.",
        examples=["rediss://tidegate:…@redis.example:6379/0"],
    )
    heartbeat_seconds: float = Field(
        15.0,
        gt=0,
        le=3600,
        description="Silence after which a stream sends a comment, so that no proxy closes it.",
        examples=[5],
    )
    listener_max_messages: int = Field(
        1000, ge=1, description="Messages that wait for one slow reader of a stream.", examples=[100]
    )
    listener_max_bytes: int = Field(
        8 * 1_048_576, ge=1, description="The bytes of those messages, all together.", examples=[1_048_576]
    )
    streams_max_bytes: int = Field(
        256 * 1_048_576,
        ge=1,
        description="The bytes that wait for the readers of all streams together; a message that many wait "
        "for is counted once. Beyond it, the streams that hold most end with the reason `server_limit`.",
        examples=[67_108_864],
    )
    stream_send_timeout_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="How long a reader may read nothing before its stream ends.",
        examples=[10],
    )
    stream_lifetime_seconds: float | None = Field(
        None,
        gt=0,
        description="How long a stream may last; it then ends with the reason `lifetime`, and its client "
        "comes back, to another replica maybe. Left out, there is no bound.",
        examples=[3600],
    )
    max_filters_per_stream: int = Field(
        1000, ge=1, description="Topic filters that one stream may name.", examples=[10]
    )
    max_streams: int = Field(10_000, ge=1, description="Streams that may be open at once.", examples=[500])
    journal_max_messages: int = Field(
        100_000,
        ge=0,
        description="Messages kept for clients that come back with their last event id; 0 keeps none.",
        examples=[10_000],
    )
    journal_max_bytes: int = Field(
        64 * 1_048_576, ge=0, description="About the memory that those may take.", examples=[268_435_456]
    )
    journal_max_age_seconds: float = Field(
        300.0, gt=0, le=86_400, description="How long they are kept.", examples=[60]
    )
    journal_grace_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="How long a filter is followed on after its last stream ended, so that a client that "
        "comes back has missed nothing; 0 drops it at once.",
        examples=[10],
    )
    schemas_file: FilePath | None = Field(
        None,
        description="Which JSON Schemas payloads have to match, by topic filter, as YAML or JSON "
        "([schemas.md](schemas.md)). Left out, no payload is looked at.",
        examples=["/etc/tidegate/schemas.yaml"],
    )
    cloudevents_source: str = Field(
        "/mqtt",
        min_length=1,
        description="The `source` of CloudEvents that are made of other messages, a URI or a part of one "
        "([cloudevents.md](cloudevents.md)).",
        examples=["https://plant.example/mqtt"],
    )
    retained_timeout_seconds: float = Field(
        5.0, gt=0, le=3600, description="How long reading retained messages may take.", examples=[2]
    )
    max_retained_messages: int = Field(
        10_000, ge=1, description="Retained messages that one answer may hold.", examples=[500]
    )
    reply_topic_prefix: Annotated[str, AfterValidator(_plain_topic)] = Field(
        "tidegate/replies",
        max_length=1000,
        description="What the topics begin with on which replies to requests come. Behind it stand an "
        "identifier of this run of the bridge and one of the request, so that bridges may share it.",
        examples=["plant-7/replies"],
    )
    request_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=86_400,
        description="How long a request waits for its reply where it does not say so.",
        examples=[5],
    )
    max_request_timeout_seconds: float = Field(
        120.0, gt=0, le=86_400, description="How long a request may ask to wait.", examples=[30]
    )
    max_waiting_requests: int = Field(
        10_000,
        ge=1,
        description="Requests that wait for replies; one more is answered with 503.",
        examples=[1000],
    )
    max_replies: int = Field(
        1000, ge=2, description="Replies that one request may ask to gather.", examples=[100]
    )
    max_requests_per_reply_topic: int = Field(
        100,
        ge=0,
        description="Requests that wait for their turn at one fixed reply topic; one more is answered with "
        "503.",
        examples=[10],
    )
    reply_topic_settle_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How long a fixed reply topic is left alone after a request that got no reply, so that a "
        "late one is not taken for the answer to the next request.",
        examples=[30],
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
    insecure: bool = Field(
        False,
        description="Listen on an address other than loopback, with no authentication: whoever reaches the "
        "port may read and publish everything that the broker lets the bridge.",
        examples=["1"],
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least severe level that is logged.", examples=["debug"]
    )
    secrets_dir: DirectoryPath | None = Field(
        None,
        description="A directory with files named like these variables, each holding a value: mounted "
        "secrets.",
        examples=["/run/secrets/tidegate"],
    )

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

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: str) -> str:
        if parse_url(url).kind != "mqtt":
            raise ValueError("this is the URL of a bridge; a broker's begins with mqtt, mqtts, ws or wss")
        return url

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not _is_redis_url(url.get_secret_value()):
            raise ValueError(
                "this is no URL of a Redis or Valkey server; write it as in redis://redis.example:6379/0"
            )
        return url

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
                    f"{origin!r} is no origin; write scheme and host alone, as in https://panel.example"
                )
        return origins

    @field_validator("cloudevents_source")
    @classmethod
    def _check_source(cls, source: str) -> str:
        if not _is_uri_reference(source):
            raise ValueError(f"{source!r} is no URI, nor a part of one; percent-encode what is not ASCII")
        return source

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not (self.insecure or is_loopback(self.host)):
            raise ValueError(
                f"TIDEGATE_HOST={self.host!r} is not loopback, and this version has no authentication: "
                "whoever reaches the port could read and publish everything; listen on 127.0.0.1 behind a "
                "proxy that authenticates, or set TIDEGATE_INSECURE=1"
            )
        if self.request_timeout_seconds > self.max_request_timeout_seconds:
            raise ValueError(
                "TIDEGATE_REQUEST_TIMEOUT_SECONDS is longer than TIDEGATE_MAX_REQUEST_TIMEOUT_SECONDS"
            )
        options = parse_url(self.broker_url).connect_options
        tls = ("broker_ca_file", "broker_certificate_file", "broker_key_file")
        for name in tls:
            if getattr(self, name) is not None and options.tls is None:
                raise ValueError(
                    f"{variable(name)} has no use without TLS; begin TIDEGATE_BROKER_URL with mqtts or wss"
                )
        if self.broker_key_file is not None and self.broker_certificate_file is None:
            raise ValueError("TIDEGATE_BROKER_KEY_FILE needs TIDEGATE_BROKER_CERTIFICATE_FILE")
        if self.broker_key_passphrase.get_secret_value() and self.broker_certificate_file is None:
            raise ValueError("TIDEGATE_BROKER_KEY_PASSPHRASE needs TIDEGATE_BROKER_CERTIFICATE_FILE")
        if self.broker_session_expiry_seconds and not (self.broker_client_id or options.client_id):
            raise ValueError(
                "TIDEGATE_BROKER_SESSION_EXPIRY_SECONDS needs TIDEGATE_BROKER_CLIENT_ID: a session is kept "
                "under the client's name"
            )
        if self.broker_password.get_secret_value() and not (self.broker_username or options.username):
            raise ValueError("TIDEGATE_BROKER_PASSWORD needs TIDEGATE_BROKER_USERNAME")
        check_client_id(self.broker_client_id or options.client_id, options.host, self.broker_profile)
        return self

    def connect_options(self) -> ConnectOptions:
        """How to reach the broker: its URL, and the settings that win over it.

        Raises:
            TLSError: a certificate or key file cannot be used.
        """
        options = parse_url(self.broker_url).connect_options
        given = self.model_fields_set
        return replace(
            options,
            tls=None if options.tls is None else self._tls(),
            client_id=self.broker_client_id or options.client_id,
            session_expiry_seconds=self.broker_session_expiry_seconds,
            profile=self.broker_profile,
            username=self.broker_username or options.username,
            password=self.broker_password.get_secret_value() or options.password,
            keepalive_seconds=(
                self.broker_keepalive_seconds
                if "broker_keepalive_seconds" in given
                else options.keepalive_seconds
            ),
            protocol_version=(
                _PROTOCOLS[self.broker_protocol] if "broker_protocol" in given else options.protocol_version
            ),
        )

    def _tls(self) -> ssl.SSLContext:
        """A certificate that is out of its dates is warned about and used: the broker decides."""
        return bundle_of_files(
            ca=self.broker_ca_file,
            certificate=self.broker_certificate_file,
            key=self.broker_key_file,
            passphrase=self.broker_key_passphrase.get_secret_value(),
            key_setting=variable("broker_key_passphrase"),
            validity="warn",
        ).context()


def _is_redis_url(url: str) -> bool:
    from redis.asyncio import Redis  # noqa: PLC0415 - not every bridge needs it

    try:
        parts = urlsplit(url)
        pool = Redis.from_url(url).connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError):  # which may name a part of the URL
        return False
    return parts.scheme in {"redis", "rediss"} and bool(parts.hostname)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name counts only where it is ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
