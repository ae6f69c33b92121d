"""What docs/tls.md shows runs as it stands, but for the broker's address."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.certificates import Certificates
from tests.support.command import ROOT
from tests.support.issued import Issued
from tests.support.mosquitto import Mosquitto

GUIDE = (ROOT / "docs/tls.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> Path:
    """A directory with the files that the guide names."""
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/ca.pem").write_bytes(certificates.ca.read_bytes())
    (tmp_path / "certs/device.pem").write_bytes(certificates.client_certificate.read_bytes())
    (tmp_path / "certs/device.key").write_bytes(certificates.client_key.read_bytes())
    with zipfile.ZipFile(tmp_path / "kit.zip", "w") as archive:
        for file in (tmp_path / "certs").iterdir():
            archive.write(file, file.name)
    key = load_pem_private_key(certificates.client_key.read_bytes(), None)
    device, ca = (
        Issued(x509.load_pem_x509_certificate(file.read_bytes()), key)
        for file in (certificates.client_certificate, certificates.ca)
    )
    (tmp_path / "device.p12").write_bytes(device.pkcs12(ca, passphrase="open sesame"))
    return tmp_path


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_guide_publishes(block: str, files: Path, certificates: Certificates) -> None:
    """The broker wants a client certificate, and takes the one that is given."""
    with Mosquitto(tls=certificates, require_certificate=True, extra=["log_type all"]) as broker:
        program = block.replace("mqtts://broker.example:8883", broker.url)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=60, check=False)
        assert (0, "") == (done.returncode, done.stderr)
        assert "'plant/line1/state'" in broker.log
