from __future__ import annotations

import io
import json
import zipfile

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.issued import issue
from tidegate import TLSError
from tidegate.bundles import Bundle, read_bundle

ROOT = issue("Root", is_authority=True)
DEVICE = issue("device", ROOT)


def kit() -> bytes:
    """A ZIP with an authority, a certificate and its key."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (
            ("ca", ROOT.pem),
            ("cert", DEVICE.der),
            ("key", DEVICE.key(encoding=Encoding.DER)),
        ):
            archive.writestr(name, content)
    return packed.getvalue()


PARTS = {"ca": ROOT.pem.decode(), "certificate": DEVICE.pem.decode(), "private_key": DEVICE.key().decode()}
FORMS = {
    "zip": kit(),
    "pem": ROOT.pem + DEVICE.pem + DEVICE.key(),
    "json": json.dumps(PARTS).encode(),
    "json of a cloud": json.dumps([PARTS]).encode(),
    "der": ROOT.der,
    "pkcs12": DEVICE.pkcs12(ROOT),
}


def outcome(content: bytes) -> str:
    """What comes of some bytes; no other exception may leave ``read_bundle`` and ``context``."""
    try:
        bundle = read_bundle(content, name="upload")
        bundle.context()
    except TLSError as error:
        return "refused" if str(error).isprintable() else f"refused with {str(error)!r}"
    assert isinstance(bundle, Bundle)
    return "taken"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_taken_as_it_is(form: str) -> None:
    """The next test damages forms that are sound."""
    assert "taken" == outcome(FORMS[form])


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=50)
@given(
    damage=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), min_size=1, max_size=4
    )
)
def test_whatever_is_damaged_is_taken_or_refused_in_words(
    form: str, damage: list[tuple[float, bytes]]
) -> None:
    """Bytes are changed, put in or taken out anywhere: no exception of a parser comes through."""
    content = FORMS[form]
    for place, new in damage:
        at = int(place * len(content))
        content = content[:at] + new + content[at + 2 :]
    assert outcome(content) in ("taken", "refused")


@settings(deadline=None, max_examples=50)
@given(st.one_of(st.binary(), st.text().map(str.encode), st.binary().map(lambda each: b"\x30" + each)))
def test_anything_else_is_refused(content: bytes) -> None:
    """Bytes and texts that nobody made as a bundle."""
    assert "refused" == outcome(content)
