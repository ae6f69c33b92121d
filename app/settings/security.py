"""How callers show who they are: API keys, tokens, client certificates behind a proxy."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

ALGORITHMS: Final = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Every algorithm that tokens may be signed with (RFC 7518 §3.1, RFC 8037 §3.1)."""

_is_token: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
"""Whether a text can be the name of a header or a cookie (RFC 9110 §5.6.2)."""


def split_list(value: Any) -> Any:
    """A text with commas as a tuple of its parts."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


TextList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]


class SecuritySettings(BaseSettings):
    """The settings of authentication."""

    api_keys_file: Path | None = Field(
        None,
        description="The API keys, as `tidegate key create` writes them "
        "([authentication.md](authentication.md)). Changes count within two seconds.",
        examples=["/etc/tidegate/keys.yaml"],
    )
    jwt_key: SecretStr = Field(
        SecretStr(""),
        description="What tokens (JWT) are verified with: a public key or a certificate as PEM, or a secret "
        "of 32 bytes or more for HS256, 48 for HS384, 64 for HS512.",
        examples=["…"],
    )
    jwt_key_file: FilePath | None = Field(
        None, description="A file with that key.", examples=["/etc/tidegate/issuer.pem"]
    )
    jwt_jwks_url: str = Field(
        "",
        description="Where the issuer of tokens publishes its keys (JWKS), in place of one key: `https`, or "
        "`http` on this machine.",
        examples=["https://login.example/.well-known/jwks.json"],
    )
    jwt_algorithms: TextList = Field(
        (),
        description=f"The algorithms that are taken, out of {', '.join(ALGORITHMS)}. Left out, those that "
        "the key is good for.",
        examples=["ES256,EdDSA"],
    )
    jwt_issuer: str = Field(
        "",
        description="Who has to have issued tokens (`iss`). Left out, whoever has the key.",
        examples=["https://login.example/"],
    )
    jwt_audience: TextList = Field(
        (),
        description="Whom tokens have to be for (`aud`), one of these. Left out, tokens for an audience are "
        "refused.",
        examples=["tidegate"],
    )
    jwt_leeway_seconds: float = Field(
        10.0,
        ge=0,
        le=60,
        description="How far the issuer's clock and the bridge's may be apart.",
        examples=[30],
    )
    jwt_cookie: str = Field(
        "",
        description="The name of a cookie that an application sets, with the token in it. Left out, cookies "
        "are not looked at.",
        examples=["__Host-tidegate"],
    )
    revoked_tokens_file: Path | None = Field(
        None,
        description="Tokens that hold no more, as `tidegate token revoke` writes them. Changes count within "
        "two seconds.",
        examples=["/etc/tidegate/revoked.yaml"],
    )
    proxy_subject_header: str = Field(
        "",
        description="The header in which a proxy passes the subject of the client certificate that it "
        "verified. Left out, none is looked at.",
        examples=["X-Client-Subject"],
    )
    proxy_subject_form: Literal["auto", "subject", "envoy", "certificate"] = Field(
        "auto",
        description="What stands in it: the `subject` alone, as nginx passes it; `envoy`, elements with a "
        "`Subject`; or the `certificate` in base64, with its chain behind commas, as Traefik passes it. "
        "`auto` is what the header's name says: `X-Forwarded-Client-Cert` is Envoy's, "
        "`X-Forwarded-Tls-Client-Cert` Traefik's, and any other has the subject.",
        examples=["certificate"],
    )
    proxy_verify_header: str = Field(
        "",
        description="A header that has to say `SUCCESS` beside it, as nginx's `$ssl_client_verify` does.",
        examples=["X-Client-Verify"],
    )
    trusted_proxies: TextList = Field(
        (),
        description="The addresses from which those headers count, as addresses or networks, with commas "
        "between them.",
        examples=["10.0.0.7,10.1.0.0/16"],
    )
    subjects_file: Path | None = Field(
        None,
        description="What each subject may do. Changes count within two seconds.",
        examples=["/etc/tidegate/subjects.yaml"],
    )

    @property
    def has_tokens(self) -> bool:
        """Whether tokens are taken."""
        return bool(self.jwt_key.get_secret_value() or self.jwt_key_file or self.jwt_jwks_url)

    @property
    def has_authentication(self) -> bool:
        """Whether callers have to show who they are."""
        return bool(self.api_keys_file or self.has_tokens or self.proxy_subject_header)

    @field_validator("jwt_algorithms")
    @classmethod
    def _check_algorithms(cls, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        for each in algorithms:
            if each not in ALGORITHMS:
                raise ValueError(f"{each!r} is not taken; write some of {', '.join(ALGORITHMS)}")
        if len({each.startswith("HS") for each in algorithms}) > 1:
            raise ValueError(
                "HS256 and its like take a secret, the others a public key; with both, a public key could be "
                "taken for a secret: name one kind"
            )
        return algorithms

    @field_validator("jwt_jwks_url")
    @classmethod
    def _check_jwks_url(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("this is no URL; write it as in https://login.example/jwks.json") from None
        if "@" in parts.netloc:
            raise ValueError("a URL with a user name or a password is not taken")
        if parts.scheme == "https" and host:
            return url
        if parts.scheme == "http" and host in {"localhost", "127.0.0.1", "::1"}:
            return url
        raise ValueError("write an https URL: over http anybody on the way could put in keys of their own")

    @field_validator("jwt_cookie", "proxy_subject_header", "proxy_verify_header")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name and not _is_token(name):
            raise ValueError(f"{name!r} is no name of a header or a cookie")
        return name

    @field_validator("proxy_subject_header")
    @classmethod
    def _check_subject_header(cls, name: str) -> str:
        if name.lower() == "x-forwarded-tls-client-cert-info":
            raise ValueError(
                f"one subject could pose as another in {name}; have Traefik pass X-Forwarded-Tls-Client-Cert "
                "(passTLSClientCert with pem)"
            )
        return name

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for each in proxies:
            try:
                network = ipaddress.ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is no address and no network, as 10.1.0.0/16 is") from None
            if network.prefixlen == 0:
                raise ValueError(f"{each!r} is everybody; name the proxies")
        return proxies

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        sources = {
            "TIDEGATE_JWT_KEY": bool(self.jwt_key.get_secret_value()),
            "TIDEGATE_JWT_KEY_FILE": self.jwt_key_file is not None,
            "TIDEGATE_JWT_JWKS_URL": bool(self.jwt_jwks_url),
        }
        given = [name for name, is_given in sources.items() if is_given]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are there together; one of them verifies tokens")
        if self.jwt_jwks_url and any(each.startswith("HS") for each in self.jwt_algorithms):
            raise ValueError(
                "TIDEGATE_JWT_ALGORITHMS names HS256 or its like, which take a secret; what "
                "TIDEGATE_JWT_JWKS_URL publishes is none"
            )
        needing = {
            "TIDEGATE_JWT_ALGORITHMS": bool(self.jwt_algorithms),
            "TIDEGATE_JWT_ISSUER": bool(self.jwt_issuer),
            "TIDEGATE_JWT_AUDIENCE": bool(self.jwt_audience),
            "TIDEGATE_JWT_COOKIE": bool(self.jwt_cookie),
            "TIDEGATE_REVOKED_TOKENS_FILE": self.revoked_tokens_file is not None,
        }
        for name, is_given in needing.items():
            if is_given and not given:
                raise ValueError(f"{name} needs one of {', '.join(sources)}: without, no token is taken")
        return self

    @model_validator(mode="after")
    def _check_proxy(self) -> Self:
        parts = {
            "TIDEGATE_PROXY_SUBJECT_HEADER": bool(self.proxy_subject_header),
            "TIDEGATE_TRUSTED_PROXIES": bool(self.trusted_proxies),
            "TIDEGATE_SUBJECTS_FILE": self.subjects_file is not None,
        }
        missing = [name for name, is_given in parts.items() if not is_given]
        options = {
            "TIDEGATE_PROXY_VERIFY_HEADER": bool(self.proxy_verify_header),
            "TIDEGATE_PROXY_SUBJECT_FORM": self.proxy_subject_form != "auto",
        }
        if missing and (len(missing) < len(parts) or any(options.values())):
            given = [name for name, is_given in (parts | options).items() if is_given]
            raise ValueError(f"{' and '.join(given)} has no use without {' and '.join(missing)}")
        return self
