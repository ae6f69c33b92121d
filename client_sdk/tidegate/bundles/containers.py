"""Files, directories and ZIP archives, read in memory and within bounds, whatever their parts are.

A ZIP is an attacker's input: it may claim sizes that it does not have, hold a thousand times what it weighs,
or name files outside itself. So the claims are checked before a member is read, and the bytes while it is.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tidegate.errors import TLSError

PART_BYTES: Final = 1_048_576
"""The largest certificate or key file."""
ARCHIVE_BYTES: Final = 8 * 1_048_576
"""The largest ZIP, packed and unpacked."""
MEMBERS: Final = 100
"""The most files in a ZIP or a directory."""
RATIO: Final = 100
"""How many times larger than packed a member may be; text in PEM form comes to less than 3."""

_SMALL: Final = 65_536  # a member this small is no bomb, however well it packs
_ENTRY: Final = b"PK\x01\x02"  # what each entry of a ZIP's directory begins with
_DRIVE: Final = re.compile(r"^[A-Za-z]:")
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_zip(content: bytes) -> bool:
    """Whether bytes begin as a ZIP archive does; an empty archive counts."""
    return content.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def read_file(path: Path, what: str, *, limit: int = PART_BYTES) -> bytes:
    """The bytes of one file.

    Args:
        path: where it is.
        what: what it is for, for an error's text.
        limit: the most bytes that it may have.

    Raises:
        TLSError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TLSError(f"{what} {str(path)!r} cannot be read: {reason}", file=str(path)) from error
    if len(content) > limit:
        raise TLSError(f"{path} is larger than {limit:,} bytes: {what} never is", file=str(path))
    return content


def read_directory(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """The regular files right in a directory, by name; None stands for the bytes of one that is too large.

    Links are followed. Names that begin with a dot, and directories within, are passed over. A mounted Secret
    of Kubernetes is read through its link ``..data``, so that all files are of one version.

    Raises:
        TLSError: it cannot be read, has more than ``MEMBERS`` files, or a link in it leads nowhere.
    """
    try:
        current = (path / "..data").resolve() if (path / "..data").is_dir() else path
        found = sorted(each for each in current.iterdir() if not each.name.startswith("."))
        for each in found:
            if not each.exists():
                raise TLSError(f"{path / each.name} is a link that leads nowhere", file=str(path / each.name))
        files = [each for each in found if each.is_file()]
        if len(files) > MEMBERS:
            raise TLSError(
                f"{path} has {len(files)} files, and a bundle has at most {MEMBERS}; "
                "give a directory with the bundle's files alone",
                file=str(path),
            )
        too_large = {each for each in files if each.stat().st_size > PART_BYTES}
    except OSError as error:
        raise TLSError(
            f"the directory {str(path)!r} cannot be read: {error.strerror}", file=str(path)
        ) from error
    for each in files:
        yield str(path / each.name), None if each in too_large else read_file(each, "the file")


def read_zip(content: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    """The files of a ZIP archive, as ``source!member``.

    Raises:
        TLSError: it is damaged, too large, encrypted, or holds what has no place in a bundle.
    """
    if len(content) > ARCHIVE_BYTES:
        raise TLSError(f"{source} is larger than {ARCHIVE_BYTES:,} bytes", file=source)
    if content.count(_ENTRY) > MEMBERS:
        raise TLSError(f"{source} has more than {MEMBERS} members", file=source)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(members, source)
            for member in members:
                if not member.is_dir():
                    yield _name(source, member), _read_member(archive, member, source)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise TLSError(f"{source} is no ZIP archive that can be read: {error}", file=source) from error


def _name(source: str, member: zipfile.ZipInfo) -> str:
    return f"{source}!{member.filename}"


def _check_members(members: list[zipfile.ZipInfo], source: str) -> None:
    seen: set[str] = set()
    total = 0
    for member in members:
        reason = _why_refused(member)
        if member.filename in seen:
            reason = "stands in it twice, and readers disagree on which counts"
        if reason:
            raise TLSError(
                f"{source} is refused: its member {member.orig_filename!r} {reason}",
                file=_name(source, member),
            )
        seen.add(member.filename)
        total += member.file_size
    if total > ARCHIVE_BYTES:
        raise TLSError(f"{source} unpacks to more than {ARCHIVE_BYTES:,} bytes", file=source)


def _why_refused(member: zipfile.ZipInfo) -> str:
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not name.isprintable() or "\\" in name:
        return "has a name with a backslash or a control character"
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        return "has a path that leads out of the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, and no file"
    if member.flag_bits & 0x1:
        return "is encrypted; pack the archive anew without a password, or unpack it into a directory"
    if member.compress_type not in _METHODS:
        return "is packed in a way other than deflate"
    if member.file_size > PART_BYTES:
        return f"is larger than {PART_BYTES:,} bytes"
    if member.file_size > _SMALL and member.file_size > RATIO * member.compress_size:
        return f"unpacks to more than {RATIO} times its size"
    return ""


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str) -> bytes:
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) > member.file_size:
        raise zipfile.BadZipFile(f"{member.filename!r} is larger than it says")
    if is_zip(content):
        raise TLSError(
            f"{source} is refused: its member {member.filename!r} is an archive in the archive; "
            "give that one by itself",
            file=_name(source, member),
        )
    return content
