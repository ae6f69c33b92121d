"""From whatever form to a checked bundle: the one way in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tidegate.bundles.arrangement import find_authorities, find_chain, find_pair
from tidegate.bundles.bundle import Bundle
from tidegate.bundles.checks import Validity, check_authorities, check_client, require_authorities
from tidegate.bundles.containers import (
    ARCHIVE_BYTES,
    PART_BYTES,
    is_zip,
    read_directory,
    read_file,
    read_zip,
)
from tidegate.bundles.parts import Parts, Passphrase, read_members
from tidegate.errors import TLSError

AnyPath = str | os.PathLike[str]
Secret = str | bytes | None
_Given = tuple[str, bytes]


def load_bundle(
    path: AnyPath,
    *,
    passphrase: Secret = None,
    key_setting: str = "passphrase",
    validity: Validity = "refuse",
) -> Bundle:
    """Take a bundle from a directory, a ZIP, or one file in PEM, PKCS#12, DER or JSON.

    Args:
        path: where it is. Of a directory, the files right in it are looked at.
        passphrase: what opens an encrypted key.
        key_setting: what an error's text calls the passphrase.
        validity: ``"warn"`` takes a certificate that has expired or is not valid yet, with a line in the log.

    Raises:
        TLSError: it cannot be used; the text says why, and ``file`` which file is at fault.
    """
    place = Path(path)
    opener = _opener(passphrase, key_setting)
    if not place.is_dir():
        content = read_file(place, "the TLS bundle", limit=ARCHIVE_BYTES)
        return _of_content(content, str(place), opener, validity)
    parts = Parts()
    for name, part in read_directory(place):
        if part is None or is_zip(part):
            parts.ignored.append(name)
        else:
            parts.read(part, name, opener)
    return _recognised(parts, str(place), validity)


def read_bundle(
    content: str | bytes,
    *,
    name: str = "the bundle",
    passphrase: Secret = None,
    key_setting: str = "passphrase",
    validity: Validity = "refuse",
) -> Bundle:
    """Take a bundle from the bytes of a ZIP, or of a file in PEM, PKCS#12, DER or JSON.

    JSON has the members ``ca``, ``certificate``, ``private_key`` and ``passphrase``, which then are what they
    are called; or it is any document with PEM in it, as the command line of a cloud gives it.

    Args:
        content: the bytes, or text.
        name: what an error's text calls them, such as the name of an uploaded file.
        passphrase: what opens an encrypted key.
        key_setting: what an error's text calls the passphrase.
        validity: as for ``load_bundle``.

    Raises:
        TLSError: it cannot be used.
    """
    opener = _opener(passphrase, key_setting)
    return _of_content(_encoded(content), name, opener, validity)


def bundle_of_files(
    *,
    ca: AnyPath | None = None,
    certificate: AnyPath | None = None,
    key: AnyPath | None = None,
    passphrase: Secret = None,
    key_setting: str = "passphrase",
    validity: Validity = "refuse",
) -> Bundle:
    """Take a bundle from files whose parts are told by whoever calls, each in PEM, DER or PKCS#12.

    Args:
        ca: the authorities; those of the system where it is left out.
        certificate: the client's certificate, with its chain.
        key: its key; read from the certificate's file where it is left out.
        passphrase: what opens an encrypted key.
        key_setting: what an error's text calls the passphrase.
        validity: as for ``load_bundle``.

    Raises:
        TLSError: it cannot be used.
    """
    given = {"certificate authorities": ca, "client certificate": certificate, "client key": key}
    read = {
        what: (str(path), read_file(Path(path), f"the file of the {what}"))
        for what, path in given.items()
        if path is not None
    }
    opener = _opener(passphrase, key_setting)
    return _told_apart(*(read.get(what) for what in given), opener=opener, validity=validity)


def bundle_of_parts(
    *,
    ca: str | bytes | None = None,
    certificate: str | bytes | None = None,
    private_key: str | bytes | None = None,
    passphrase: Secret = None,
    validity: Validity = "refuse",
) -> Bundle:
    """Take a bundle from parts in memory whose names say what they are; an error calls them by these names.

    Args:
        ca: the authorities, in PEM, DER or PKCS#12.
        certificate: the client's certificate, with its chain.
        private_key: its key; read from ``certificate`` where it is left out.
        passphrase: what opens an encrypted key.
        validity: as for ``load_bundle``.

    Raises:
        TLSError: it cannot be used.
    """
    given = {"ca": ca, "certificate": certificate, "private_key": private_key}
    read = [None if content is None else (name, _encoded(content)) for name, content in given.items()]
    return _told_apart(*read, opener=_opener(passphrase, "passphrase"), validity=validity)


def _of_content(content: bytes, source: str, opener: Passphrase, validity: Validity) -> Bundle:
    told = read_members(content, source, opener)
    if told is not None:
        (ca, certificate, key), opener = told
        return replace(_told_apart(ca, certificate, key, opener=opener, validity=validity), place=source)
    parts = Parts()
    if is_zip(content):
        for name, member in read_zip(content, source):
            parts.read(member, name, opener)
    else:
        _read_part(parts, (source, content), opener)
    return _recognised(parts, source, validity)


def _recognised(parts: Parts, place: str, validity: Validity) -> Bundle:
    """A bundle from parts that nobody has told apart."""
    pair = find_pair(parts, place)
    leaf, key = pair or (None, None)
    others = [each for each in parts.certificates if each is not leaf]
    chain = [] if leaf is None else find_chain(leaf, others)
    authorities, useless = find_authorities(parts.certificates, leaf, chain)
    if leaf is None and not authorities:
        looked_at = (
            f"; looked at {', '.join(parts.ignored)}" if parts.ignored != [place] and parts.ignored else ""
        )
        raise TLSError(f"{place} holds no certificate{looked_at}", file=place)
    check_authorities(authorities, validity)
    sent = [each for each in chain if not each.is_self_signed]
    if leaf is not None:
        check_client(leaf, sent, validity)
    return Bundle(
        place=place,
        authorities=tuple(authorities),
        certificate=leaf,
        chain=tuple(sent),
        key=key,
        reaches_authority=any(each in authorities for each in (leaf, *chain)),
        ignored=(*parts.ignored, *(each.source for each in useless)),
    )


def _told_apart(
    ca: _Given | None,
    certificate: _Given | None,
    key: _Given | None,
    *,
    opener: Passphrase,
    validity: Validity,
) -> Bundle:
    """A bundle from parts that were told apart."""
    trusted, mine = Parts(), Parts()
    if ca is not None:
        _read_part(trusted, ca, opener)
        if trusted.locked and not trusted.certificates:
            raise trusted.locked[0]
        require_authorities(trusted.certificates, ca[0])
        check_authorities(trusted.certificates, validity)
    if certificate is None:
        if key is not None:
            raise TLSError(f"there is a key, in {key[0]}, and no certificate for it", file=key[0])
        place = "the system's authorities" if ca is None else ca[0]
        return Bundle(place=place, authorities=tuple(trusted.certificates))
    _read_part(mine, certificate, opener)
    if not mine.certificates:
        if mine.locked:
            raise mine.locked[0]
        raise TLSError(f"{certificate[0]} holds no certificate", file=certificate[0])
    if key is not None:
        keys = Parts()
        _read_part(keys, key, opener)
        mine.keys, mine.locked = keys.keys, keys.locked
        if not (keys.keys or keys.locked):
            raise TLSError(f"{key[0]} holds no private key", file=key[0])
    pair = find_pair(mine, certificate[0])
    if pair is None:
        raise TLSError(
            f"{certificate[0]} has no key, and no other file was given for it", file=certificate[0]
        )
    leaf = pair[0]
    others = [each for each in mine.certificates if each is not leaf]
    chain = find_chain(leaf, [*others, *trusted.certificates])
    for each in others:
        if each not in chain and not each.is_self_signed:
            raise TLSError(
                f"the certificate of {each.label} in {each.source} is no link of the chain of {leaf.label}; "
                "is one between them missing?",
                file=each.source,
            )
    fingerprints = {each.fingerprint for each in trusted.certificates}
    sent = [each for each in chain if each in others and not each.is_self_signed]
    check_client(leaf, sent, validity)
    return Bundle(
        place=certificate[0],
        authorities=tuple(trusted.certificates),
        certificate=leaf,
        chain=tuple(sent),
        key=pair[1],
        reaches_authority=any(each.fingerprint in fingerprints for each in (leaf, *chain)),
    )


def _read_part(parts: Parts, given: _Given, opener: Passphrase) -> None:
    """Read one file that was given by itself."""
    source, content = given
    if len(content) > PART_BYTES:
        raise TLSError(f"{source} is larger than {PART_BYTES:,} bytes: no certificate or key is", file=source)
    if is_zip(content):
        raise TLSError(f"{source} is a ZIP archive; give it by itself, as the whole bundle", file=source)
    parts.read(content, source, opener)


def _opener(passphrase: Secret, name: str) -> Passphrase:
    return Passphrase(_encoded(passphrase) if passphrase else None, name)


def _encoded(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
