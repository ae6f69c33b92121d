"""What ``make`` says while it works, and where it is done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.support.command import ROOT

SECONDS: Final = 100.0


def make(*arguments: str) -> list[str]:
    """The lines that a run of make writes to stdout, in which nothing is fetched."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    ran = subprocess.run(
        ["make", "--no-print-directory", "PIP=@true", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in outer},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr
    return ran.stdout.splitlines()


def test_setting_up_is_told_before_it_takes_its_time(tmp_path: Path) -> None:
    """Nobody looks at a silent terminal for half a minute; what is there already is not told again."""
    environment = f"VENV={tmp_path}/venv"
    told = [line for line in make(environment, "install") if "…" in line]
    assert told[0].startswith(f"Setting up {tmp_path}/venv with Python 3.")
    assert ["Fetching what the service needs; it may take a minute …"] == told[1:]
    assert not [line for line in make(environment, "install") if "…" in line]


def test_make_docs_says_where_the_site_is(tmp_path: Path) -> None:
    """The last line has an address to open, of what the builder has written."""
    stamp = tmp_path / "bin" / "sphinx-build"
    stamp.parent.mkdir()
    stamp.write_text("#!/bin/sh\n")
    stamp.chmod(0o755)
    last = make(f"VENV={tmp_path}", "--assume-old", f"{tmp_path}/stamp-dev", "docs")[-1]
    assert last.endswith(f" file://{ROOT}/build/site/index.html")
