"""Authorities, devices and a broker of one make-believe plant, and what tests ask of their bundles."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.issued import Issued, issue
from tidegate import TLSError
from tidegate.bundles import Bundle, load_bundle, read_bundle

ROOT = issue("Plant Root", is_authority=True)
INTERMEDIATE = issue("Plant Issuer", ROOT, is_authority=True)
DEVICE = issue("device-7", INTERMEDIATE)
DIRECT = issue("device-8", ROOT)
OTHER_ROOT = issue("Cloud Root", is_authority=True)
SERVER = issue("broker", INTERMEDIATE, names=(x509.DNSName("broker.example"),))


def subjects(bundle: Bundle) -> tuple[str, list[str], list[str]]:
    """The client's certificate, its chain and the authorities, by common name."""
    mine = "" if bundle.certificate is None else bundle.certificate.subject
    named = [[each.subject for each in part] for part in (bundle.chain, bundle.authorities)]
    return mine, named[0], named[1]


def write(directory: Path, **files: bytes) -> Path:
    """Write files; two underscores in a name stand for a dot."""
    directory.mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_bytes(content)
    return directory


def refusal(content: bytes | str | Path, **options: Any) -> TLSError:
    """The error that a bundle ends in."""
    with pytest.raises(TLSError) as caught:
        _ = (
            load_bundle(content, **options)
            if isinstance(content, Path)
            else read_bundle(content, name="upload", **options)
        )
    assert str(caught.value.file) in str(caught.value)
    return caught.value


def shake_hands(client: ssl.SSLContext, server: Issued, *chain: Issued, trusts: Issued | None = None) -> Any:
    """Make a TLS handshake in memory; returns the client's certificate as the server saw it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join((server.key(), server.pem, *(each.pem for each in chain))))
        file.flush()
        context.load_cert_chain(file.name)
    if trusts is not None:
        context.load_verify_locations(cadata=trusts.der)
        context.verify_mode = ssl.CERT_REQUIRED
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(one, two, server_hostname="broker.example"),
        context.wrap_bio(two, one, server_side=True),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert()
