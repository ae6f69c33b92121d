"""Which of the parts is what: the client's certificate, its chain, the authorities, and the key.

1. The client's certificate is one that a key belongs to. Where several pairs fit, those that are no
   authority's come first, then those for clients; two of equal rank are refused: guessing would be silent.
2. The chain are the certificates that lead from it to a root, in that order; the root is not sent.
3. Authorities are what signed itself, and authorities that are not in the chain. Where none of these is
   there, authorities from another file than the client's certificate are trusted as well as sent: this is
   how cert-manager hands over an issuer that is no root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tidegate.bundles.certificate import Certificate
from tidegate.bundles.parts import Parts, PrivateKey
from tidegate.errors import TLSError

Pair = tuple[Certificate, PrivateKey]

LINKS: Final = 10
"""The longest chain; OpenSSL takes no more by default in TLS servers that are set up with care."""


def find_pair(parts: Parts, place: str) -> Pair | None:
    """The client's certificate and key among parts that nobody has told apart; None where there is neither.

    Args:
        parts: what was found.
        place: where, for an error's text.

    Raises:
        TLSError: one of the two is missing or cannot be opened, none fits the other, or several pairs do.
    """
    clients = [each for each in parts.certificates if not (each.is_authority or each.is_self_signed)]
    pairs = [
        (each, key) for key in parts.keys for each in parts.certificates if each.public_key == key.public_key
    ]
    if pairs:
        return _choose(pairs, place)
    if parts.locked:
        raise parts.locked[0]
    if parts.keys:
        key = parts.keys[0]
        if not parts.certificates:
            raise TLSError(f"{place} has a key{_in(key, place)} and no certificate for it", file=key.source)
        others = _sources(clients or parts.certificates)
        raise TLSError(
            f"the key in {_sources(parts.keys)} does not belong to the certificate in {others}; "
            "were the files of two certificates mixed up?",
            file=key.source,
        )
    if clients:
        client = clients[0]
        raise TLSError(
            f"{place} has the certificate of {client.label}{_in(client, place)} and no key for it",
            file=client.source,
        )
    return None


def _choose(pairs: Sequence[Pair], place: str) -> Pair:
    for prefer in (_is_no_authority, _is_for_clients):
        pairs = [pair for pair in pairs if prefer(pair)] or pairs
    if len({key.public_key for _, key in pairs}) > 1:
        found = ", ".join(dict.fromkeys(f"{each.label} in {each.source}" for each, _ in pairs))
        raise TLSError(
            f"{place} has several certificates with their keys: {found}; leave the client's alone", file=place
        )
    return max(pairs, key=lambda pair: pair[0].not_after)  # renewed with the same key: the newest


def _is_no_authority(pair: Pair) -> bool:
    return not pair[0].is_authority


def _is_for_clients(pair: Pair) -> bool:
    return pair[0].may_be_a_client


def find_chain(leaf: Certificate, pool: Sequence[Certificate]) -> list[Certificate]:
    """The certificates that vouch for one, its signer first, as far as the pool reaches.

    Raises:
        TLSError: a link does not hold: the signer's name is there with another key, or it is no authority.
    """
    chain: list[Certificate] = []
    last = leaf
    while not last.is_self_signed and len(chain) < LINKS:
        named = [each for each in pool if each.parsed.subject == last.parsed.issuer]
        signers = [each for each in named if last.is_signed_by(each)]
        if not named:
            break
        if not signers:
            raise TLSError(
                f"the certificate of {last.label} in {last.source} says that {named[0].label} signed it, and "
                f"the certificate of that name in {named[0].source} has another key; "
                "are both from the same authority?",
                file=last.source,
            )
        last = max(signers, key=lambda each: (each.is_authority, each.not_after))
        if not last.is_authority:
            raise TLSError(
                f"the certificate of {last.label} in {last.source} vouches for another, and is no "
                "authority's",
                file=last.source,
            )
        chain.append(last)
    return chain


def find_authorities(
    certificates: Sequence[Certificate], leaf: Certificate | None, chain: Sequence[Certificate]
) -> tuple[list[Certificate], list[Certificate]]:
    """The authorities among certificates that nobody has told apart, and those that are of no use."""
    rest = [each for each in certificates if each is not leaf]
    sent = [each for each in chain if not each.is_self_signed]
    trusted = [each for each in rest if each.is_self_signed or (each.is_authority and each not in sent)]
    useless = [each for each in rest if each not in trusted and each not in sent]
    if not trusted and leaf is not None:
        trusted = [each for each in sent if each.source != leaf.source]
    return trusted, useless


def _in(part: Certificate | PrivateKey, place: str) -> str:
    return "" if part.source == place else f", in {part.source},"


def _sources(parts: Sequence[Certificate] | Sequence[PrivateKey]) -> str:
    return " and ".join(dict.fromkeys(each.source for each in parts))
