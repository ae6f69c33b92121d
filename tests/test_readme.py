"""What README.md tells to type is typed: its commands run as they stand, but for the bridge's address."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge import wait_until
from tests.support.command import ROOT, SECONDS, Command, environment, run_command
from tests.support.ports import ReservedPort
from tidegate import Subscriber

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    """What ``make run`` starts, on a port of its own: the bridge's URL and the embedded broker's."""
    with ReservedPort() as port, Command("dev", "--port", str(port.number)) as running:
        running.wait_for("# publish from Python")
        bridge = re.search(r"console +(http://127\.0\.0\.1:\d+)/console", running.output)
        broker = re.search(r"broker +(mqtt://127\.0\.0\.1:\d+)", running.output)
        assert bridge is not None
        assert broker is not None
        yield bridge[1], broker[1]


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def command(word: str, url: str) -> str:
    """The one command that has this word in it, for the bridge at this address."""
    found = [block.strip() for block in blocks("console") if word in block]
    assert len(found) == 1, f"README.md has {len(found)} commands with {word!r}"
    return found[0].replace(ADDRESS, url)


def test_the_publishing_command_gets_the_answer_that_is_shown(urls: tuple[str, str]) -> None:
    """Topic, QoS and retain flag are those of the answer in the text; the reason is a success."""
    done = subprocess.run(
        command("--data", urls[0]), shell=True, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    answer, shown = json.loads(done.stdout), json.loads(blocks("json")[0])
    assert list(answer) == list(shown)
    assert answer["reason_code"] in (0x00, 0x10)
    kept = ("topic", "qos", "retain")
    assert [answer[name] for name in kept] == [shown[name] for name in kept]


def test_the_following_command_shows_what_is_published(urls: tuple[str, str]) -> None:
    """An id line, and a data line with the topic and the payload."""
    lines: list[str] = []
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec {command('--no-buffer', urls[0])}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as following:
        assert following.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(iter(following.stdout.readline, "")))  # type: ignore[union-attr]
        reader.start()
        wait_until(lambda: any(line.startswith("retry:") for line in lines))
        subprocess.run(
            command("--data", urls[0]), shell=True, capture_output=True, timeout=SECONDS, check=True
        )
        wait_until(lambda: any(line.startswith("data: ") for line in lines))
        following.terminate()
        reader.join(SECONDS)
    assert any(re.fullmatch(r"id: [\w.]{22}-[0-9a-f]{8}(-r)?\n", line) for line in lines)
    event = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
    assert (event["topic"], event["payload"]) == ("sensors/kitchen/temperature", {"celsius": 21.5})


@pytest.mark.parametrize("way", [0, 1], ids=["bridge", "direct"])
def test_the_python_program_runs_over_both_ways(urls: tuple[str, str], way: int) -> None:
    """The same lines publish through the bridge and straight to the broker, and hear what they publish."""
    got: list[Any] = []
    with Subscriber(urls[1]) as witness:
        witness.subscribe("sensors/+/temperature", lambda _, payload: got.append(payload))
        got.clear()
        done = subprocess.run(
            [sys.executable, "-c", blocks("python")[0]],
            env=environment({"TIDEGATE_URL": urls[way]}),
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert "21.5\n" in done.stdout
        wait_until(lambda: {"celsius": 21.5} in got)


def test_the_doctor_finds_the_way_to_the_broker(urls: tuple[str, str]) -> None:
    """The command that the text names, for the broker that runs."""
    assert "`tidegate doctor mqtt://localhost:1883`" in README
    done = run_command("doctor", urls[1])
    assert (done.returncode, "All is well." in done.stdout) == (0, True)


def test_the_command_for_a_broker_of_ones_own_exists() -> None:
    """``tidegate serve`` takes its broker from the variable that the text names."""
    assert "TIDEGATE_BROKER_URL=mqtt://localhost:1883 .venv/bin/tidegate serve" in README
    assert "TIDEGATE_BROKER_URL" in run_command("serve", "--help").stdout


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name
)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    """A link without a scheme names a file or a directory of the tree."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{target} in {page.name}"
