"""Where the broker is, and how it is spoken to."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, Self

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from app.settings.sources import variable
from tidegate.bundles import Bundle, bundle_of_files
from tidegate.connection import ConnectOptions, ProfileChoice, ProtocolVersion
from tidegate.errors import ConfigurationError
from tidegate.profiles import check_client_id
from tidegate.url import parse_url

_PROTOCOLS: Final[dict[str, ProtocolVersion | None]] = {"auto": None, "5": 5, "3.1.1": 4}


_SCHEMES: Final = ("mqtt://", "mqtts://", "ws://", "wss://")


def check_broker_url(url: str) -> None:
    """Check the URL of a broker.

    Raises:
        ConfigurationError: it cannot be used; the text never repeats its password.
    """
    scheme, separator, _ = url.partition("://")
    if not separator and "@" not in url:
        allowed = ", ".join(_SCHEMES)
        raise ConfigurationError(f"the URL {url!r} begins with none of {allowed}; did you mean mqtt://{url}?")
    if (scheme + separator).lower() not in (*_SCHEMES, "http://", "https://"):
        begins = f" begins with {scheme + separator!r}, and" if separator else ""
        raise ConfigurationError(f"the URL{begins} must begin with one of {', '.join(_SCHEMES)}")
    if parse_url(url).kind != "mqtt":
        raise ConfigurationError("this is the URL of a bridge; a broker's begins with mqtt, mqtts, ws or wss")


class BrokerSettings(BaseSettings):
    """The settings that begin with ``TIDEGATE_BROKER_``."""

    broker_url: SecretStr = Field(
        SecretStr("mqtt://localhost:1883"),
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

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: SecretStr) -> SecretStr:
        check_broker_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _check_broker(self) -> Self:
        options = parse_url(self.broker_url.get_secret_value()).connect_options
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

    def connect_options(self, bundle: Bundle | None = None) -> ConnectOptions:
        """How to reach the broker: its URL, and the settings that win over it.

        Args:
            bundle: what ``broker_bundle`` gave, where it was asked for before.

        Raises:
            TLSError: a certificate or key file cannot be used.
        """
        options = parse_url(self.broker_url.get_secret_value()).connect_options
        bundle = bundle or self.broker_bundle()
        given = self.model_fields_set
        return replace(
            options,
            tls=None if bundle is None else bundle.context(),
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

    def broker_bundle(self) -> Bundle | None:
        """What the files hold; None for a broker without TLS.

        A certificate that is out of its dates is warned about and used: the broker decides.

        Raises:
            TLSError: a file cannot be used.
        """
        if parse_url(self.broker_url.get_secret_value()).connect_options.tls is None:
            return None
        return bundle_of_files(
            ca=self.broker_ca_file,
            certificate=self.broker_certificate_file,
            key=self.broker_key_file,
            passphrase=self.broker_key_passphrase.get_secret_value(),
            key_setting=variable("broker_key_passphrase"),
            validity="warn",
        )
