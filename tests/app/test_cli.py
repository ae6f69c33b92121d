"""The command: its help, its errors, and how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography.fernet import Fernet

from tests.support.bridge import wait_until
from tests.support.certificates import Certificates
from tests.support.command import ROOT, Command, run_command
from tests.support.mosquitto import Mosquitto
from tests.support.ports import LOOPBACK, ReservedPort

COMMANDS = ("serve", "dev", "openapi", "doctor")


def test_help_names_the_commands() -> None:
    """A newcomer sees what there is, and where to begin."""
    answer = run_command("--help")
    assert 0 == answer.returncode
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", answer.stdout, re.MULTILINE), command
    assert "'tidegate dev' starts everything" in answer.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(command: str) -> None:
    """Each command says what it is for, and shows one call."""
    answer = run_command(command, "--help")
    assert 0 == answer.returncode
    assert f"Example: tidegate {command}" in answer.stdout


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("--host", "TIDEGATE_HOST"),
        ("--port", "TIDEGATE_PORT"),
        ("--broker-url", "TIDEGATE_BROKER_URL"),
        ("--log-level", "TIDEGATE_LOG_LEVEL"),
    ],
)
def test_help_names_the_variable_of_an_option(option: str, variable: str) -> None:
    """What can be said on the command line can be said in the environment."""
    text = " ".join(run_command("serve", "--help").stdout.split())
    assert option in text
    assert f"[env: {variable}]" in text


def test_version() -> None:
    """The version is one line."""
    answer = run_command("--version")
    assert 0 == answer.returncode
    assert re.fullmatch(r"tidegate \d+\.\d+\.\d+\n", answer.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_settings_end_with_status_2_and_one_line(command: str) -> None:
    """No command starts with settings that it does not understand, and none shows a stack trace."""
    answer = run_command(command, settings={"TIDEGATE_PROT": "1"})
    assert (2, "") == (answer.returncode, answer.stdout)
    assert "tidegate: TIDEGATE_PROT is no setting; did you mean TIDEGATE_PORT?\n" == answer.stderr


def test_an_option_is_checked_like_its_variable() -> None:
    """The same words, whichever way the value came."""
    answer = run_command("serve", "--port", "65536")
    assert 2 == answer.returncode
    assert "TIDEGATE_PORT=65536 is not allowed; write a whole number from 0 to 65535" in answer.stderr


def test_beyond_loopback_is_refused() -> None:
    """Nobody opens the bridge to the network by accident."""
    answer = run_command("serve", "--host", "0.0.0.0")
    assert 2 == answer.returncode
    assert "TIDEGATE_INSECURE=1" in answer.stderr
    assert 1 == len(answer.stderr.splitlines())


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["openapi", "--check"], 0), (["doctor"], 0), (["credentials", "list"], 2), (["dev"], 2)],
    ids=["openapi", "doctor", "credentials", "dev"],
)
def test_only_what_listens_asks_who_may_reach_it(
    mosquitto: Mosquitto, arguments: list[str], status: int
) -> None:
    """The image sets TIDEGATE_HOST; commands that serve nothing are run in it with nothing else set."""
    settings = {"TIDEGATE_HOST": "0.0.0.0", "TIDEGATE_BROKER_URL": mosquitto.url}
    answer = run_command(*arguments, settings=settings)
    assert status == answer.returncode, answer.stderr
    assert (arguments == ["dev"]) == ("TIDEGATE_HOST" in answer.stderr)


def test_a_taken_port_is_one_line_and_status_1() -> None:
    """What keeps the bridge from starting is said in words, and what to do about it."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        answer = run_command("serve", "--port", str(port))
    assert 1 == answer.returncode
    assert (
        f"tidegate: nothing can listen at 127.0.0.1, port {port}: Address already in use; "
        "name another with --port (TIDEGATE_PORT)\n"
    ) == answer.stderr


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_broker_s_url_without_its_scheme_is_told_with_it(command: str) -> None:
    """What could be meant is shown, and neither what would be refused nor a setting that is not set."""
    arguments = ("serve", "--broker-url") if command == "serve" else ("doctor",)
    answer = run_command(*arguments, "localhost:1883")
    assert 2 == answer.returncode
    assert "did you mean mqtt://localhost:1883?" in answer.stderr
    assert "http" not in answer.stderr
    assert (command == "serve") == ("TIDEGATE_BROKER_URL" in answer.stderr)


def test_a_broker_without_tls_is_checked_whatever_is_set_for_another(
    mosquitto: Mosquitto, certificates: Certificates
) -> None:
    """The files for TLS are those of the broker that is configured; the URL names one that needs none."""
    settings = {
        "TIDEGATE_BROKER_URL": "mqtts://broker.example",
        "TIDEGATE_BROKER_CA_FILE": str(certificates.ca),
        "TIDEGATE_BROKER_CERTIFICATE_FILE": str(certificates.client_certificate),
        "TIDEGATE_BROKER_KEY_FILE": str(certificates.client_key),
        "TIDEGATE_BROKER_KEY_PASSPHRASE": "unused",
    }
    answer = run_command("doctor", mosquitto.url, settings=settings)
    assert 0 == answer.returncode, answer.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_streams_with_a_word_and_the_process_with_status_0(
    mosquitto: Mosquitto, number: signal.Signals
) -> None:
    """Who follows a topic is told that the bridge stops, and may come back."""
    with (
        ReservedPort() as port,
        Command("serve", "--port", str(port.number), "--broker-url", mosquitto.url) as bridge,
    ):
        url = f"http://{LOOPBACK}:{port.number}"
        bridge.wait_for(f"serving at {url}")
        with httpx.stream("GET", f"{url}/v1/subscribe?topic=cli/%23", timeout=30, trust_env=False) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("retry:")
            status = bridge.interrupt(number)
            rest = list(lines)
        assert 0 == status, bridge.output
        assert "event: close" in rest
        assert any('"reason":"shutdown"' in line and '"may_reconnect":true' in line for line in rest)
    assert "Traceback" not in bridge.output


def test_no_request_is_logged(mosquitto: Mosquitto) -> None:
    """A query string may hold a secret, and a log is read by many."""
    with (
        ReservedPort() as port,
        Command("serve", "--port", str(port.number), "--broker-url", mosquitto.url) as bridge,
    ):
        url = f"http://{LOOPBACK}:{port.number}"
        bridge.wait_for(f"serving at {url}")
        answer = httpx.get(f"{url}/livez?ticket=hunter2", trust_env=False)
        assert "server" not in answer.headers
        assert 0 == bridge.interrupt(signal.SIGTERM)
    assert "hunter2" not in bridge.output
    assert "livez" not in bridge.output


def test_a_log_record_is_one_line_with_time_and_level(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Programs that gather logs read them line by line, from what is said before anything is served on."""
    tmp_path.chmod(0o755)
    store = {
        "TIDEGATE_CREDENTIALS_DIR": str(tmp_path),
        "TIDEGATE_CREDENTIALS_KEY": Fernet.generate_key().decode(),
    }
    with (
        ReservedPort() as port,
        Command("serve", "--port", str(port.number), "--broker-url", mosquitto.url, settings=store) as bridge,
    ):
        bridge.wait_for("serving at")
        assert 0 == bridge.interrupt(signal.SIGTERM)
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    records = [json.loads(line) for line in bridge.output.splitlines()]
    assert "others may look into the folder" in records[0]["message"]
    assert [] == [each for each in records if not moment.fullmatch(each["time"])]
    assert {"time", "level", "logger", "message"} == records[0].keys()
    assert {each["level"] for each in records} <= {"debug", "info", "warning", "error"}


def test_insecure_is_said_loudly(mosquitto: Mosquitto) -> None:
    """Whoever opens the bridge to the network reads so at each start."""
    settings = {"TIDEGATE_INSECURE": "1", "TIDEGATE_HOST": "127.0.0.1"}
    with Command("serve", "--port", "0", "--broker-url", mosquitto.url, settings=settings) as bridge:
        bridge.wait_for("serving at")
        assert 0 == bridge.interrupt(signal.SIGTERM)
    assert '"level":"warning","logger":"tidegate","message":"INSECURE' in bridge.output


def test_openapi_writes_what_it_then_accepts(tmp_path: Path) -> None:
    """The description is YAML, and --check tells a file that is up to date from one that is not."""
    file = tmp_path / "made" / "openapi.yaml"
    assert 1 == run_command("openapi", "--check", "--output", str(file)).returncode
    assert 0 == run_command("openapi", "--output", str(file)).returncode
    assert 0 == run_command("openapi", "--check", "--output", str(file)).returncode
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert "3.1" in document["openapi"]
    assert "/v1/publish" in document["paths"]
    assert "/console" not in document["paths"]
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    answer = run_command("openapi", "--check", "--output", str(file))
    assert 1 == answer.returncode
    assert "run 'tidegate openapi'" in answer.stderr


def test_the_committed_description_is_that_of_the_code() -> None:
    """Whoever changes the API commits its description with it."""
    answer = run_command("openapi", "--check", "--output", str(ROOT / "openapi" / "openapi.yaml"))
    assert 0 == answer.returncode, answer.stderr


def test_doctor_ends_with_status_1_where_a_step_fails() -> None:
    """A script can ask."""
    with ReservedPort() as port:
        answer = run_command("doctor", f"mqtt://{LOOPBACK}:{port.number}")
    assert 1 == answer.returncode
    assert "FAILED  TCP" in answer.stdout
    assert "Is the broker running" in answer.stdout


def test_doctor_ends_with_status_0_where_all_is_well(mosquitto: Mosquitto) -> None:
    """Each step is a line."""
    answer = run_command("doctor", mosquitto.url)
    assert 0 == answer.returncode, answer.stdout
    assert ["URL", "DNS", "TCP", "CONNECT"] == re.findall(r"^ok +([A-Z]+) ", answer.stdout, re.MULTILINE)
    assert answer.stdout.endswith("All is well.\n")


@pytest.mark.parametrize("key", ["client_key", "server_key"])
def test_doctor_shows_the_broker_what_is_mounted(
    certificates: Certificates, tmp_path: Path, key: str
) -> None:
    """A pod asks with the certificate that its bridge goes by; a pair that does not match is told."""
    secret = {"ca.crt": "ca", "tls.crt": "client_certificate", "tls.key": key}
    for name, part in secret.items():
        (tmp_path / name).write_bytes(getattr(certificates, part).read_bytes())
    with Mosquitto(tls=certificates, require_certificate=True) as broker:
        settings = {"TIDEGATE_BROKER_URL": broker.url, "TIDEGATE_CREDENTIALS_MOUNT": str(tmp_path)}
        answer = run_command("doctor", settings=settings)
        elsewhere = run_command("doctor", broker.url, settings=settings)
    assert "Failed at: TLS." in elsewhere.stdout
    if key == "client_key":
        assert re.search(r"^ok +credential .* CN=device-1,", answer.stdout, re.MULTILINE)
        assert answer.stdout.endswith("All is well.\n")
    else:
        assert "does not belong to the certificate" in answer.stdout
        assert answer.stdout.endswith("Failed at: credential.\n")


def test_doctor_shows_the_broker_what_is_in_use(certificates: Certificates, tmp_path: Path) -> None:
    """Of a store it takes what was activated, and before that the files of the settings."""
    bundle = tmp_path / "bundle.pem"
    parts = (certificates.ca, certificates.client_certificate, certificates.client_key)
    bundle.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Mosquitto(tls=certificates, require_certificate=True) as broker:
        settings = {
            "TIDEGATE_BROKER_URL": broker.url,
            "TIDEGATE_CREDENTIALS_DIR": str(tmp_path / "store"),
            "TIDEGATE_CREDENTIALS_KEY": Fernet.generate_key().decode(),
        }
        before = run_command("doctor", settings=settings)
        assert 0 == run_command("credentials", "add", "plant", str(bundle), settings=settings).returncode
        assert 0 == run_command("credentials", "activate", "plant", settings=settings).returncode
        after = run_command("doctor", settings=settings)
    assert "none of the store is in use" in before.stdout
    assert before.stdout.endswith("Failed at: TLS.\n")
    assert after.stdout.endswith("All is well.\n"), after.stdout


def test_serve_uses_the_settings_of_the_broker(certificates: Certificates) -> None:
    """User name, password and authority come from settings of their own, and lead to a ready bridge."""
    settings = {
        "TIDEGATE_BROKER_USERNAME": "bridge",
        "TIDEGATE_BROKER_PASSWORD": "right",
        "TIDEGATE_BROKER_CA_FILE": str(certificates.ca),
    }
    with (
        Mosquitto(passwords={"bridge": "right"}, tls=certificates) as broker,
        ReservedPort() as port,
        Command("serve", "--port", str(port.number), "--broker-url", broker.url, settings=settings) as bridge,
    ):
        url = f"http://{LOOPBACK}:{port.number}"
        bridge.wait_for(f"serving at {url}")
        wait_until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        assert 0 == bridge.interrupt(signal.SIGTERM)
    assert "right" not in bridge.output


def test_serve_answers_the_origins_that_it_was_given(mosquitto: Mosquitto) -> None:
    """A page of a named origin may read the answer, and one of another may not."""
    settings = {"TIDEGATE_CORS_ORIGINS": "https://panel.example"}
    arguments = ("serve", "--broker-url", mosquitto.url, "--port")
    with ReservedPort() as port, Command(*arguments, str(port.number), settings=settings) as bridge:
        url = f"http://{LOOPBACK}:{port.number}"
        bridge.wait_for(f"serving at {url}")
        for origin, allowed in (
            ("https://panel.example", "https://panel.example"),
            ("https://x.example", None),
        ):
            answer = httpx.get(f"{url}/livez", headers={"Origin": origin}, trust_env=False)
            assert allowed == answer.headers.get("access-control-allow-origin")
            assert "Last-Event-ID" in answer.headers["access-control-expose-headers"]
        assert 0 == bridge.interrupt(signal.SIGTERM)
