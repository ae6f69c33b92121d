"""``tidegate dev``: what it starts, what it prints, and how it ends."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.dev.banner import key_needed
from app.dev.sensors import SENSORS, Sensor
from app.settings import Settings
from tests.support.bridge import wait_until
from tests.support.command import ROOT, SECONDS, Command, environment
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort, is_listening
from tidegate.connection import ConnectOptions
from tidegate.message import Message
from tidegate.session import Session

LAST_LINE = "# publish from Python"


@pytest.fixture(scope="module")
def dev() -> Iterator[Command]:
    """One ``tidegate dev`` for the tests that only look."""
    with ReservedPort() as port, Command("dev", "--port", str(port.number)) as running:
        running.wait_for(LAST_LINE)
        yield running


def printed(dev: Command) -> tuple[str, str, str]:
    """The three commands: each is the line after a comment."""
    wait_until(lambda: dev.output.rstrip().endswith(")()'"), SECONDS)
    lines = [line.strip() for line in dev.output.splitlines()]
    found = [lines[number + 1] for number, line in enumerate(lines) if line.startswith("# ")]
    assert 3 == len(found), dev.output
    return found[0], found[1], found[2]


def url_of(dev: Command) -> str:
    """Where the bridge says that it is."""
    found = re.search(r"console +(http://127\.0\.0\.1:\d+)/console", dev.output)
    assert found is not None, dev.output
    return found[1]


def in_shell(command: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run what a person would paste."""
    return subprocess.run(
        command,
        shell=True,
        env=environment(settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def follow_until(command: str, text: str) -> str:
    """Run a command that does not end by itself until it has written this text, and return that line."""
    with subprocess.Popen(
        command,
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        timer = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            for line in process.stdout:
                if text in line:
                    os.killpg(process.pid, signal.SIGKILL)
                    return line
        finally:
            timer.cancel()
    raise AssertionError(f"it did not write {text!r} within {SECONDS:g} s")


def test_the_banner_names_console_docs_and_broker(dev: Command) -> None:
    """A newcomer sees where to look; what is named is there."""
    url = url_of(dev)
    for name in ("console", "docs"):
        assert f"{url}/{name}" in dev.output
        assert 200 == httpx.get(f"{url}/{name}", trust_env=False).status_code
    assert re.search(r"broker +mqtt://127\.0\.0\.1:\d+ with MQTT 5", dev.output)


def test_the_first_command_publishes(dev: Command) -> None:
    """The printed curl publishes, and is told so."""
    answer = in_shell(printed(dev)[0])
    assert 0 == answer.returncode, answer.stderr
    assert '"topic":"demo/hello"' in answer.stdout
    assert '"reason_code":' in answer.stdout


def test_the_second_command_follows_the_sensors(dev: Command) -> None:
    """The printed curl shows what the made-up sensors publish."""
    line = follow_until(printed(dev)[1], "demo/kitchen/temperature")
    assert line.startswith("data: {")
    assert '"celsius"' in line


def test_the_third_command_publishes_from_python(dev: Command) -> None:
    """The printed line of Python runs as it is, and ends."""
    answer = in_shell(printed(dev)[2])
    assert (0, "") == (answer.returncode, answer.stderr)


def test_the_embedded_broker_takes_the_largest_body(dev: Command) -> None:
    """What the bridge lets through, its broker does not refuse; one byte more, the bridge refuses itself."""
    with httpx.Client(base_url=url_of(dev), trust_env=False, timeout=SECONDS) as client:
        assert 200 == client.post("/v1/topics/large", content=b"x" * 1_048_576).status_code
        assert 413 == client.post("/v1/topics/large", content=b"x" * 1_048_577).status_code


async def test_the_embedded_broker_speaks_3_1_1_too(dev: Command) -> None:
    """The second port is for devices that know no MQTT 5, and the same messages are there."""
    found = re.search(r"mqtt://127\.0\.0\.1:(\d+) with 3\.1\.1", dev.output)
    assert found is not None
    session = Session(ConnectOptions(host=LOOPBACK, port=int(found[1]), protocol_version=4))
    await session.start()
    try:
        limits = await session.connected(SECONDS)
        assert 4 == limits.protocol_version
        await session.publish(Message("old/device", b"here", qos=1, retain=True))
    finally:
        await session.close()
    async with httpx.AsyncClient(base_url=url_of(dev), trust_env=False) as client:
        assert b"here" == (await client.get("/v1/topics/old/device")).content


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_with_status_0(number: signal.Signals) -> None:
    """Bridge and broker are gone without a word of trouble, though every process of the group heard it."""
    with ReservedPort() as port, Command("dev", "--port", str(port.number)) as running:
        running.wait_for(LAST_LINE)
        broker = re.search(r"broker +mqtt://127\.0\.0\.1:(\d+)", running.output)
        assert broker is not None
        assert is_listening(int(broker[1]))
        assert 0 == running.interrupt(number, whole_group=True), running.output
        assert not is_listening(port.number)
        assert not is_listening(int(broker[1]))
    assert "not connected" not in running.output
    assert "Traceback" not in running.output
    assert "KeyboardInterrupt" not in running.output


def test_the_broker_does_not_outlive_a_bridge_that_is_killed() -> None:
    """Nothing is left behind, however the bridge ends."""
    with ReservedPort() as port, Command("dev", "--no-sensors", "--port", str(port.number)) as running:
        running.wait_for(LAST_LINE)
        broker = re.search(r"broker +mqtt://127\.0\.0\.1:(\d+)", running.output)
        assert broker is not None
        running.interrupt(signal.SIGKILL)
        wait_until(lambda: not is_listening(int(broker[1])), SECONDS)


def test_a_broker_of_one_s_own_is_used(fresh_mosquitto: Mosquitto) -> None:
    """With TIDEGATE_BROKER_URL no broker is started, and the sensors publish to that one."""
    user = fresh_mosquitto.url.replace("mqtt://", "mqtt://me:hunter2@")
    settings = {"TIDEGATE_BROKER_URL": user}
    with ReservedPort() as port, Command("dev", "--port", str(port.number), settings=settings) as running:
        running.wait_for(LAST_LINE)
        assert "embedded" not in running.output
        assert "hunter2" not in running.output
        url = f"{url_of(running)}/v1/topics/demo/kitchen/temperature"
        wait_until(lambda: httpx.get(url, trust_env=False).status_code == 200, SECONDS)
        assert 0 == running.interrupt(signal.SIGINT)
    assert 2 == fresh_mosquitto.log.count("New client connected")


def test_without_sensors(fresh_mosquitto: Mosquitto) -> None:
    """Only the bridge itself connects."""
    settings = {"TIDEGATE_BROKER_URL": fresh_mosquitto.url}
    arguments = ("dev", "--no-sensors", "--port")
    with ReservedPort() as port, Command(*arguments, str(port.number), settings=settings) as running:
        running.wait_for(LAST_LINE)
        url = f"{url_of(running)}/readyz"
        wait_until(lambda: httpx.get(url, trust_env=False).status_code == 200, SECONDS)
        assert 0 == running.interrupt(signal.SIGINT)
    assert 1 == fresh_mosquitto.log.count("New client connected")


def test_a_taken_port_is_passed_by(mosquitto: Mosquitto) -> None:
    """The next free port is taken, and said."""
    settings = {"TIDEGATE_BROKER_URL": mosquitto.url}
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with Command("dev", "--no-sensors", "--port", str(port), settings=settings) as running:
            running.wait_for(LAST_LINE)
            used = int(url_of(running).rpartition(":")[2])
            assert f"Port {port} is taken; the bridge uses {used}." in running.output
            assert used > port
            assert 200 == httpx.get(f"{url_of(running)}/livez", trust_env=False).status_code
            assert 0 == running.interrupt(signal.SIGTERM)


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda sensor: sensor.topic)
def test_a_sensor_wanders_around_its_usual_value(sensor: Sensor) -> None:
    """Values move, and stay plausible however long it runs."""
    random.seed(7)
    values = [sensor.usual]
    for _ in range(20_000):
        values.append(sensor.next(values[-1]))
    assert len(set(values)) > 19_000
    assert max(abs(value - sensor.usual) for value in values) < 25 * sensor.step


@pytest.mark.parametrize("way", ["api_keys", "secret"])
def test_where_callers_need_a_key_the_commands_have_it(
    fresh_mosquitto: Mosquitto, tmp_path: Path, way: str
) -> None:
    """What is printed makes a key, or a token, and the commands run with it as they stand."""
    keys = tmp_path / "the keys.yaml"
    keys.write_text("keys: []\n")
    own = {"TIDEGATE_API_KEYS_FILE": str(keys)} if way == "api_keys" else {"TIDEGATE_JWT_KEY": "hunter2-" * 8}
    settings = {"TIDEGATE_BROKER_URL": fresh_mosquitto.url, **own}
    arguments = ("dev", "--no-sensors", "--port")
    with ReservedPort() as port, Command(*arguments, str(port.number), settings=settings) as running:
        running.wait_for(LAST_LINE)
        wait_until(lambda: running.output.rstrip().endswith(")()'"), SECONDS)
        lines = [line.strip() for line in running.output.splitlines()]
        key, publish, program = (
            next(line for line in lines if line.startswith(start))
            for start in ("KEY=", "curl --header", "TIDEGATE_TOKEN=")
        )
        stream = next(line for line in lines if "--no-buffer" in line)
        made = in_shell(f"{key}; echo $KEY", own if way == "secret" else {})
        assert made.stdout.strip(), made.stderr
        known = f"KEY={made.stdout.strip()}"
        url = f"{url_of(running)}/v1/principal"
        bearer = {"Authorization": f"Bearer {made.stdout.strip()}"}
        wait_until(lambda: httpx.get(url, headers=bearer, trust_env=False).status_code == 200, SECONDS)
        assert '"reason_code":' in in_shell(f"{known}; {publish}").stdout
        assert (0, "") == ((answer := in_shell(f"{known}; {program}")).returncode, answer.stderr)
        retained = f"{known}; {publish}?retain=true"
        assert '"retain":true' in in_shell(retained).stdout
        assert '"from curl"' in follow_until(f"{known}; {stream}", "data: {")
        assert "hunter2" not in running.output


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"jwt_jwks_url": "https://login.example/keys"}, "a token of your issuer"),
        (
            {"proxy_subject_header": "X", "trusted_proxies": ("10.0.0.7",), "subjects_file": "s"},
            "a client certificate",
        ),
        ({}, ""),
    ],
    ids=["issuer", "certificate", "nobody"],
)
def test_what_cannot_be_made_here_is_told(settings: dict[str, Any], told: str) -> None:
    """Whoever has to have something first is told so; where nobody is asked, nothing is."""
    assert told in key_needed(Settings(**settings))
    assert bool(told) == bool(key_needed(Settings(**settings)))


def test_the_printed_python_is_this_one(dev: Command) -> None:
    """The third command uses the environment that has the SDK, not whatever 'python' is."""
    program = printed(dev)[2].split(" ")[1]
    assert Path(sys.executable) == ROOT / program
