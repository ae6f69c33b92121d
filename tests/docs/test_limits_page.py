"""docs/limits.md and the settings say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.problems import ProblemType
from app.settings import Settings
from app.settings.page import shown
from app.settings.sources import PREFIX
from tests.support.command import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")

IS_BOUND = re.compile(
    r"max_|_max_|_timeout_seconds$|_idle_seconds$|_lifetime_seconds$|^rate_limit_|^max_"
).search
"""What the names of bounds are like."""


def rows() -> Iterator[tuple[str, str, str]]:
    """Setting, default and consequence of each row that has a setting."""
    for line in PAGE.splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if line.startswith("|") and cells[1].startswith(f"`{PREFIX}"):
            yield cells[1].strip("`").removeprefix(PREFIX).lower(), cells[2], cells[3]


def test_every_bound_is_on_the_page() -> None:
    """A new one has to find its row."""
    assert {name for name in Settings.model_fields if IS_BOUND(name)} == {name for name, _, _ in rows()}


def test_defaults_are_those_of_the_settings() -> None:
    """As docs/configuration.md shows them."""
    for name, default, _ in rows():
        assert shown(Settings.model_fields[name].default) == default, name


def test_refusals_are_types_of_problems() -> None:
    """With their status; what is no refusal names a reason of a close."""
    kinds = {kind.slug: kind.status for kind in ProblemType}
    for name, _, consequence in rows():
        for status, slug in re.findall(r"(\d{3}) `([a-z-]+)`", consequence):
            assert kinds[slug] == int(status), name
