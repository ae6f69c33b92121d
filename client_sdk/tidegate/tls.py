"""TLS contexts from files on disk, with errors that name the file and the cause."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tidegate.errors import ConfigurationError, TLSError

_KEYS: Final = ("ca_certs", "certfile", "keyfile", "keyfile_password", "cert_reqs", "tls_version", "ciphers")


def make_context(tls: ssl.SSLContext | Mapping[str, Any] | bool | None) -> ssl.SSLContext | None:
    """The context that a ``tls=`` argument stands for.

    Args:
        tls: a context; True for the system's authorities; or a mapping with any of ``ca_certs``
            (authorities), ``certfile`` and ``keyfile`` (the client's certificate and key),
            ``keyfile_password``, ``cert_reqs``, ``tls_version`` and ``ciphers``. None and False mean no TLS.

    Raises:
        ConfigurationError: a key is unknown, or asks for what is not safe.
        TLSError: a file cannot be used; the error names it.
    """
    if tls is None or tls is False:
        return None
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls is True:
        return ssl.create_default_context()
    unknown = sorted(set(tls) - set(_KEYS))
    if unknown:
        raise ConfigurationError(f"tls has an unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    if tls.get("cert_reqs", ssl.CERT_REQUIRED) != ssl.CERT_REQUIRED:
        raise ConfigurationError(
            "cert_reqs must be ssl.CERT_REQUIRED; for anything less give an ssl.SSLContext"
        )
    context = _trusting(tls.get("ca_certs"))
    _set_version(context, tls.get("tls_version"))
    if tls.get("certfile"):
        _load_pair(context, tls["certfile"], tls.get("keyfile"), tls.get("keyfile_password"))
    elif tls.get("keyfile"):
        raise ConfigurationError("tls has a keyfile and no certfile; the two belong together")
    if tls.get("ciphers"):
        try:
            context.set_ciphers(tls["ciphers"])
        except ssl.SSLError as error:
            raise ConfigurationError(f"tls has ciphers that OpenSSL does not know: {error}") from error
    return context


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


def _trusting(ca_file: str | Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    _require_file(ca_file, "the file of certificate authorities")
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise TLSError(
            f"{ca_file} holds no certificate authority in PEM form: {error}", file=str(ca_file)
        ) from error


def _load_pair(
    context: ssl.SSLContext, certificate: str | Path, key: str | Path | None, password: str | bytes | None
) -> None:
    _require_file(certificate, "the client certificate")
    if key is not None:
        _require_file(key, "the client key")
    asked = False

    def answer() -> str | bytes:
        nonlocal asked
        asked = True
        return password or b""  # never let OpenSSL ask at a terminal

    file = str(key or certificate)
    try:
        context.load_cert_chain(certificate, key, password=answer)
    except ValueError as error:  # a password longer than OpenSSL takes
        raise TLSError(f"the keyfile_password does not open the key in {file}: {error}", file=file) from error
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # or another kind
            raise TLSError(
                f"the key in {file} does not belong to the certificate in {certificate}", file=file
            ) from error
        if asked and not password:
            raise TLSError(f"the key in {file} is encrypted; give its keyfile_password", file=file) from error
        if asked:
            raise TLSError(f"the keyfile_password does not open the key in {file}", file=file) from error
        raise TLSError(
            f"{certificate} and {file} are no certificate and key in PEM form: {error}", file=file
        ) from error


def _require_file(path: str | Path, what: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise TLSError(f"{what} {str(path)!r} cannot be read: {error.strerror}", file=str(path)) from error
