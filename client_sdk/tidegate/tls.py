"""What ``tls=`` may be, and the TLS context that it stands for."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tidegate.errors import ConfigurationError, TLSError

if TYPE_CHECKING:
    from tidegate.bundles import Bundle

TLS: TypeAlias = "ssl.SSLContext | Bundle | Mapping[str, Any] | str | os.PathLike[str] | bool | None"

PASSPHRASE_VARIABLE: Final = "TIDEGATE_TLS_PASSPHRASE"  # noqa: S105 - the name of a variable

_KEYS: Final = ("ca_certs", "certfile", "keyfile", "keyfile_password", "cert_reqs", "tls_version", "ciphers")
_LONGEST_PATH: Final = 4096

logger = logging.getLogger("tidegate")


def make_context(tls: TLS, *, alpn: Sequence[str] = ()) -> ssl.SSLContext | None:
    """The context that a ``tls=`` argument stands for.

    Args:
        tls: a context, which is taken as it is; a ``Bundle``; the path of a directory, a ZIP or a file that
            holds one, opened with ``TIDEGATE_TLS_PASSPHRASE`` where it is encrypted; the text of a PEM or
            JSON bundle; True for the system's authorities; or a mapping with any of ``ca_certs``
            (authorities), ``certfile`` and ``keyfile`` (the client's certificate and key),
            ``keyfile_password``, ``cert_reqs``, ``tls_version`` and ``ciphers``. None and False: no TLS.
        alpn: protocols to offer (RFC 7301); ``["x-amzn-mqtt-ca"]`` for AWS IoT on port 443.

    Raises:
        ConfigurationError: ``tls`` is something else, a key is unknown, or a value is of no use.
        TLSError: a file cannot be used; the error names it.
    """
    if tls is None or tls is False:
        return None
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls is True:
        context = ssl.create_default_context()
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
    # Brings the cryptography library, which whoever has no TLS, or a context, need not load.
    from tidegate.bundles import Bundle  # noqa: PLC0415

    if isinstance(tls, Bundle):
        return tls.context(alpn=alpn)
    if isinstance(tls, str | os.PathLike):
        return _load(tls).context(alpn=alpn)
    if isinstance(tls, Mapping):
        return _from_mapping(tls, alpn)
    raise ConfigurationError(
        f"tls is of type {type(tls).__name__}; give True, a path, a mapping, a Bundle or an ssl.SSLContext"
    )


def _load(given: str | os.PathLike[str]) -> Bundle:
    from tidegate.bundles import load_bundle, read_bundle  # noqa: PLC0415

    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    text = os.fspath(given)
    if "-----BEGIN " in text or text.lstrip().startswith("{"):
        return read_bundle(text, name="tls", passphrase=passphrase, key_setting=PASSPHRASE_VARIABLE)
    if not text or len(text) > _LONGEST_PATH or not text.isprintable():
        raise TLSError("tls is neither a path nor PEM; give the path of a directory, a ZIP or a file")
    return load_bundle(given, passphrase=passphrase, key_setting=PASSPHRASE_VARIABLE)


def _from_mapping(tls: Mapping[str, Any], alpn: Sequence[str]) -> ssl.SSLContext:
    from tidegate.bundles import bundle_of_files  # noqa: PLC0415

    unknown = sorted(set(tls) - set(_KEYS))
    if unknown:
        raise ConfigurationError(f"tls has an unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    for name in ("ca_certs", "certfile", "keyfile"):
        if tls.get(name) is not None and not (tls[name] and isinstance(tls[name], str | os.PathLike)):
            raise ConfigurationError(f"tls has a {name} that is no path")
    if tls.get("keyfile") and not tls.get("certfile"):
        raise ConfigurationError("tls has a keyfile and no certfile; the two belong together")
    context = bundle_of_files(
        ca=tls.get("ca_certs"),
        certificate=tls.get("certfile"),
        key=tls.get("keyfile"),
        passphrase=tls.get("keyfile_password"),
        key_setting="keyfile_password",
    ).context(alpn=alpn)
    _set_version(context, tls.get("tls_version"))
    _set_verification(context, tls.get("cert_reqs"))
    if tls.get("ciphers"):
        try:
            context.set_ciphers(tls["ciphers"])
        except ssl.SSLError as error:
            raise ConfigurationError(f"tls has ciphers that OpenSSL does not know: {error}") from error
    return context


def _set_verification(context: ssl.SSLContext, wanted: ssl.VerifyMode | None) -> None:
    """Hold the context to what ``cert_reqs`` says; for a client, optional and required are the same."""
    if wanted is None or wanted in (ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL):
        return
    if wanted != ssl.CERT_NONE:
        raise ConfigurationError(f"cert_reqs={wanted!r} is not to be had; give ssl.CERT_REQUIRED")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    logger.warning(
        "TLS VERIFICATION IS OFF (cert_reqs is ssl.CERT_NONE): whoever sits between here and the broker can "
        "read and change every message, and take the password; name the broker's authority in ca_certs"
    )


def _set_version(context: ssl.SSLContext, version: ssl._SSLMethod | ssl.TLSVersion | None) -> None:
    """Hold the context to a version; the protocol constants that mean "the newest" change nothing."""
    if version is None or version in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS):
        return
    if version in (ssl.PROTOCOL_TLSv1_2, ssl.TLSVersion.TLSv1_2):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif version == ssl.TLSVersion.TLSv1_3:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    else:
        raise ConfigurationError(
            f"tls_version={version!r} is not to be had; "
            "give ssl.PROTOCOL_TLS_CLIENT, ssl.TLSVersion.TLSv1_2 or ssl.TLSVersion.TLSv1_3"
        )
