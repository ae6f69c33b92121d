"""Distributions as they are installed: built into wheels, in an environment with what they ask for alone.

Nothing is fetched: wheels are built with the locked tools of this environment, and what they ask for is
copied from here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from email.message import Message as Headers
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

SECONDS: Final = 120.0


def build_wheel(project: Path, directory: Path) -> Path:
    """Build the wheel of the project in a directory; another directory gets it."""
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    _pip("wheel", *options, "--wheel-dir", str(directory), str(project))
    (built,) = directory.glob("*.whl")
    return built


def names_in(wheel: Path) -> list[str]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata_of(wheel: Path) -> Headers:
    """What a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def make_environment(directory: Path, *wheels: Path) -> Path:
    """Make an environment with these wheels and all that they ask for; its interpreter is returned."""
    venv.create(directory, with_pip=False, symlinks=True)
    interpreter = directory / "bin" / "python"
    (site,) = directory.glob("lib/python*/site-packages")
    told = [metadata_of(wheel) for wheel in wheels]
    given = {str(metadata["Name"]) for metadata in told}
    for metadata in told:
        for each in needed(metadata.get_all("Requires-Dist", []), but=given).values():
            _copy(each, site)
    options = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]
    _pip("--python", str(interpreter), "install", *options, *map(str, wheels))
    return interpreter


def needed(requirements: list[str], *, but: set[str] | None = None) -> dict[str, Distribution]:
    """The distributions that these requirements bring, by name, with the extras that they name.

    Args:
        requirements: as ``Requires-Dist`` has them; those of an extra that nobody asked for are passed over.
        but: names that are passed over, with what they bring.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        wanted, extra = waiting.pop()
        if wanted.name in (but or set()):
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        for asked in {"", *wanted.extras}:
            if (wanted.name, asked) not in seen:
                seen.add((wanted.name, asked))
                found[wanted.name] = distribution(wanted.name)
                waiting += [(Requirement(each), asked) for each in found[wanted.name].requires or []]
    return found


def run_isolated(program: Path, *arguments: str) -> str:
    """What an interpreter, or a command beside it, prints, seeing nothing of this checkout."""
    options = ["-I", "-W", "error"] if program.name.startswith("python") else []
    done = subprocess.run(
        [str(program), *options, *arguments],
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _copy(each: Distribution, site: Path) -> None:
    """Copy the files of a distribution to another environment."""
    for file in each.files or []:
        if ".." not in file.parts and file.suffix != ".pyc":
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target)


def _pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", *arguments], check=True, capture_output=True, timeout=SECONDS
    )
