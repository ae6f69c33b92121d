"""``tidegate credentials …``: what a person at a shell sees, and what a script can tell."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from app.cli import cli
from app.credentials.folder_store import FolderStore
from tests.client_sdk.test_bundles_in_zips import KIT, pack
from tests.support.bundles import DEVICE, DIRECT, INTERMEDIATE, ROOT, write
from tests.support.command import ROOT as TREE
from tests.support.command import SECONDS, environment, run_command
from tests.support.credentials import KEY, OLD_KEY, ONE, TWO, activation, one, two
from tests.support.issued import NOW, issue
from tests.support.mounted_secret import MountedSecret

COMMANDS = ("add", "list", "show", "delete", "rekey", "key")
PASSPHRASE = "a canary"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The folder of the store."""
    return tmp_path / "credentials"


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``tidegate credentials``, here, and sees to it that nothing secret is written."""
    for name in list(os.environ):
        if name.upper().startswith("TIDEGATE_"):
            monkeypatch.delenv(name)

    def call(
        *arguments: str | Path, key: str = KEY, stdin: str = "", settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        folder = {"TIDEGATE_CREDENTIALS_DIR": str(path), "TIDEGATE_CREDENTIALS_KEY": key}
        command = ["credentials", *map(str, arguments)]
        done = CliRunner(env=folder if settings is None else settings).invoke(cli, command, input=stdin)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        for secret in (KEY, OLD_KEY, PASSPHRASE, *DIRECT.key().decode().splitlines()[1:-1]):
            assert secret not in done.output
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(run: Run, command: str) -> None:
    """Each says what it is for, and shows one call; the list names them all."""
    answer = run(command, "--help")
    assert 0 == answer.returncode
    assert f"Example: tidegate credentials {command}" in answer.stdout
    assert re.search(rf"^  {command} ", run("--help").stdout, re.MULTILINE)


def test_a_key_is_made_without_any_setting() -> None:
    """Another one each time, and one that can be used."""
    made = [run_command("credentials", "key") for _ in range(2)]
    assert [0, 0] == [each.returncode for each in made]
    assert made[0].stdout != made[1].stdout
    for each in made:
        Fernet(each.stdout.strip())


@pytest.mark.parametrize("command", ["list", "rekey"])
def test_without_a_place_for_credentials_it_says_how_to_make_one(run: Run, command: str) -> None:
    """Status 2, as for any other setting."""
    answer = run(command, settings={})
    assert (2, "") == (answer.returncode, answer.stdout)
    assert (
        "set TIDEGATE_CREDENTIALS_DIR, and TIDEGATE_CREDENTIALS_KEY as 'tidegate credentials key'"
        in answer.stderr
    )


def test_wrong_settings_end_with_status_2(run: Run, tmp_path: Path) -> None:
    """As with every command."""
    settings = {
        "TIDEGATE_CREDENTIALS_DIR": str(tmp_path / "no" / "where"),
        "TIDEGATE_CREDENTIALS_KEY": KEY,
    }
    for command in ("list", "rekey"):
        answer = run(command, settings=settings)
        assert 2 == answer.returncode
        assert "TIDEGATE_CREDENTIALS_DIR: the folder" in answer.stderr
        assert 2 == run(command, settings={"TIDEGATE_PROT": "1"}).returncode


def test_the_life_of_a_credential(run: Run, tmp_path: Path) -> None:
    """It is added from a ZIP as a console gives it, listed, shown and deleted."""
    kit = tmp_path / "kit.zip"
    kit.write_bytes(pack(*KIT))
    assert (0, "") == ((empty := run("list")).returncode, empty.stdout)
    added = run("add", "plant", kit)
    assert (0, 1) == (added.returncode, len(added.stdout.splitlines()))
    assert re.fullmatch(r"stored plant: CN=device-7, until \d{4}-\d\d-\d\d \(89 days left\)\n", added.stdout)
    assert 4 == added.stderr.count("passed over: ")
    run("add", "ca", "--ca", write(tmp_path, ca__pem=ROOT.pem) / "ca.pem")
    first, second = run("list").stdout.splitlines()
    assert "  ca     1 authority, no client certificate" == first
    assert second.startswith("  plant  CN=device-7, until")
    shown = run("show", "plant")
    for words in (
        "certificate  CN=device-7",
        "issued by CN=Another",
        "authority    CN=Cloud Root",
        "SHA-256 ",
    ):
        assert words in shown.stdout
    assert (0, "deleted plant\n") == ((deleted := run("delete", "plant")).returncode, deleted.stdout)
    for command in ("show", "delete"):
        answer = run(command, "plant")
        assert (1, "tidegate: there is no credential 'plant'\n") == (answer.returncode, answer.stderr)


def test_the_one_in_use_is_marked_and_stays(run: Run, path: Path) -> None:
    """It cannot be deleted, and another version of it is not the one in use."""
    store = FolderStore(path, [KEY])
    asyncio.run(store.record(activation(asyncio.run(store.write("plant", one())))))
    assert run("list").stdout.startswith("* plant  CN=device-7")
    assert "name         plant (in use)\n" in run("show", "plant").stdout
    answer = run("delete", "plant")
    assert (1, "") == (answer.returncode, answer.stdout)
    assert "'plant' is in use; activate another one before you delete it" in answer.stderr
    asyncio.run(store.write("plant", two()))
    assert "name         plant\n" in run("show", "plant").stdout


def test_three_files_are_added(run: Run, tmp_path: Path) -> None:
    """Each is what it is said to be, and an error names the file."""
    write(tmp_path, ca=ROOT.pem, mine=DEVICE.pem + INTERMEDIATE.pem, key=DEVICE.key(), other=DIRECT.key())
    parts = ("--ca", tmp_path / "ca", "--certificate", tmp_path / "mine", "--key")
    added = run("add", "plant", *parts, tmp_path / "key")
    assert 0 == added.returncode, added.stderr
    shown = run("show", "plant").stdout
    assert "chain        CN=Plant Issuer" in shown
    answer = run("add", "plant", *parts, tmp_path / "other")
    assert (1, "") == (answer.returncode, answer.stdout)
    assert (
        f"the key in {tmp_path / 'other'} does not belong to the certificate in {tmp_path / 'mine'}"
        in answer.stderr
    )
    assert shown == run("show", "plant").stdout


@pytest.mark.parametrize("arguments", [(), ("bundle", "--ca", "ca")])
def test_what_to_add_is_said_in_one_way(run: Run, arguments: tuple[str, ...]) -> None:
    """All in one or in parts."""
    answer = run("add", "plant", *arguments)
    assert 2 == answer.returncode
    assert "give either one file, ZIP or directory, or --ca, --certificate and --key" in answer.stderr


def test_what_cannot_be_added_is_told(run: Run, tmp_path: Path) -> None:
    """A name that is none, a file that is not there, a certificate that expired unless that is allowed."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(TWO)
    for name, source, words in (
        ("Plant", bundle, "a credential's name has 1 to 63 lower-case letters"),
        ("plant", tmp_path / "nowhere", "cannot be read: No such file or directory"),
    ):
        answer = run("add", name, source)
        assert (1, "") == (answer.returncode, answer.stdout)
        assert words in answer.stderr
    expired = issue("device-9", ROOT, starts=NOW - timedelta(days=9), ends=NOW - timedelta(hours=60))
    bundle.write_bytes(expired.pem + expired.key())
    answer = run("add", "plant", bundle)
    assert 1 == answer.returncode
    assert "expired on" in answer.stderr
    answer = run("add", "plant", bundle, "--allow-expired")
    assert 0 == answer.returncode
    assert "warning: the certificate of CN=device-9" in answer.stderr
    assert "(expired 3 days ago)" in answer.stdout


def test_a_passphrase_comes_from_a_file_or_from_stdin(run: Run, tmp_path: Path) -> None:
    """Its first line, and never from the command line, which others can read."""
    bundle = tmp_path / "bundle.p12"
    bundle.write_bytes(DIRECT.pkcs12(passphrase=PASSPHRASE))
    secret = tmp_path / "passphrase"
    secret.write_text(f"{PASSPHRASE}\nanother line\n")
    answer = run("add", "plant", bundle)
    assert 1 == answer.returncode
    assert "is encrypted; give its passphrase" in answer.stderr
    for arguments, stdin in (((secret,), ""), (("-",), f"{PASSPHRASE}\n")):
        answer = run("add", "plant", bundle, "--passphrase-file", *arguments, stdin=stdin)
        assert 0 == answer.returncode, answer.stderr
    answer = run("add", "plant", bundle, "--passphrase-file", "-", stdin="wrong\n")
    assert (1, "") == (answer.returncode, answer.stdout)
    assert "the passphrase does not open" in answer.stderr
    answer = run("add", "plant", bundle, "--passphrase-file", tmp_path / "nowhere")
    assert (1, f"tidegate: {tmp_path / 'nowhere'} cannot be read: No such file or directory\n") == (
        answer.returncode,
        answer.stderr,
    )
    assert 2 == run("add", "plant", bundle, "-p", "--passphrase-file", secret).returncode


def test_a_passphrase_is_asked_for_and_not_shown(path: Path, tmp_path: Path) -> None:
    """At a terminal."""
    bundle = tmp_path / "bundle.p12"
    bundle.write_bytes(DIRECT.pkcs12(passphrase=PASSPHRASE))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "credentials", "add", "plant", str(bundle), "--ask-passphrase"],
        env=environment({"TIDEGATE_CREDENTIALS_DIR": str(path), "TIDEGATE_CREDENTIALS_KEY": KEY}),
        cwd=TREE,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        seen = read_until(ours, b"Passphrase: ")  # the space comes once nothing is shown any more
        os.write(ours, f"{PASSPHRASE}\n".encode())
        seen += read_until(ours, b"stored plant")
        assert 0 == process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert PASSPHRASE.encode() not in seen


def read_until(terminal: int, text: bytes) -> bytes:
    """What was written to a terminal until this text came."""
    seen = b""
    while text not in seen:
        assert select.select([terminal], [], [], SECONDS)[0], seen
        seen += os.read(terminal, 1000)
    return seen


def test_what_cannot_be_read_is_listed_with_the_reason(run: Run, path: Path) -> None:
    """And the status says so."""
    asyncio.run(FolderStore(path, [OLD_KEY]).write("old", one()))
    asyncio.run(FolderStore(path, [KEY]).write("new", two()))
    answer = run("list")
    assert 1 == answer.returncode
    new, old = answer.stdout.splitlines()
    assert new.startswith("  new  CN=device-8")
    assert "is missing from TIDEGATE_CREDENTIALS_KEY" in old
    assert 1 == run("show", "old").returncode


def test_keys_are_changed(run: Run, path: Path) -> None:
    """With the new key before the old one; then with the new one alone."""
    asyncio.run(FolderStore(path, [OLD_KEY]).write("plant", one()))
    answer = run("rekey")
    assert (1, "0 encrypted anew, 0 had the first key already\n") == (answer.returncode, answer.stdout)
    assert f"tidegate: {path / 'plant.credential'} cannot be decrypted" in answer.stderr
    answer = run("rekey", key=f"{KEY},{OLD_KEY}")
    assert (0, "1 encrypted anew, 0 had the first key already\n") == (answer.returncode, answer.stdout)
    assert run("list").stdout.startswith("  plant  CN=device-7")


def test_a_mounted_secret_is_listed_and_not_changed(run: Run, tmp_path: Path) -> None:
    """It is changed where it comes from."""
    secret = MountedSecret(tmp_path / "broker-tls", all__pem=ONE)
    settings = {"TIDEGATE_CREDENTIALS_MOUNT": str(secret.path)}
    answer = run("list", settings=settings)
    assert 0 == answer.returncode
    assert answer.stdout.startswith("  broker-tls  CN=device-7")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(TWO)
    for command in (("delete", "broker-tls"), ("add", "broker-tls", str(bundle))):
        answer = run(*command, settings=settings)
        assert (1, "") == (answer.returncode, answer.stdout)
        assert f"credentials come from {secret.path}, where a Secret is mounted" in answer.stderr
    assert 2 == run("rekey", settings=settings).returncode
