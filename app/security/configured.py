"""The ways to show who one is, as the settings name them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from app.security.authentication import Authentication, Method, Part
from app.settings import Settings
from app.settings.security import ALGORITHMS
from tidegate.errors import ConfigurationError

if TYPE_CHECKING:
    from app.security.verification_keys import VerificationKey


def authentication_of(settings: Settings) -> Authentication:
    """All ways that are configured; none where none is. What they need is imported only then.

    Raises:
        ConfigurationError: a file or a key cannot be used.
    """
    methods: list[Method] = []
    parts: list[Part] = []
    if settings.api_keys_file is not None:
        _add_api_keys(settings.api_keys_file, methods, parts)
    if settings.has_tokens:
        _add_tokens(settings, methods, parts)
    if settings.proxy_subject_header and settings.subjects_file is not None:
        _add_certificates(settings, settings.subjects_file, methods, parts)
    return Authentication(methods, parts)


def _add_api_keys(file: Path, methods: list[Method], parts: list[Part]) -> None:
    from app.security.api_keys import ApiKeys, watched_keys  # noqa: PLC0415 - not every bridge needs it

    keys = watched_keys(file)
    methods.append(ApiKeys(keys))
    parts.append(keys)


def _add_tokens(settings: Settings, methods: list[Method], parts: list[Part]) -> None:
    from app.security.revoked_tokens import watched_revocations  # noqa: PLC0415 - as above
    from app.security.tokens import Tokens  # noqa: PLC0415
    from app.security.verification_keys import KeySource, StaticKey  # noqa: PLC0415

    keys: KeySource
    if settings.jwt_jwks_url:
        from app.security.jwks import Jwks  # noqa: PLC0415

        wanted = settings.jwt_algorithms or tuple(each for each in ALGORITHMS if not each.startswith("HS"))
        jwks = Jwks(settings.jwt_jwks_url, frozenset(wanted))
        keys = jwks
        parts.append(jwks)
    else:
        keys = StaticKey(verification_key_of(settings))
    revoked = None
    if settings.revoked_tokens_file is not None:
        revoked = watched_revocations(settings.revoked_tokens_file)
        parts.append(revoked)
    methods.append(
        Tokens(
            keys,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway_seconds=settings.jwt_leeway_seconds,
            cookie=settings.jwt_cookie,
            revoked=revoked,
        )
    )


def _add_certificates(settings: Settings, file: Path, methods: list[Method], parts: list[Part]) -> None:
    from app.security.client_certificate import ClientCertificates  # noqa: PLC0415 - as above
    from app.security.subject_forms import form_of  # noqa: PLC0415
    from app.security.subjects import watched_subjects  # noqa: PLC0415

    subjects = watched_subjects(file)
    parts.append(subjects)
    methods.append(
        ClientCertificates(
            subjects,
            header=settings.proxy_subject_header,
            proxies=[ipaddress.ip_network(each) for each in settings.trusted_proxies],
            verify_header=settings.proxy_verify_header,
            form=form_of(settings.proxy_subject_form, settings.proxy_subject_header),
        )
    )


def verification_key_of(settings: Settings) -> VerificationKey:
    """The one key that tokens are verified with.

    Raises:
        ConfigurationError: the key cannot be used.
    """
    from app.security.verification_keys import read_key  # noqa: PLC0415 - as above

    text, name = settings.jwt_key.get_secret_value(), "TIDEGATE_JWT_KEY"
    if settings.jwt_key_file is not None:
        name = f"TIDEGATE_JWT_KEY_FILE={str(settings.jwt_key_file)!r}"
        try:
            text = settings.jwt_key_file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name} is no text: write a secret as base64 or hex") from error
    return read_key(text, settings.jwt_algorithms, name=name)
