"""A certificate authority of one test run, with a server's and a client's certificate."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files; each certificate file has its whole chain, each key is unencrypted.

    Attributes:
        ca: the authority's certificate.
        server_certificate: for ``localhost``, ``127.0.0.1`` and the names that were asked for.
        server_key: its key.
        client_certificate: its subject's common name is ``device-1``.
        client_key: its key.
    """

    ca: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path

    def client_context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """A TLS context that trusts this authority alone, with or without the client's certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        if with_certificate:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context


def make_certificates(directory: Path, *names: str) -> Certificates:
    """Make a new authority and its certificates, as files in this directory.

    Args:
        directory: where the files go.
        names: what the server is called beside ``localhost`` and ``127.0.0.1``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    made = Certificates(
        ca=directory / "ca.pem",
        server_certificate=directory / "server.pem",
        server_key=directory / "server.key",
        client_certificate=directory / "client.pem",
        client_key=directory / "client.key",
    )
    authority.cert_pem.write_to_path(made.ca)
    server = authority.issue_cert("localhost", "127.0.0.1", *names)
    client = authority.issue_cert("device-1@devices.test", common_name="device-1")
    for issued, certificate, key in (
        (server, made.server_certificate, made.server_key),
        (client, made.client_certificate, made.client_key),
    ):
        for index, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(certificate, append=index > 0)
        issued.private_key_pem.write_to_path(key)
    return made
