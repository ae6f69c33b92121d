"""The page on security names tests that there are, and settings that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from app.settings import Settings

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "security.md").read_text()


def test_the_tests_that_the_page_names_exist() -> None:
    """A test that is renamed or removed takes its claim with it."""
    rows = [row.rsplit("|", 2)[1] for row in PAGE.splitlines() if "`test_" in row]
    assert len(rows) > 15
    for row in rows:
        for named in row.split(";"):
            file, *tests = re.findall(r"`([\w.]+)`", named)
            text = (ROOT / "tests" / "app" / file).read_text()
            for test in tests:
                assert f"def {test}(" in text, (file, test)


def test_the_settings_that_the_page_names_exist() -> None:
    """A setting that is renamed is renamed here too."""
    named = set(re.findall(r"TIDEGATE_([A-Z_]+)", PAGE))
    assert named
    assert {each.lower() for each in named} <= set(Settings.model_fields)


def test_each_claim_has_its_number() -> None:
    """The table says which requirement a test is beside."""
    for row in PAGE.splitlines():
        if "`test_" in row:
            assert re.search(r"\| \d+\.\d+\.\d+(, \d+\.\d+\.\d+)* \|", row), row
