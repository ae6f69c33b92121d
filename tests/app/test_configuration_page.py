"""docs/configuration.md and the settings say the same."""

from __future__ import annotations

from app.settings import Settings
from app.settings.page import render
from tests.support.command import ROOT


def test_the_page_is_what_the_settings_say() -> None:
    """The committed page is made from the class of today: python -m app.settings.page."""
    assert render() == (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_page_names_every_variable_once() -> None:
    """No setting is without a row, and none has two."""
    page = render()
    for field in Settings.model_fields:
        assert 1 == page.count(f"\n| `TIDEGATE_{field.upper()}` |"), field
