"""A bundle that was taken, checked and kept, read again as it was."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tidegate.bundles.arrangement import find_chain
from tidegate.bundles.bundle import Bundle
from tidegate.bundles.certificate import Certificate, parse_certificate
from tidegate.bundles.forms import blocks
from tidegate.bundles.parts import PrivateKey
from tidegate.errors import TLSError


def restore_bundle(content: bytes, *, name: str) -> Bundle:
    """Read what ``Bundle.dump`` wrote, from a place where nobody else writes.

    What was checked when the bundle was taken is not checked again: neither dates nor strength nor the
    arithmetic of an RSA key, which takes a quarter of a second with 4,096 bits and lets no other thread run.

    Args:
        content: the bytes.
        name: where it is kept, for the sources of its parts.

    Raises:
        TLSError: it is not what ``dump`` wrote.
    """
    try:
        document: Any = json.loads(content)
        parts = {each: str(document.get(each, "")).encode() for each in ("ca", "certificate", "private_key")}
        authorities = _certificates(parts["ca"], f"{name}!ca")
        mine = _certificates(parts["certificate"], f"{name}!certificate")
        key = _key(parts["private_key"], f"{name}!private_key") if parts["private_key"] else None
    except (ValueError, TypeError, AttributeError):
        raise TLSError(f"{name} was not kept as it was written", file=name) from None
    if (key is None) == bool(mine):
        raise TLSError(f"{name} was kept with one half of a pair", file=name)
    leaf = mine[0] if mine else None
    known = {each.fingerprint for each in authorities}
    links = [] if leaf is None else [leaf, *find_chain(leaf, [*mine[1:], *authorities])]
    return Bundle(
        place=name,
        authorities=tuple(authorities),
        certificate=leaf,
        chain=tuple(mine[1:]),
        key=key,
        reaches_authority=any(each.fingerprint in known for each in links),
    )


def _certificates(content: bytes, source: str) -> list[Certificate]:
    return [
        Certificate.describe(parse_certificate(block, is_pem=True), source=source)
        for _, block in blocks(content, source)
    ]


def _key(content: bytes, source: str) -> PrivateKey:
    key = load_pem_private_key(content, None, unsafe_skip_rsa_key_validation=True)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PrivateKey(key, source, public)
