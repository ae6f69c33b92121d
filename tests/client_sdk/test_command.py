from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bridge import wait_until
from tests.support.mosquitto import Mosquitto
from tests.support.ports import ReservedPort
from tidegate import Message, Properties, Publisher, Subscriber
from tidegate.transports.envelope import read_envelope, write_envelope

COMMAND = [sys.executable, "-m", "tidegate"]


def run(arguments: Sequence[str], url: str = "", *, given: bytes = b"", code: int = 0) -> tuple[bytes, bytes]:
    """Run the command to its end; gives what it wrote."""
    outcome = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "TIDEGATE_URL": url},
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (outcome.returncode, code) == (code, code), outcome.stderr.decode()
    return outcome.stdout, outcome.stderr


@pytest.fixture(params=["direct", "bridge"])
def url(request: pytest.FixtureRequest) -> str:
    """A broker's URL, and a bridge's."""
    if request.param == "direct":
        return str(request.getfixturevalue("mosquitto").url)
    return str(request.getfixturevalue("bridge_url"))


class Following:
    """``sub`` in the background, following already when the block begins."""

    def __init__(self, arguments: Sequence[str], url: str, publisher: Publisher, topic: str) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "sub", *arguments],
            env={**os.environ, "TIDEGATE_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._publisher = publisher
        self._topic = topic
        publisher.publish(topic, b"first", retain=True)  # comes as soon as the broker granted the filter

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._publisher.publish(self._topic, b"", retain=True)
        self._process.kill()
        self._process.communicate(timeout=60)


def test_pub_sends_the_payload_byte_for_byte(url: str, mosquitto: Mosquitto) -> None:
    """From the command line, from all of standard input, and line by line; with QoS and retain."""
    got: list[Message] = []

    def keep(message: Message) -> None:
        got.append(message)

    with Subscriber(mosquitto.url) as subscriber:
        subscriber.subscribe("command/pub", keep, qos=2)
        run(["pub", "-t", "command/pub", "-m", '{"a": 1}'], url)
        run(["pub", "-t", "command/pub", "-q", "2"], url, given=b"\x00\xff\n")
        run(["pub", "-t", "command/pub", "-q0", "--stdin-lines"], url, given=b"one\r\n\ntwo\nlast")
        run(["pub", "--url", url, "-t", "command/pub", "-r", "-m", "kept"], "mqtt://127.0.0.1:1")
        wait_until(lambda: len(got) == 7)
    assert [each.payload for each in got] == [
        b'{"a": 1}',
        b"\x00\xff\n",
        b"one",
        b"",
        b"two",
        b"last",
        b"kept",
    ]
    assert [each.qos for each in got] == [1, 2, 0, 0, 0, 0, 1]
    stdout, _ = run(["sub", "-t", "command/pub", "--count", "1"], url)
    assert stdout == b"kept\n"
    run(["pub", "-t", "command/pub", "-r", "-m", ""], url)


def test_sub_writes_what_comes_and_ends_at_its_count(url: str, mosquitto: Mosquitto) -> None:
    """Each payload as it is, on a line; several filters give a message once."""
    with (
        Publisher(mosquitto.url) as publisher,
        Following(
            ["-t", "command/sub/#", "-t", "command/sub/+", "--count", "3"], url, publisher, "command/sub/0"
        ) as program,
    ):
        assert program.stdout is not None
        assert program.stdout.readline() == b"first\n"
        publisher.publish("command/sub/1", b"\xff\x00")
        publisher.publish("command/sub/2", {"n": 1})
        output, errors = program.communicate(timeout=60)
        assert (program.returncode, output, errors) == (0, b'\xff\x00\n{"n":1}\n', b"")


def test_sub_writes_one_json_object_a_line(url: str, mosquitto: Mosquitto) -> None:
    """What a bridge's stream would say: topic, payload and its encoding, QoS, properties."""
    with (
        Publisher(mosquitto.url) as publisher,
        Following(["-t", "command/json", "--json", "-c", "4"], url, publisher, "command/json") as program,
    ):
        assert program.stdout is not None
        assert json.loads(program.stdout.readline())["retain"] is True
        properties = Properties(content_type="a/b", user_properties=(("a", "1"), ("a", "2")))
        publisher.publish("command/json", b'{\n"n": 1.50}', properties=properties)
        publisher.publish("command/json", b"\xff", qos=0)
        publisher.publish("command/json", "grün".encode())
        output, _ = program.communicate(timeout=60)
    lines: list[dict[str, Any]] = [json.loads(each) for each in output.splitlines()]
    assert [(each["payload"], each["encoding"], each["qos"]) for each in lines] == [
        ({"n": 1.5}, "json", 1),
        ("/w==", "base64", 0),
        ("grün", "text", 1),
    ]
    assert lines[0]["properties"] == {"content_type": "a/b", "user_properties": [["a", "1"], ["a", "2"]]}
    assert b"1.50" in output


@given(
    st.builds(
        Message,
        topic=st.text(min_size=1),
        payload=st.binary() | st.text().map(str.encode) | st.sampled_from([b'{"a":\r\n1.0}', b"NaN", b"[1]"]),
        qos=st.integers(0, 2),
        retain=st.booleans(),
        properties=st.builds(
            Properties,
            content_type=st.none() | st.text(),
            correlation_data=st.none() | st.binary(),
            user_properties=st.lists(st.tuples(st.text(), st.text())).map(tuple),
        ),
        received_at=st.integers(0, 2**40).map(lambda number: number / 1000),
    )
)
def test_a_written_event_is_read_back(message: Message) -> None:
    """On one line, with nothing lost but line ends between the parts of a JSON value."""
    line = write_envelope(message)
    assert "\n" not in line
    found = read_envelope(line)
    assert found == replace(
        message,
        payload=found.payload,
        received_at=found.received_at,
        properties=message.properties if message.properties != Properties() else found.properties,
    )
    assert found.received_at == pytest.approx(message.received_at, abs=0.001)
    if found.payload != message.payload:
        assert json.loads(found.payload) == json.loads(message.payload)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pub", "-t", "a/#", "-m", "1"], "wildcard"),
        (["sub", "-t", "a/#/b"], "#"),
        (["pub", "-t", "a", "-m", "1", "-q", "3"], "0, 1 or 2"),
        (["sub", "-t", "a", "-q", "7"], "0, 1 or 2"),
        (["sub", "-t", "a", "--url", "ftp://host"], "must begin with"),
    ],
    ids=repr,
)
def test_wrong_arguments_are_one_line_and_code_2(arguments: list[str], words: str) -> None:
    """What is wrong, without a trace."""
    output, errors = run(arguments, code=2)
    assert output == b""
    assert errors.startswith(b"tidegate: ")
    assert errors.count(b"\n") == 1
    assert words in errors.decode()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("pub -t a <&-", "standard input is closed: give the payload with -m"),
        ("pub -t a --stdin-lines <&-", "standard input is closed"),
        ("pub -t a 0>/dev/null", "standard input cannot be read: Bad file descriptor"),
        ("sub -t a >&-", "standard output is closed"),
    ],
)
def test_a_closed_stream_is_one_line_and_code_2(command: str, words: str, mosquitto: Mosquitto) -> None:
    """As a supervisor may start it; the line says what to do."""
    outcome = _run_in_shell(command, mosquitto.url)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("tidegate: ")
    assert outcome.stderr.count("\n") == 1
    assert words in outcome.stderr


def test_streams_that_are_not_needed_may_be_closed(mosquitto: Mosquitto) -> None:
    """A payload of the command line needs none, and what goes wrong is told by the code."""
    assert _run_in_shell("pub -t a -m 1 <&- >&- 2>&-", mosquitto.url).returncode == 0
    assert _run_in_shell("pub -t 'a/#' -m 1 <&- >&- 2>&-", mosquitto.url).returncode == 2


def _run_in_shell(command: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"exec '{sys.executable}' -m tidegate {command}"],
        env={**os.environ, "TIDEGATE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [[], ["pub"], ["sub", "-t", "a", "--count", "0"], ["pub", "-t", "a", "-m", "1", "--stdin-lines"]],
)
def test_a_wrong_command_line_shows_the_usage(arguments: list[str]) -> None:
    """As argparse does, with code 2."""
    _, errors = run(arguments, code=2)
    assert errors.startswith(b"usage: python -m tidegate")


@pytest.mark.parametrize("scheme", ["mqtt", "http"])
@pytest.mark.parametrize("arguments", [["pub", "-t", "a", "-m", "1"], ["sub", "-t", "a"]], ids=repr)
def test_a_broker_that_is_away_is_one_line_and_code_1(scheme: str, arguments: list[str]) -> None:
    """At once, with the address."""
    with ReservedPort() as reserved:
        _, errors = run(arguments, f"{scheme}://127.0.0.1:{reserved.number}", code=1)
    assert errors.startswith(b"tidegate: ")
    assert errors.count(b"\n") == 1
    assert str(reserved.number).encode() in errors


def test_a_refusal_is_code_1(bridge_url: str) -> None:
    """With the broker's reason."""
    with Mosquitto(denied="denied/#") as broker:
        _, errors = run(["pub", "-t", "denied/a", "-m", "1"], broker.url, code=1)
        assert b"Not authorized" in errors
        _, errors = run(["sub", "-t", "denied/a"], broker.url, code=1)
        assert b"Not authorized" in errors


@pytest.mark.parametrize(
    "arguments", [["sub", "-t", "command/int", "-v"], ["pub", "-t", "a", "--stdin-lines", "-v"]]
)
def test_control_c_ends_it_with_code_130(arguments: list[str], mosquitto: Mosquitto) -> None:
    """Also while it waits for standard input; no trace."""
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += f"import sys; from tidegate.command import main; sys.exit(main({arguments!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TIDEGATE_URL": mosquitto.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stderr is not None
        while b"connected to" not in (line := running.stderr.readline()):
            assert line, "it ended before it was connected"
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert b"Traceback" not in running.stderr.read()


def test_a_reader_that_has_had_enough_ends_it_quietly(mosquitto: Mosquitto) -> None:
    """``sub | head`` is no error."""
    with (
        Publisher(mosquitto.url) as publisher,
        Following(["-t", "command/pipe"], mosquitto.url, publisher, "command/pipe") as program,
    ):
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == b"first\n"
        program.stdout.close()

        def has_ended() -> bool:
            publisher.publish("command/pipe", b"more")
            return program.poll() is not None

        wait_until(has_ended)
        assert program.returncode == 0
        assert program.stderr.read() == b""
        program.stdout = None


def test_help_teaches() -> None:
    """It shows examples, where the URL comes from, and the exit codes."""
    for arguments in (["--help"], ["pub", "--help"], ["sub", "--help"]):
        output, _ = run(arguments)
        for words in ("examples:", "TIDEGATE_URL", "mqtt://localhost:1883", "exit codes"):
            assert words in output.decode()
