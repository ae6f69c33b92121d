"""What a release needs: one version, a changelog in form, and the steps written down."""

from __future__ import annotations

import re
from datetime import date

import pytest

from tests.support.command import ROOT
from tests.test_lock_files import SDK, SERVICE, project

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
RELEASED = re.compile(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)")
VERSION = str(project(SERVICE)["project"]["version"])


def faults(text: str) -> list[str]:
    """Where a changelog is not in the form of Keep a Changelog."""
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    found = [] if parts and parts[0].startswith("[Unreleased]\n") else ["the first part is not [Unreleased]"]
    versions: list[tuple[int, ...]] = []
    for part in parts:
        heading, _, body = part.partition("\n")
        if heading != "[Unreleased]":
            match = RELEASED.fullmatch(heading)
            if match is None:
                found.append(f"{heading!r} is not [x.y.z] - yyyy-mm-dd")
            else:
                versions.append(tuple(int(number) for number in match.groups()[:3]))
                date.fromisoformat(match[4])
        found += _faults_of_kinds(heading, body)
    if versions != sorted(set(versions), reverse=True):
        found.append("versions do not go down")
    return found


def _faults_of_kinds(heading: str, body: str) -> list[str]:
    before, *sections = re.split(r"^### ", body, flags=re.MULTILINE)
    found = [f"{heading}: text outside a section"] if before.strip() else []
    kinds = []
    for section in sections:
        kind, _, lines = section.partition("\n")
        kinds.append(kind)
        entries = re.split(r"^- ", lines, flags=re.MULTILINE)
        if entries[0].strip() or len(entries) < 2:
            found.append(f"{heading}, {kind}: not a list")
        found += [
            f"{heading}, {kind}: no full stop: {entry.strip()!r}"
            for entry in entries[1:]
            if entry.strip()[-1:] not in ".)"
        ]
    if kinds != [kind for kind in KINDS if kind in kinds]:
        found.append(f"{heading}: sections {kinds}, not in the order {KINDS}")
    return found


def test_the_changelog_is_in_form() -> None:
    """Keep a Changelog: Unreleased first, then versions with dates, the newest first, in known sections."""
    assert [] == faults(CHANGELOG)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# Changelog\n\n## [0.1.0] - 2026-01-01\n", "the first part"),
        ("## [Unreleased]\n\n## 0.1.0\n", "is not [x.y.z]"),
        ("## [Unreleased]\n\n## [0.1.0] - 2026-01-01\n\n## [0.2.0] - 2026-02-01\n", "go down"),
        ("## [Unreleased]\n\n### New\n\n- A thing.\n", "sections ['New']"),
        ("## [Unreleased]\n\n### Fixed\n\nA thing.\n", "not a list"),
        ("## [Unreleased]\n\n### Fixed\n\n- A thing\n", "no full stop"),
        ("## [Unreleased]\n\nSoon.\n", "outside a section"),
    ],
)
def test_a_slip_in_the_changelog_is_found(text: str, words: str) -> None:
    """Each rule of the form is looked at."""
    assert [fault for fault in faults(text) if words in fault]


def test_service_and_sdk_are_released_together() -> None:
    """They have one version, and the service asks for the SDK of its own minor version."""
    assert VERSION == project(SDK)["project"]["version"]
    major, minor, _ = VERSION.split(".")
    wanted = f"tidegate>={major}.{minor},<{major}.{int(minor) + 1}"
    assert wanted in project(SERVICE)["project"]["dependencies"]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("deploy/helm/tidegate/Chart.yaml", r"^(?:v|appV)ersion: (\S+)$"),
        ("deploy/compose.yaml", r"image: tidegate:(\S+)$"),
        ("deploy/kubernetes/overlays/production/kustomization.yaml", r"newTag: (\S+)$"),
        ("docs/image.md", r"tidegate:(\d+\.\d+\.\d+)"),
    ],
)
def test_what_cannot_ask_for_the_version_repeats_it(path: str, pattern: str) -> None:
    """Files of other tools carry the same number; docs/releasing.md lists them."""
    found = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found
    assert {VERSION} == set(found)
    assert path in (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
