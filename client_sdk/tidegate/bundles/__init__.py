"""TLS bundles: authorities, and optionally a client certificate with its chain and key, from whatever form.

Rules:

1. A part is known by what it holds and never by its name: an authority by its basic constraints or by having
   signed itself, the client's certificate by having the public key of the private key.
2. What is taken is checked at once: the pair, each link of the chain, dates, strength. A refusal names the
   file (inside a ZIP ``kit.zip!device.pem``), the cause, and what to do.
3. What is read is bounded, and read in memory. Nothing is extracted, and no unencrypted key reaches a disk.
4. Neither a byte of a key nor a passphrase stands in an error, a ``repr`` or a log.
5. An encrypted key without its passphrase is an error; nobody is asked at a terminal.

``tidegate.tls`` makes contexts from ``tls=`` and imports this package when it is needed, since it brings the
``cryptography`` library.
"""

from __future__ import annotations

from tidegate.bundles.bundle import Bundle
from tidegate.bundles.certificate import Certificate
from tidegate.bundles.checks import Validity
from tidegate.bundles.intake import bundle_of_files, bundle_of_parts, load_bundle, read_bundle
from tidegate.bundles.kept import restore_bundle

__all__ = [
    "Bundle",
    "Certificate",
    "Validity",
    "bundle_of_files",
    "bundle_of_parts",
    "load_bundle",
    "read_bundle",
    "restore_bundle",
]
