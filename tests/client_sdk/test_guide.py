"""What the SDK's guide shows runs as it stands, over a broker and through a bridge."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import tidegate.errors
from tests.support import seed
from tests.support.bridge import running_bridge, wait_until
from tests.support.certificates import make_certificates
from tests.support.command import ROOT, environment
from tests.support.mosquitto import Mosquitto
from tidegate import Message, Publisher, Subscriber

GUIDE: Final = (ROOT / "client_sdk" / "README.md").read_text(encoding="utf-8")
BROKER_HOST: Final = "broker.example"
BRIDGE_HOST: Final = "bridge.example"
AWS_HOST: Final = "abc123-ats.iot.eu-central-1.amazonaws.com"
SECONDS: Final = 30.0


def blocks() -> dict[str, str]:
    """The Python blocks by the heading that they stand under, numbered from the second on."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        parts = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        found |= {
            f"{heading} {number}" if number > 1 else heading: part for number, part in enumerate(parts, 1)
        }
    return found


@dataclass(frozen=True)
class Effects:
    """What running a block does.

    Attributes:
        published: the topics that it publishes to.
        sent: what somebody else publishes meanwhile.
        printed: what it prints, in any order.
    """

    published: frozenset[str] = frozenset()
    sent: tuple[tuple[str, Any], ...] = ()
    printed: tuple[str, ...] = ()


def effects(
    *published: str, sent: tuple[tuple[str, Any], ...] = (), printed: tuple[str, ...] = ()
) -> Effects:
    """``Effects``, written shorter."""
    return Effects(frozenset(published), sent, printed)


EFFECTS: Final = {
    "Five lines": effects(
        "sensors/kitchen/temperature",
        sent=(("sensors/x", {"n": 1}),),
        printed=("{'n': 1}", "{'celsius': 21.5}"),
    ),
    "Five lines 2": effects("sensors/kitchen/temperature", printed=("{'celsius': 21.5}",)),
    "Direct and bridge, side by side": effects("sensors/hall/humidity"),
    "Direct and bridge, side by side 2": effects("sensors/kitchen/door"),
    "Publish": effects("sensors/kitchen/temperature", "sensors/hall/temperature"),
    "Publish 2": effects("jobs/done"),
    "Publish 3": effects("sensors/kitchen/humidity", "logs/kitchen", "state/kitchen", printed=("Success",)),
    "Publish 4": effects(*(f"meters/{number}" for number in range(100)), printed=("100 were taken",)),
    "Ask and reply": effects("devices/7/commands", printed=("4711",)),
    "Subscribe": effects(
        sent=(
            ("sensors/kitchen/temperature", {"celsius": 21.5}),
            ("sensors/kitchen/temperature", "warm"),
            ("alerts/fire", "run"),
            ("tasks/1", "work"),
        ),
        printed=("kitchen has 21.5", 'alerts/fire says "run"', 'tasks/1 says "work"'),
    ),
    "Subscribe 2": effects(
        "values/a",
        sent=(("alerts/a", 2), ("logs/a/b", 3)),
        printed=("values/a is 1", "alerts/a is 2", "logs/a/b is 3"),
    ),
    "Subscribe 3": effects(sent=(("alerts/fire", b"run"),), printed=("run",)),
    "When something goes wrong": effects(printed=("no topic: sensors/+/temperature caller False",)),
    "Retries": effects("sensors/kitchen/temperature"),
}

WITH_TLS: Final = {"TLS": "plant/line1/state", "AWS IoT": "things/thing-1/state"}
OF_PYTEST: Final = {"Testing your program", "Testing your program 2"}


def test_every_block_is_run() -> None:
    """A block that is added to the guide without its effects here is an error."""
    assert set(blocks()) == EFFECTS.keys() | WITH_TLS.keys() | OF_PYTEST


@pytest.fixture(params=["direct", "bridge"])
def places(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A broker's URL and a bridge's port, under the names of the guide; the environment leads to one."""
    with Mosquitto() as real, running_bridge(real.url, allowed_hosts=(BRIDGE_HOST,)) as bridge:
        monkeypatch.setenv("TIDEGATE_URL", real.url if request.param == "direct" else bridge.url)
        seed.lead(monkeypatch, {(BROKER_HOST, 1883): real.port, (BRIDGE_HOST, bridge.port): bridge.port})
        yield real.url, bridge.port


@pytest.mark.parametrize("name", EFFECTS)
def test_a_block_does_what_it_says(
    name: str, places: tuple[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The broker sees what it publishes, and it prints what is published to it."""
    expected = EFFECTS[name]
    url, port = places
    code = blocks()[name].replace(f"{BRIDGE_HOST}:8080", f"{BRIDGE_HOST}:{port}")  # httpx keeps to its port
    seen: set[str] = set()
    sent = {topic for topic, _ in expected.sent}
    done = threading.Event()
    printed = ""
    failed: list[BaseException] = []
    module = types.ModuleType("guide")

    def run() -> None:
        try:
            exec(compile(code, "<guide>", "exec"), vars(module))
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    def keep(message: Message) -> None:
        seen.add(message.topic)

    def has_happened() -> bool:
        nonlocal printed
        assert not failed, failed
        for topic, value in expected.sent:
            publisher.publish(topic, value)
        printed += capsys.readouterr().out
        return expected.published | sent <= seen and all(line in printed for line in expected.printed)

    monkeypatch.setitem(sys.modules, "guide", module)  # where dataclasses look for their annotations
    monkeypatch.setattr("builtins.input", lambda _: done.wait(SECONDS))
    with Subscriber(url) as witness, Publisher(url) as publisher:
        witness.subscribe("#", keep, qos=2)
        running = threading.Thread(target=run)
        running.start()
        wait_until(has_happened)
        done.set()
        running.join(SECONDS)
    assert (failed, running.is_alive()) == ([], False)
    assert {topic for topic in seen if not topic.startswith("tidegate/replies/")} == expected.published | sent


@pytest.mark.parametrize("attempt", range(3))
def test_the_five_lines_print_what_they_publish(fresh_mosquitto: Mosquitto, attempt: int) -> None:
    """A program of its own hears itself and ends: the broker sends the message before it acknowledges it."""
    done = subprocess.run(
        [sys.executable, "-c", blocks()["Five lines"]],
        env=environment({"TIDEGATE_URL": fresh_mosquitto.url}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "{'celsius': 21.5}", "")


@pytest.mark.parametrize("name", WITH_TLS)
def test_a_block_with_certificates_publishes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker at that host wants a client certificate, and gets the one of the files."""
    certificates = make_certificates(tmp_path / "made", BROKER_HOST, AWS_HOST)
    (tmp_path / "certs").mkdir()
    for target, source in {
        "ca.pem": certificates.ca,
        "device.pem": certificates.client_certificate,
        "device.key": certificates.client_key,
    }.items():
        (tmp_path / "certs" / target).write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    with Mosquitto(tls=certificates, require_certificate=True) as real:
        seed.lead(monkeypatch, {(BROKER_HOST, 8883): real.port, (AWS_HOST, 8883): real.port})
        with Subscriber(real.url, tls=certificates.client_context(with_certificate=True)) as witness:
            witness.subscribe("#", lambda topic, payload: seen.append(topic))
            exec(compile(blocks()[name], "<guide>", "exec"), {"__name__": "guide"})
            wait_until(lambda: WITH_TLS[name] in seen)


def test_the_example_of_tests_passes(tmp_path: Path) -> None:
    """The program and its tests, run by pytest with nothing configured and no broker."""
    (tmp_path / "thermometer.py").write_text(blocks()["Testing your program"])
    (tmp_path / "test_thermometer.py").write_text(blocks()["Testing your program 2"])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cloudcoil", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    """The guide draws the same names in the same places."""
    drawing = re.compile(r"^ +((?:[│ ]+)?(?:[├└]── )?)(\w+)", re.MULTILINE)

    def tree(text: str) -> list[tuple[str, str]]:
        return [(branch.strip(), name) for branch, name in drawing.findall(text) if name.endswith("Error")]

    section = GUIDE.partition("## When something goes wrong")[2].partition("\n`fault`")[0]
    assert tree(section) == tree(tidegate.errors.__doc__ or "")
