"""docs/sizing.md says what docs/performance.md measured, and computes right."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Final

from app.settings import Settings
from tests.support.command import ROOT
from tests.support.markdown import blocks

PAGE: Final = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
MEASURED: Final = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_measured_figures_are_those_of_the_performance_page() -> None:
    """Each number of the table stands there too."""
    table = PAGE.partition("## What was measured")[2].partition("\n## ")[0]
    figures = re.findall(r"^\|[^|]+\| ([\d.,]+) (?:µs|KiB) \|", table, re.MULTILINE)
    assert 9 == len(figures)
    numbers = set(re.findall(r"(?<![\d.,])[\d][\d.,]*(?<![.,])", MEASURED))
    assert {*figures, "701,860"} <= numbers


def test_the_calculation_gives_what_is_shown() -> None:
    """The program of the page is run, and starts from the setting's default."""
    [program] = [block for block in blocks("python") if block.page == "docs/sizing.md"]
    [shown] = [block for block in blocks("") if block.page == "docs/sizing.md"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program.text, program.place, "exec"), {})
    assert shown.text == printed.getvalue()
    assert f"listeners_a_process = {Settings.model_fields['max_streams'].default:_}" in program.text
