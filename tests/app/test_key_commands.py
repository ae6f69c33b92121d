"""The commands ``tidegate key`` and ``tidegate token``."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from app.security.api_keys import ApiKeys, watched_keys
from app.security.key_records import KeyRecord, make_key, read_keys, rewritten_keys
from app.security.revoked_tokens import Revocation, watched_revocations
from tests.support.tokens import RSA_KEY, SECRET, pem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the keys are to be."""
    return tmp_path / "keys.yaml"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().startswith("TIDEGATE_"):
            monkeypatch.delenv(name)


def run(*arguments: str, settings: Mapping[str, str] | None = None) -> Result:
    """Run ``tidegate`` within this process, which is faster."""
    return CliRunner().invoke(cli, arguments, env=settings)


def key(*arguments: str, file: Path) -> Result:
    """Run ``tidegate key``."""
    return run("key", *arguments, settings={"TIDEGATE_API_KEYS_FILE": str(file)})


def records(file: Path) -> list[KeyRecord]:
    """What is in the file."""
    return read_keys(file.read_bytes(), file)


@pytest.mark.parametrize("group", ["key", "token"])
def test_help_names_the_commands(group: str) -> None:
    """Each says what it is for, and shows one call."""
    text = run(group, "--help").stdout
    commands = {"key": ("create", "list", "revoke", "rotate"), "token": ("create", "revoke")}[group]
    for command in commands:
        assert re.search(rf"^  {command} ", text, re.MULTILINE), command
        assert f"Example: tidegate {group} {command}" in run(group, command, "--help").stdout


@pytest.mark.parametrize("option", ["--publish", "--subscribe"])
def test_a_filter_that_is_none_is_told_with_its_option(option: str, file: Path) -> None:
    """Whoever wrote it sees which of several it is, and no key is made."""
    made = key("create", "line-4", "--subscribe", "fine/#", option, "a/#/b", file=file)
    assert 1 == made.exit_code
    assert made.stderr.startswith(f"tidegate: {option}: ")
    assert "'a/#/b'" in made.stderr
    assert not file.exists() or [] == records(file)


def test_a_key_that_allows_nothing_is_made_with_a_warning(file: Path) -> None:
    """It may be on purpose, and more often is not; whoever has something granted is not warned."""
    assert "It allows nothing" in key("create", "line-4", file=file).stderr
    assert "It allows nothing" not in key("create", "line-5", "--scope", "status:read", file=file).stderr
    assert ["line-4", "line-5"] == [each.name for each in records(file)]


def test_a_key_s_life(file: Path) -> None:
    """Made and shown once, listed without its secret, replaced, revoked."""
    options = ["--publish", "lines/{sub}/#", "--subscribe", "plant/#", "--scope", "status:read"]
    options += ["--max-qos", "1", "--no-retain", "--expires", "90d", "--comment", "the press"]
    made = key("create", "line-4", *options, file=file)
    assert 0 == made.exit_code, made.stderr
    text = made.stdout.strip()
    assert f"{text}\n" == made.stdout
    assert text not in made.stderr
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    (record,) = records(file)
    assert ("line-4", "the press", frozenset({"status:read"})) == (
        record.name,
        record.comment,
        record.scopes,
    )
    assert record.created_at is not None
    assert record.created_at + timedelta(days=90) == record.expires_at
    assert [("lines/{sub}/#", 1, False)] == [
        (each.topic_filter, each.max_qos, each.may_retain) for each in record.publish
    ]
    listed = key("list", file=file).stdout
    for words in (record.id, "line-4  holds until", "publish lines/{sub}/# up to QoS 1, not retained"):
        assert words in listed
    assert text.split("_")[2][:40] not in listed
    rotated = key("rotate", "line-4", "--overlap", "1h", file=file)
    old, new = records(file)
    assert old.publish == new.publish
    assert old.expires_at is not None
    assert old.expires_at < datetime.now(UTC) + timedelta(hours=2)
    way = ApiKeys(watched_keys(file))
    for each in (text, rotated.stdout.strip()):
        assert way.recall({"headers": [(b"authorization", f"Bearer {each}".encode())]}) is not None
    several = key("rotate", "line-4", file=file)
    assert 1 == several.exit_code
    assert old.id in several.stderr
    assert 0 == key("rotate", new.id, file=file).exit_code
    assert [False, True, False] == [each.revoked_at is not None for each in records(file)]
    assert 0 == key("revoke", "line-4", file=file).exit_code
    assert all(each.revoked_at is not None for each in records(file))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "line-4"], "there is a key of the name 'line-4'"),
        (["create", ""], "a name has 1 to 256 characters"),
        (["create", "a\nb"], "a name has 1 to 256 characters"),
        (["create", "x", "--publish", "a/#/b"], "--publish: "),
        (["create", "x", "--publish", "$share/g/a"], "shared subscription"),
        (["create", "x", "--scope", "status:red"], "did you mean 'status:read'?"),
        (["create", "x", "--expires", "soon"], "'soon' is no time"),
        (["create", "x", "--expires", "2026-01-01T00:00:00Z"], "is over"),
        (["create", "x", "--expires", "2126-01-01"], "has no zone"),
        (["create", "x", "--expires", "99999999w"], "after the year 9999"),
        (["revoke", "line-5"], "did you mean 'line-4'?"),
        (["rotate", "xyz"], "'tidegate key list' shows all"),
        (["rotate", "line-4", "--overlap", "long"], "'long' is no duration"),
    ],
)
def test_what_cannot_be_done_changes_nothing(file: Path, arguments: list[str], words: str) -> None:
    """Status 1 and one line; the file stays as it was."""
    with rewritten_keys(file) as made:
        made.append(KeyRecord(id="abcdefghij", name="line-4", hash=make_key()[2]))
    before = file.read_bytes()
    answer = key(*arguments, file=file)
    assert (1, "") == (answer.exit_code, answer.stdout)
    assert words in answer.stderr
    assert 1 == answer.stderr.count("\n")
    assert before == file.read_bytes()


def test_without_a_file_the_command_says_which_setting_is_missing() -> None:
    """Status 2, as for other settings."""
    answer = run("key", "list")
    assert 2 == answer.exit_code
    assert "TIDEGATE_API_KEYS_FILE" in answer.stderr


def test_a_file_that_is_broken_is_not_overwritten(file: Path) -> None:
    """Somebody's slip costs nobody's keys."""
    file.write_text("keys: [")
    answer = key("create", "line-4", file=file)
    assert 1 == answer.exit_code
    assert "is not YAML" in answer.stderr
    assert "keys: [" == file.read_text()


def test_keys_made_at_once_are_all_there(file: Path) -> None:
    """Each waits for the lock of the others, and adds to what they wrote."""

    def make(name: int) -> None:
        for number in range(5):
            with rewritten_keys(file) as made:
                made.append(KeyRecord(id=make_key()[1], name=f"{name}/{number}", hash=make_key()[2]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    expected = {f"{name}/{number}" for name in range(8) for number in range(5)}
    assert expected == {each.name for each in records(file)}


def test_whoever_reads_meanwhile_reads_whole_files(file: Path) -> None:
    """Many changes, and a reader that never meets half of one."""
    with rewritten_keys(file) as made:
        made.append(KeyRecord(id="abcdefghij", name="line-4", hash=make_key()[2]))
    seen: list[int] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            seen.append(len(records(file)))

    reader = threading.Thread(target=read)
    reader.start()
    for each in range(50):
        with rewritten_keys(file) as made:
            made.append(KeyRecord(id=make_key()[1], name=f"n{each}", hash=make_key()[2]))
    is_over.set()
    reader.join()
    assert 51 == len(records(file))
    assert sorted(seen) == seen
    assert min(seen) >= 1


def test_a_group_that_could_read_the_file_still_can(file: Path) -> None:
    """The bridge may run under another name than whoever makes keys; others never read it."""
    file.write_text("keys: []\n")
    file.chmod(0o644)
    with rewritten_keys(file) as made:
        made.append(KeyRecord(id="abcdefghij", name="line-4", hash=make_key()[2]))
    assert 0o640 == stat.S_IMODE(file.stat().st_mode)


def test_a_link_stays_a_link(tmp_path: Path, file: Path) -> None:
    """What it points to is replaced."""
    real = tmp_path / "real.yaml"
    real.write_text("keys: []\n")
    file.symlink_to(real)
    with rewritten_keys(file) as made:
        made.append(KeyRecord(id="abcdefghij", name="line-4", hash=make_key()[2]))
    assert file.is_symlink()
    assert 1 == len(records(real))


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    """As YAML, and as JSON where the name says so; names that look like numbers too."""
    file = tmp_path / f"keys.{suffix}"
    record = KeyRecord.model_validate(
        {
            "id": "0123456789",
            "name": "1e5: #ü",
            "hash": make_key()[2],
            "publish": ["a/#", {"filter": "b", "qos": 0}],
            "scopes": "status:read",
            "created_at": "2026-01-31T12:00:00+01:00",
            "comment": "yes",
        }
    )
    with rewritten_keys(file) as made:
        made.append(record)
    assert [record] == read_keys(file.read_bytes(), file)


def test_a_token_to_try_is_what_the_bridge_takes(tmp_path: Path) -> None:
    """Signed with the configured secret, with issuer and audience."""
    settings = {
        "TIDEGATE_JWT_KEY": SECRET,
        "TIDEGATE_JWT_ISSUER": "https://login.example",
        "TIDEGATE_JWT_AUDIENCE": "tidegate,other",
    }
    options = ["--sub", "line-4", "--publish", "lines/{sub}/#", "--scope", "status:read", "--expires", "2h"]
    made = run("token", "create", *options, settings=settings)
    assert 0 == made.exit_code, made.stderr
    claims = jwt.decode(made.stdout.strip(), SECRET, ["HS256"], audience="tidegate")
    assert ("line-4", "https://login.example", "status:read", 7200) == (
        claims["sub"],
        claims["iss"],
        claims["scope"],
        claims["exp"] - claims["iat"],
    )
    assert {"publish": ["lines/{sub}/#"], "subscribe": []} == claims["mqtt"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "there is no secret to sign with"),
        ({"TIDEGATE_JWT_KEY": pem(RSA_KEY)}, "the configured key is public"),
        ({"TIDEGATE_JWT_KEY": "short"}, "TIDEGATE_JWT_KEY has 5 bytes"),
    ],
)
def test_no_token_without_a_secret(settings: dict[str, str], words: str) -> None:
    """Status 2 and one line."""
    answer = run("token", "create", "--sub", "a", settings=settings)
    assert (2, "") == (answer.exit_code, answer.stdout)
    assert words in answer.stderr


def test_tokens_are_revoked_by_id_and_by_subject(tmp_path: Path) -> None:
    """The file is made, and added to; of a subject those count that were issued until now."""
    file = tmp_path / "revoked.yaml"
    before = datetime.now(UTC).timestamp()
    for arguments in (["--jti", "j1"], ["--sub", "line-4", "--comment", "left"]):
        assert 0 == run("token", "revoke", *arguments, "--file", str(file)).exit_code
    revoked = watched_revocations(file).value
    assert frozenset({"j1"}) == revoked.ids
    assert before < revoked.subjects["line-4"] < before + 60
    for arguments in ([], ["--jti", "a", "--sub", "b"]):
        answer = run("token", "revoke", *arguments, "--file", str(file))
        assert (2, "") == (answer.exit_code, answer.stdout)


@pytest.mark.parametrize(
    "entry", [{}, {"jti": "a", "sub": "b"}, {"jti": "a", "before": "2026-01-01T00:00:00Z"}, {"jti": 5}]
)
def test_an_entry_names_one_token_or_one_subject(entry: dict[str, object]) -> None:
    """Nothing else."""
    with pytest.raises(ValueError, match="jti"):
        Revocation.model_validate(entry)
