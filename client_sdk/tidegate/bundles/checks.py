"""What a certificate must be: strong enough, within its dates, and an authority where it acts as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.hashes import MD5, SHA1

from tidegate.bundles.certificate import Certificate
from tidegate.errors import TLSError

Validity = Literal["refuse", "warn"]
"""What happens to a certificate that has expired, or is not valid yet."""

RSA_BITS: Final = 2048
EC_BITS: Final = 224
"""Both are 112 bits of security, which NIST SP 800-57 part 1 §5.6 asks for."""

logger = logging.getLogger("tidegate")


def check_client(leaf: Certificate, chain: Sequence[Certificate], validity: Validity) -> None:
    """Check a client's certificate and what is sent along with it.

    Raises:
        TLSError: one of them is too weak, or out of its dates where ``validity`` is ``"refuse"``.
    """
    for each in (leaf, *chain):
        _check_strength(each)
        _tell(_when_invalid(each), each, validity)
    if not leaf.may_be_a_client:
        logger.warning(
            "the certificate of %s in %s is for servers alone (extended key usage); most brokers refuse it",
            leaf.label,
            leaf.source,
        )


def check_authorities(authorities: Sequence[Certificate], validity: Validity) -> None:
    """Check what a broker's certificate will be verified with.

    An old root may lie beside its successor: that is no more than a line in the log at the level of
    information. It counts where no other authority is valid.

    Raises:
        TLSError: one is too weak, or all are out of their dates and ``validity`` is ``"refuse"``.
    """
    for each in authorities:
        _check_strength(each)
    troubles = [(_when_invalid(each), each) for each in authorities]
    has_valid = any(not trouble for trouble, _ in troubles)
    for trouble, each in troubles:
        if has_valid and trouble:
            logger.info("%s", trouble)
        else:
            _tell(trouble, each, validity)


def require_authorities(certificates: Sequence[Certificate], source: str) -> None:
    """Check what was given as authorities by name: each is one, or signed itself and stands for itself.

    Raises:
        TLSError: there is none, or another certificate among them.
    """
    if not certificates:
        raise TLSError(f"{source} holds no certificate authority", file=source)
    for each in certificates:
        if not (each.is_authority or each.is_self_signed):
            raise TLSError(
                f"the certificate of {each.label} in {each.source} is no authority's, so nothing can be "
                f"verified with it; give that of its issuer, {each.issuer}",
                file=each.source,
            )


def _check_strength(certificate: Certificate) -> None:
    where = f"the certificate of {certificate.label} in {certificate.source}"
    key = certificate.parsed.public_key()
    weakness = ""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
        weakness = f"has an RSA key of {key.key_size} bits, and {RSA_BITS} is the least"
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < EC_BITS:
        weakness = f"has a key on the curve {key.curve.name}, and {EC_BITS} bits is the least"
    elif isinstance(key, dsa.DSAPublicKey):
        weakness = "has a DSA key, which TLS no longer takes"
    elif not certificate.is_self_signed:  # nobody verifies the signature of a root
        try:
            algorithm = certificate.parsed.signature_hash_algorithm
        except UnsupportedAlgorithm:
            algorithm = None
            weakness = "is signed in a way that is unknown here"
        if isinstance(algorithm, MD5 | SHA1):
            weakness = f"is signed with {algorithm.name.upper()}, which can be forged"
    if weakness:
        raise TLSError(f"{where} {weakness}; have a new one issued", file=certificate.source)


def _when_invalid(certificate: Certificate) -> str:
    now = datetime.now(UTC)
    where = f"the certificate of {certificate.label} in {certificate.source}"
    if now > certificate.not_after:
        return f"{where} expired on {certificate.not_after:%Y-%m-%d %H:%M} UTC; have it renewed"
    if now < certificate.not_before:
        return (
            f"{where} is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC; "
            "is the clock of this machine right?"
        )
    return ""


def _tell(trouble: str, certificate: Certificate, validity: Validity) -> None:
    if trouble and validity == "refuse":
        raise TLSError(trouble, file=certificate.source)
    if trouble:
        logger.warning("%s", trouble)
