"""Takes what installs Python packages out of an image: pip, its relatives, and what brings them back."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Final

INSTALLERS: Final = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")


def installers() -> list[Path]:
    """The files and directories of pip and its relatives, also where the distribution put them."""
    stdlib, pure, scripts = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "scripts"))
    found = [stdlib / "ensurepip", Path("/usr/share/python-wheels")]
    for site in {pure, *map(Path, sys.path)}:
        for name in INSTALLERS:
            found += [site / name, *site.glob(f"{name}-*.dist-info")]
    for name in INSTALLERS:
        found += [*scripts.glob(name), *scripts.glob(f"{name}[0-9]*")]
    return [path for path in found if path.exists()]


if __name__ == "__main__":
    for path in installers():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
