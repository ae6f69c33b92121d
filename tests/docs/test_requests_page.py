"""What docs/requests.md tells to run is run: a device of a few lines, and a command that asks it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import ROOT, SECONDS, environment
from tests.support.mosquitto import Mosquitto, find_program

PAGE = (ROOT / "docs" / "requests.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


def block(language: str) -> str:
    """The first code block of a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].strip()


@pytest.fixture
def bridge(mosquitto: Mosquitto) -> Iterator[Bridge]:
    """A bridge, and the page's device at the same broker."""
    with (
        running_bridge(mosquitto.url) as running,
        subprocess.Popen(
            [sys.executable, "-c", block("python")], env=environment({"TIDEGATE_URL": mosquitto.url})
        ) as device,
    ):
        answers = "/v1/requests/devices/7/commands?timeout=0.5"
        wait_until(lambda: running.client.post(answers, content=b"ready?").status_code == 200, SECONDS)
        yield running
        device.terminate()


def test_the_command_gets_the_answer_that_is_shown(bridge: Bridge) -> None:
    """The device of the page answers the command of the page as the page says."""
    command = block("console").replace(ADDRESS, bridge.url)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert json.loads(done.stdout) == json.loads(block("json"))


@pytest.mark.usefixtures("bridge")
def test_the_device_answers_mosquittos_requester_too(mosquitto: Mosquitto) -> None:
    """The page names its options."""
    found = re.search(r"`mosquitto_rr (-V .*?)`", PAGE)
    assert found is not None
    command = [find_program("mosquitto_rr"), "-p", str(mosquitto.port), "-W", "20", *found[1].split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert json.loads(done.stdout) == json.loads(block("json"))
