"""Mosquitto with client certificates, and credentials that it takes or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.fernet import Fernet

from tests.support.bridge import Bridge, running_bridge
from tests.support.certificates import Certificates
from tests.support.issued import NOW, Issued, issue
from tests.support.mosquitto import Mosquitto

HERE = (x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1")))
"""The names of a broker on this machine."""


@dataclass(frozen=True)
class Plant:
    """An authority, and a broker's certificate that it signed."""

    root: Issued
    files: Certificates

    def device(self, name: str = "device-1", **options: Any) -> Issued:
        """A client's certificate that the broker takes."""
        return issue(name, self.root, **options)

    def parts(self, device: Issued | None = None, *, ca: Issued | None = None) -> dict[str, str]:
        """A credential as the parts of a JSON body."""
        made = {"ca": (ca or self.root).pem.decode()}
        if device is not None:
            made |= {"certificate": device.pem.decode(), "private_key": device.key().decode()}
        return made


def make_plant(
    directory: Path,
    *,
    names: tuple[x509.GeneralName, ...] = HERE,
    starts: datetime = NOW - timedelta(days=1),
    ends: datetime = NOW + timedelta(days=90),
) -> Plant:
    """An authority and a broker's certificate, as files for Mosquitto."""
    root = issue("Plant Root", is_authority=True)
    server = issue("broker", root, names=names, starts=starts, ends=ends)
    directory.mkdir(parents=True, exist_ok=True)
    files = Certificates(
        *(directory / name for name in ("ca", "server", "server.key", "client", "client.key"))
    )
    device = issue("device-0", root)
    for path, content in (
        (files.ca, root.pem),
        (files.server_certificate, server.pem + root.pem),
        (files.server_key, server.key()),
        (files.client_certificate, device.pem),
        (files.client_key, device.key()),
    ):
        path.write_bytes(content)
    return Plant(root, files)


@contextmanager
def strict_broker(plant: Plant, **options: Any) -> Iterator[Mosquitto]:
    """A broker that takes clients with a certificate alone."""
    with Mosquitto(tls=plant.files, require_certificate=True, **options) as broker:
        yield broker


@contextmanager
def bridge_with_store(
    broker_url: str, plant: Plant, folder: Path, *, key: str = "", **settings: Any
) -> Iterator[Bridge]:
    """A bridge that begins with the plant's files, and keeps credentials in a folder."""
    with running_bridge(
        broker_url,
        broker_ca_file=plant.files.ca,
        broker_certificate_file=plant.files.client_certificate,
        broker_key_file=plant.files.client_key,
        credentials_dir=folder,
        credentials_key=key or Fernet.generate_key().decode(),
        **settings,
    ) as bridge:
        yield bridge
