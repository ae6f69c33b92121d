"""What docs/start.md tells to type is typed, against what ``make run`` starts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.command import ROOT, SECONDS, Command, environment
from tests.support.markdown import blocks
from tests.support.ports import ReservedPort

PAGE: Final = "docs/start.md"
ADDRESS: Final = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """What ``make run`` starts, on a port of its own."""
    with ReservedPort() as port, Command("dev", "--port", str(port.number)) as running:
        running.wait_for("# publish from Python")
        yield f"http://127.0.0.1:{port.number}"


def lines(word: str) -> list[str]:
    """The commands of the block that has this word."""
    [found] = [block.text for block in blocks("console") if block.page == PAGE and word in block.text]
    return found.splitlines()


def run(command: str, directory: Path = ROOT, **settings: str) -> str:
    """Run a line in a shell, and have it succeed; what it wrote."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=directory,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_value_is_kept_read_and_cleared(url: str) -> None:
    """The three commands one after another."""
    put, get, delete = (f"{line} --silent --fail" for line in lines("--request PUT"))
    assert "demo/lamp" == json.loads(run(put.replace(ADDRESS, url)))["topic"]
    assert "on" == run(get.replace(ADDRESS, url))
    assert "demo/lamp" == json.loads(run(delete.replace(ADDRESS, url)))["topic"]


def test_the_program_publishes_through_the_bridge(url: str) -> None:
    """And ends without an error."""
    [program] = [block.text for block in blocks("python") if block.page == PAGE]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment({"TIDEGATE_URL": url}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_a_key_is_made(tmp_path: Path) -> None:
    """It is printed, and the file has its name and not the key."""
    export, create, _ = lines("key create")
    command = re.sub(r"\S+/tidegate", f"{sys.executable} -m app", create)
    key = run(f"{export} && {command}", tmp_path).strip()
    assert key.startswith("tg_")
    kept = (tmp_path / "keys.yaml").read_text()
    assert "panel" in kept
    assert key not in kept
