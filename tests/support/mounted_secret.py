"""A Secret, mounted as the kubelet does it."""

from __future__ import annotations

import shutil
from pathlib import Path


class MountedSecret:
    """A folder whose files are links through ``..data`` to those of one version.

    Args:
        path: where it is mounted.
        files: the first version; two underscores in a name stand for a dot.
    """

    def __init__(self, path: Path, **files: bytes) -> None:
        self.path = path
        self._version = 0
        path.mkdir()
        self.swap(**files)

    def swap(self, **files: bytes) -> None:
        """Put another version in place, in one step, and remove the one before."""
        self._version += 1
        version = self.path / f"..2026_11_25_{self._version}"
        version.mkdir()
        names = {name.replace("__", "."): content for name, content in files.items()}
        for name, content in names.items():
            (version / name).write_bytes(content)
        before = (self.path / "..data").resolve() if self._version > 1 else None
        (self.path / "..data_tmp").symlink_to(version.name)
        (self.path / "..data_tmp").rename(self.path / "..data")
        for name in names:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for link in self.path.iterdir():
            if not link.name.startswith("..") and link.name not in names:
                link.unlink()
        if before is not None:
            shutil.rmtree(before)
