from __future__ import annotations

import io
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.issued import issue
from tidegate import TLSError
from tidegate.bundles import bundle_of_parts, load_bundle, read_bundle

ROOT = issue("Cloud Root", is_authority=True)
DEVICE = issue("device-7", issue("Another", is_authority=True))

Member = tuple[str | zipfile.ZipInfo, bytes]


def pack(*members: Member, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP with these members."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


def special(name: str, kind: int) -> zipfile.ZipInfo:
    """A member that is no file, as Unix writes it."""
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    return member


KIT: tuple[Member, ...] = (
    ("connect_device_package/", b""),
    ("connect_device_package/device-7.cert.pem", DEVICE.pem),
    ("connect_device_package/device-7.private.key", DEVICE.key()),
    ("connect_device_package/device-7.public.key", DEVICE.public_pem),
    ("connect_device_package/device-7-Policy", b'{"Version": "2012-10-17"}'),
    ("connect_device_package/start.sh", b"#!/usr/bin/env bash\n" + b"echo \n" * 100),
    ("connect_device_package/root-CA.crt", ROOT.pem),
    ("__MACOSX/._root-CA.crt", b"\0\5\x16\7"),
)


def test_a_kit_is_read_as_a_console_gives_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Parts are told by content and named by archive and member; the rest is passed over, and told."""
    path = tmp_path_factory.mktemp("kit") / "kit.zip"
    path.write_bytes(pack(*KIT))
    bundle = load_bundle(path)
    assert bundle.certificate is not None
    assert bundle.key is not None
    assert f"{path}!connect_device_package/device-7.cert.pem" == bundle.certificate.source
    assert f"{path}!connect_device_package/device-7.private.key" == bundle.key.source
    assert ["CN=Cloud Root"] == [each.subject for each in bundle.authorities]
    assert 4 == len(bundle.ignored)
    assert [path] == list(path.parent.iterdir())


def test_what_is_wrong_with_a_member_is_told_by_its_name() -> None:
    """Archive and member, as the error's file and in its text."""
    with pytest.raises(TLSError) as caught:
        read_bundle(pack(("a/cert.pem", DEVICE.pem), ("a/key.pem", ROOT.key())), name="kit.zip")
    assert "kit.zip!a/key.pem" == caught.value.file
    assert "kit.zip!a/key.pem does not belong to the certificate in kit.zip!a/cert.pem" in str(caught.value)


def twice() -> bytes:
    """Two members of one name, which a reader may take for one or the other."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        return pack(("ca.pem", ROOT.pem), ("ca.pem", DEVICE.pem))


def changed(packed: bytes, entry_offset: int, value: bytes, *, header_offset: int | None = None) -> bytes:
    """The archive with other bytes in the directory's first entry, and maybe in the member's own header."""
    found = bytearray(packed)
    start = packed.index(b"PK\x01\x02") + entry_offset
    found[start : start + len(value)] = value
    if header_offset is not None:
        found[header_offset : header_offset + len(value)] = value
    return bytes(found)


ONE = pack(("ca.pem", ROOT.pem))
STORED = pack(("ca.pem", ROOT.pem), method=zipfile.ZIP_STORED)

ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "leads out": (lambda: pack(("../../etc/ca.pem", ROOT.pem)), "has a path that leads out of the archive"),
    "leads out from within": (lambda: pack(("a/../../ca.pem", ROOT.pem)), "leads out of the archive"),
    "absolute": (lambda: pack(("/etc/ca.pem", ROOT.pem)), "leads out of the archive"),
    "a drive": (lambda: pack(("C:/ca.pem", ROOT.pem)), "leads out of the archive"),
    "backslash": (
        lambda: pack(("..\\ca.pem", ROOT.pem)),
        "has a name with a backslash or a control character",
    ),
    "newline": (lambda: pack(("a\nb.pem", ROOT.pem)), "a control character"),
    "NUL": (lambda: ONE.replace(b"ca.pem", b"c\0.pem"), "a control character"),
    "link": (lambda: pack((special("ca.pem", stat.S_IFLNK), b"/etc/passwd")), "is a link or a device"),
    "device": (lambda: pack((special("ca.pem", stat.S_IFCHR), b"")), "is a link or a device"),
    "twice": (twice, "'ca.pem' stands in it twice"),
    "archive within": (lambda: pack(("inner.zip", ONE)), "'inner.zip' is an archive in the archive"),
    "encrypted": (lambda: changed(ONE, 8, b"\1", header_offset=6), "'ca.pem' is encrypted"),
    "bomb": (lambda: pack(("ca.pem", b"\0" * 1_000_000)), "unpacks to more than 100 times its size"),
    "large": (lambda: pack(("ca.pem", b"x" * 1_048_577)), "is larger than 1,048,576 bytes"),
    "many": (lambda: pack(*((str(each), b"") for each in range(101))), "has more than 100 members"),
    "all together": (
        lambda: pack(
            *((str(each), bytes(range(256)) * 4000) for each in range(9)), method=zipfile.ZIP_STORED
        )[:8_388_608],
        "is no ZIP archive that can be read",
    ),
    "too much": (
        lambda: pack(("a", b"x" * 9_000_000), method=zipfile.ZIP_STORED),
        "is larger than 8,388,608 bytes",
    ),
    "another method": (lambda: pack(("ca.pem", ROOT.pem), method=zipfile.ZIP_LZMA), "other than deflate"),
    "claims less": (lambda: changed(ONE, 24, b"\5\0\0\0"), "is no ZIP archive that can be read"),
    "other bytes": (lambda: STORED.replace(b"MII", b"MIJ", 1), "is no ZIP archive that can be read"),
    "another name in its header": (lambda: ONE.replace(b"ca.pem", b"cb.pem", 1), "is no ZIP archive"),
    "cut off": (lambda: ONE[:-10], "is no ZIP archive that can be read"),
    "damaged": (lambda: ONE[:60] + b"\xff" * 40 + ONE[100:], "is no ZIP archive that can be read"),
    "empty": (pack, "upload.zip holds no certificate"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_is_an_attack_or_damaged_is_refused(attack: str) -> None:
    """Before it is unpacked where that can be told, and always with the reason."""
    make, words = ATTACKS[attack]
    with pytest.raises(TLSError) as caught:
        read_bundle(make(), name="upload.zip")
    assert words in str(caught.value)
    assert str(caught.value.file).startswith("upload.zip")
    assert str(caught.value).isprintable()


def test_members_are_bounded_together() -> None:
    """Each is within its own bound, and packs no better than text does."""
    text = random.Random(7).randbytes(500_000).hex().encode()
    members = [(str(each), text) for each in range(9)]
    with pytest.raises(TLSError, match="upload unpacks to more than 8,388,608 bytes"):
        read_bundle(pack(*members), name="upload")


def test_an_archive_is_not_one_of_three_files(tmp_path: Path) -> None:
    """Nor does one in a directory count: it is passed over."""
    with pytest.raises(TLSError, match="ca is a ZIP archive; give it by itself"):
        bundle_of_parts(ca=ONE)
    (tmp_path / "kit.zip").write_bytes(ONE)
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    assert (str(tmp_path / "kit.zip"),) == load_bundle(tmp_path).ignored
