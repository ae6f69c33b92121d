"""The lock files: exact, hashed, free of addresses and paths, and in step with both pyproject.toml files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
RUN = ROOT / "requirements.lock"
BUILD = ROOT / "requirements-build.lock"
OTEL = ROOT / "requirements-otel.lock"
SBOM = ROOT / "requirements-sbom.lock"
DEV = ROOT / "requirements-dev.lock"
SERVICE = ROOT / "pyproject.toml"
SDK = ROOT / "client_sdk" / "pyproject.toml"

PINNED = re.compile(r"[a-z0-9-]+==[\w.]+(?: ; [^\\]+?)?(?: --hash=sha256:[0-9a-f]{64})+")
FOREIGN = re.compile(r"://|--(?:index|extra-index|find-links|trusted)|@|(?:^|[\s=])[~.]*/|[A-Z]:\\")


def entries(text: str) -> list[str]:
    """The requirements of a lock file, each on one line, without comments."""
    joined = text.replace("\\\n", " ")
    lines = (" ".join(line.split()) for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def faults(text: str) -> list[str]:
    """The lines of a lock file that are not one hashed pin, or that name a place on a disk or a network."""
    loose = [line for line in entries(text) if not PINNED.fullmatch(line)]
    return loose + [line for line in text.splitlines() if FOREIGN.search(line)]


def pins(file: Path) -> dict[str, Requirement]:
    """What a lock file pins, by normalized name."""
    found = [Requirement(line.partition(" --hash")[0]) for line in entries(file.read_text())]
    return {canonicalize_name(each.name): each for each in found}


def project(file: Path) -> dict[str, Any]:
    """A pyproject.toml, read."""
    return tomllib.loads(file.read_text())


def group(name: str) -> list[str]:
    """The requirements of one dependency group of the service, with the groups that it includes."""
    found: list[str] = []
    for each in project(SERVICE)["dependency-groups"][name]:
        found += [each] if isinstance(each, str) else group(each["include-group"])
    return found


def unmet(declared: list[str], lock: Path) -> list[str]:
    """The declared requirements that a lock file does not pin within their bounds; our own SDK aside."""
    pinned = pins(lock)
    missing = []
    for requirement in map(Requirement, declared):
        pin = pinned.get(canonicalize_name(requirement.name))
        version = next(iter(pin.specifier)).version if pin else None
        if requirement.name != "tidegate" and (version is None or version not in requirement.specifier):
            missing.append(str(requirement))
    return missing


@pytest.mark.parametrize("lock", [RUN, OTEL, BUILD, SBOM, DEV], ids=lambda lock: lock.name)
def test_lock_holds_nothing_but_hashed_pins(lock: Path) -> None:
    """Each entry is one version with its SHA-256 hashes; no line names a registry, an index or a path."""
    assert entries(lock.read_text())
    assert [] == faults(lock.read_text())


@pytest.mark.parametrize(
    "line",
    [
        "httpx==0.28.1",
        "httpx>=0.28 --hash=sha256:" + 64 * "0",
        "httpx==0.28.1 --hash=md5:" + 32 * "0",
        "httpx @ https://registry.example/httpx.whl --hash=sha256:" + 64 * "0",
        "--index-url https://registry.example/simple",
        "--find-links wheels",
        "-e ./client_sdk",
        "# uv pip compile -o /home/somebody/requirements.lock",
        "    # from registry.example via https://registry.example",
    ],
)
def test_faulty_line_is_found(line: str) -> None:
    """A loose, unhashed or placed requirement does not pass for a pin, even in a comment."""
    assert faults(line + "\n")


@pytest.mark.parametrize("lock", [RUN, OTEL, BUILD], ids=lambda lock: lock.name)
def test_dev_lock_repeats_the_others(lock: Path) -> None:
    """What is tested is what runs: requirements-dev.lock has every entry of the other locks, to the hash."""
    assert set() == set(entries(lock.read_text())) - set(entries(DEV.read_text()))


def test_the_lock_with_traces_adds_to_that_without() -> None:
    """An image that traces runs what the other runs, to the hash, and what the extra declares beside it."""
    assert set() == set(entries(RUN.read_text())) - set(entries(OTEL.read_text()))
    extra = project(SERVICE)["project"]["optional-dependencies"]["otel"]
    assert [] == unmet(extra, OTEL)
    assert unmet(extra, RUN)


def test_dev_lock_has_the_versions_that_write_the_bill_of_materials() -> None:
    """What the image's build uses is tried first; markers may differ, since it needs less."""
    dev = pins(DEV)
    assert [] == [name for name, pin in pins(SBOM).items() if pin.specifier != dev[name].specifier]


@pytest.mark.parametrize("file", [SERVICE, SDK], ids=["service", "sdk"])
def test_run_lock_pins_what_is_declared(file: Path) -> None:
    """A dependency that a project declares is pinned within its bounds in requirements.lock."""
    declared = project(file)["project"]["dependencies"]
    assert declared
    assert [] == unmet(declared, RUN)


@pytest.mark.parametrize(("name", "lock"), [("build", BUILD), ("sbom", SBOM), ("dev", DEV)])
def test_group_is_pinned(name: str, lock: Path) -> None:
    """A dependency group is pinned within its bounds in its lock file."""
    assert [] == unmet(group(name), lock)


@pytest.mark.parametrize("file", [SERVICE, SDK], ids=["service", "sdk"])
def test_build_requirements_are_locked(file: Path) -> None:
    """What builds a project is pinned too, since it is installed without build isolation."""
    assert [] == unmet(project(file)["build-system"]["requires"], BUILD)


def test_unmet_requirement_is_found() -> None:
    """A requirement that no lock pins, or that asks for another version, is told."""
    declared = ["httpx>=0.28", "httpx<0.1", "no-such-distribution"]
    assert ["httpx<0.1", "no-such-distribution"] == unmet(declared, RUN)


def test_own_projects_are_not_locked() -> None:
    """The two projects of this tree come from this tree, never from a registry."""
    assert set() == {"tidegate", "tidegate-bridge"} & set(pins(DEV))


def test_service_accepts_the_sdk_of_this_tree() -> None:
    """The SDK version that the service asks for is the one that lies beside it."""
    declared = map(Requirement, project(SERVICE)["project"]["dependencies"])
    [wanted] = [each for each in declared if each.name == "tidegate"]
    assert project(SDK)["project"]["version"] in wanted.specifier
