from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from tests.support.bundles import (
    DEVICE,
    DIRECT,
    ROOT,
    refusal,
    subjects,
)
from tests.support.issued import NOW
from tidegate.bundles import read_bundle

PASSPHRASE = "a canary in a coal mine"


LOCKED: dict[str, Callable[[], bytes]] = {
    "pkcs8": lambda: DIRECT.pem + DIRECT.key(passphrase=PASSPHRASE),
    "openssl": lambda: DIRECT.pem + DIRECT.key(passphrase=PASSPHRASE, form=PrivateFormat.TraditionalOpenSSL),
    "pkcs12": lambda: DIRECT.pkcs12(passphrase=PASSPHRASE),
    "json": lambda: json.dumps(
        {"certificate": DIRECT.pem.decode(), "private_key": DIRECT.key(passphrase=PASSPHRASE).decode()}
    ).encode(),
    "json of a cloud": lambda: json.dumps(
        {"certificatePem": DIRECT.pem.decode(), "key": DIRECT.key(passphrase=PASSPHRASE).decode()}
    ).encode(),
}


@pytest.mark.parametrize("form", LOCKED)
def test_an_encrypted_key_needs_its_passphrase(form: str) -> None:
    """Missing and wrong are told apart, by the name that whoever calls gives it; text and bytes open it."""
    content = LOCKED[form]()
    assert "is encrypted; give its passphrase" in str(refusal(content))
    assert "is encrypted; give its keyword" in str(refusal(content, passphrase="", key_setting="keyword"))
    error = refusal(content, passphrase="wrong canary", key_setting="keyword")
    assert "the keyword does not open the" in str(error)
    assert "canary" not in str(error)
    for right in (PASSPHRASE, PASSPHRASE.encode()):
        assert "CN=device-8" == subjects(read_bundle(content, passphrase=right))[0]


def test_a_passphrase_that_is_not_needed_does_no_harm() -> None:
    """One setting serves for encrypted keys and for others."""
    for content in (DIRECT.pem + DIRECT.key(), DIRECT.pkcs12()):
        assert "CN=device-8" == subjects(read_bundle(content, passphrase="x"))[0]


def test_neither_a_key_nor_a_passphrase_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In no ``repr``, error, cause of an error or log, whatever is wrong with the file that holds it."""
    caplog.set_level("DEBUG")
    body = DIRECT.key().decode().splitlines()[1]
    number = str(DIRECT.private_key.private_numbers().private_value)
    shown = [repr(read_bundle(LOCKED[form](), passphrase=PASSPHRASE)) for form in LOCKED]
    bundle = read_bundle(LOCKED["json"](), passphrase=PASSPHRASE)
    shown += [repr(bundle.key), repr(bundle.certificate), f"{bundle}", str(vars(bundle.context()))]
    key = DIRECT.key()
    for content in (
        key[:-20],
        key.replace(b"\n", b"\n!", 2),
        b'{"private_key": "'
        + key.replace(b"\n", b"\\n")
        + b'", "passphrase": "'
        + PASSPHRASE.encode()
        + b'",',
        b'{"private_key": "' + body.encode() + b'", "passphrase": "' + PASSPHRASE.encode() + b'"}',
        json.dumps({body: key.decode(), "passphrase": PASSPHRASE}).encode(),
        DEVICE.pem + key,
        DIRECT.pkcs12(passphrase=PASSPHRASE)[:-9],
    ):
        for passphrase in (PASSPHRASE, "another canary"):
            error: BaseException | None = refusal(content, passphrase=passphrase)
            while error is not None:
                shown += [repr(error), str(vars(error))]
                error = error.__cause__ or error.__context__
    for text in (*shown, caplog.text):
        assert "canary" not in text
        assert number not in text
        assert "-----BEGIN" not in text
    assert sum(body in text for text in shown) == 0


def test_a_repr_has_what_tells_bundles_apart() -> None:
    """Subject, issuer, end and fingerprint."""
    bundle = read_bundle(DIRECT.pem + DIRECT.key() + ROOT.pem, name="kit")
    end = f"{NOW + timedelta(days=90):%Y-%m-%d}"
    mine, root = (sha256(each.der).hexdigest() for each in (DIRECT, ROOT))
    assert (
        f"<Bundle 'kit' certificate: CN=device-8, issued by CN=Plant Root, until {end}, SHA-256 {mine}; "
        f"authority: CN=Plant Root, issued by CN=Plant Root, until {end}, SHA-256 {root}>"
    ) == repr(bundle)
