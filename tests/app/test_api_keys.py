"""Requests with an API key, and the file that the keys are in (ASVS 6.5, 11.4, 13.2)."""

from __future__ import annotations

import hmac
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.problems import ProblemError, ProblemType
from app.security import api_keys as module
from app.security.api_keys import ApiKeys, watched_keys
from app.security.authentication import Authentication, Ended
from app.security.grants import Grant
from app.security.key_records import KeyRecord, hash_of, make_key, rewritten_keys, split_key
from app.security.principal import Source
from app.security.watched_file import WatchedFile
from tests.support.bridge import Bridge, running_bridge, wait_until
from tests.support.command import run_command
from tests.support.mosquitto import Mosquitto
from tests.support.raw_stream import RawStream
from tidegate.errors import ConfigurationError


def add_key(file: Path, name: str = "line-4", **more: Any) -> tuple[str, str]:
    """Put a key into a file; the key, and its id."""
    text, key_id, digest = make_key()
    with rewritten_keys(file) as records:
        records.append(KeyRecord(id=key_id, name=name, hash=digest).model_copy(update=more))
    return text, key_id


def change_key(file: Path, key_id: str, **changes: Any) -> None:
    """Change the record of a key."""
    with rewritten_keys(file) as records:
        records[:] = [each.model_copy(update=changes) if each.id == key_id else each for each in records]


def request(text: str) -> dict[str, Any]:
    """The scope of a request with a key."""
    return {"type": "http", "headers": [(b"authorization", b"bearer  " + text.encode())]}


def way_of(file: Path) -> tuple[ApiKeys, WatchedFile[Any]]:
    """The way, and its file."""
    watched = watched_keys(file)
    return ApiKeys(watched), watched


async def refusal(way: ApiKeys, text: str) -> ProblemError:
    """Why a key is refused."""
    assert way.recall(request(text)) is None
    with pytest.raises(ProblemError) as caught:
        await way.authenticate(request(text))
    assert ProblemType.UNAUTHENTICATED is caught.value.kind
    assert text not in caught.value.detail
    return caught.value


def test_a_key_can_be_found_and_not_guessed(tmp_path: Path) -> None:
    """A prefix that scanners know, an id, 256 bits, a checksum; the file has the hash alone."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file)
    prefix, found_id, secret = text.split("_")
    assert ("tg", key_id, 49) == (prefix, found_id, len(secret))
    assert 200 == len({make_key()[0] for _ in range(200)})
    kept = file.read_text()
    assert secret[:43] not in kept
    parts = split_key(text.encode())
    assert parts is not None
    assert hash_of(parts[1]).hex() in kept


async def test_a_good_key_has_its_principal(tmp_path: Path) -> None:
    """The same one each time, with the grants of its record."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file, publish=(Grant("lines/{sub}/#", 1, may_retain=False),))
    way, _ = way_of(file)
    principal = way.recall(request(text))
    assert principal is not None
    assert principal is await way.authenticate(request(text))
    assert ("line-4", Source.API_KEY, key_id) == (
        principal.subject,
        principal.source,
        principal.credential_id,
    )
    assert principal.grants.why_not_publish("lines/line-4/x", 1, retain=False) is None
    assert principal.grants.why_not_publish("lines/line-4/x", 1, retain=True) is not None


async def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    """An unknown id and a wrong secret read the same; one that was cut off says so."""
    file = tmp_path / "keys.yaml"
    text, _ = add_key(file)
    way, _ = way_of(file)
    other = make_key()[0]
    unknown = await refusal(way, other)
    head, last = text[:-1], text[-1]
    for wrong in (head, head + ("a" if last != "a" else "b"), "tg_", "tg_x", text + "x", "tg_" + "x" * 9000):
        assert "not whole" in (await refusal(way, wrong)).detail
    file.write_text(file.read_text().replace(hash_of_text(text), hash_of_text(other)))
    way, _ = way_of(file)
    assert unknown.detail == (await refusal(way, text)).detail


def hash_of_text(text: str) -> str:
    """The hash of a key's secret as the file has it."""
    parts = split_key(text.encode())
    assert parts is not None
    return hash_of(parts[1]).hex()


async def test_comparison_takes_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known or not, a key is compared once, by the function that is made for it."""
    file = tmp_path / "keys.yaml"
    text, _ = add_key(file)
    way, _ = way_of(file)
    compared: list[tuple[int, int]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr(module, "hmac", SimpleNamespace(compare_digest=compare))
    assert way.recall(request(text)) is not None
    assert way.recall(request(make_key()[0])) is None
    assert [(32, 32), (32, 32)] == compared


async def test_other_tokens_are_left_to_others(tmp_path: Path) -> None:
    """A JWT, another scheme, or nothing."""
    add_key(tmp_path / "keys.yaml")
    way, _ = way_of(tmp_path / "keys.yaml")
    assert await way.authenticate(request("eyJ.e30.x")) is None
    assert await way.authenticate({"type": "http", "headers": []}) is None
    scope = {"type": "http", "headers": [(b"authorization", b"Basic dGdfeDp5")]}
    assert await way.authenticate(scope) is None


async def test_an_expired_key_is_refused(tmp_path: Path) -> None:
    """With the time at which it ended, to whoever has the key."""
    file = tmp_path / "keys.yaml"
    text, _ = add_key(file, expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    way, _ = way_of(file)
    assert "expired at 2026-01-01T00:00:00Z" in (await refusal(way, text)).detail


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked_at": datetime.now(UTC)},
        {"publish": ()},
        {"scopes": frozenset()},
        {"hash": "sha256:" + "0" * 64},
        {"name": "other"},
    ],
    ids=",".join,
)
def test_a_changed_record_ends_what_was_begun(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Streams of the old principal are told; a comment ends nothing."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file, publish=(Grant("#"),), scopes=frozenset({"status:read"}))
    way, watched = way_of(file)
    principal = way.recall(request(text))
    assert principal is not None
    change_key(file, key_id, comment="a note")
    watched.look()
    assert way.why_ended(principal) is None
    assert principal is way.recall(request(text))
    change_key(file, key_id, **changes)
    watched.look()
    assert Ended.REVOKED is way.why_ended(principal)


def test_an_end_that_moves_ends_what_was_begun_when_it_comes(tmp_path: Path) -> None:
    """Sooner, later or not at all; what was begun goes on until then, and has expired afterwards."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file, expires_at=datetime.now(UTC) + timedelta(days=1))
    way, watched = way_of(file)
    authentication = Authentication([way])
    principal = way.recall(request(text))
    assert principal is not None
    for end in (datetime.now(UTC) + timedelta(hours=1), None, datetime.now(UTC) + timedelta(days=9)):
        change_key(file, key_id, expires_at=end)
        watched.look()
        assert principal is way.recall(request(text))
        assert (None if end is None else end.timestamp()) == principal.expires_at
        assert authentication.why_ended(principal) is None
    change_key(file, key_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    watched.look()
    assert way.recall(request(text)) is None
    assert Ended.EXPIRED is authentication.why_ended(principal)


def test_a_removed_key_ends_what_was_begun(tmp_path: Path) -> None:
    """Whoever deletes the record means it; other keys go on."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file)
    other, _ = add_key(file, "line-5")
    way, watched = way_of(file)
    gone, stays = way.recall(request(text)), way.recall(request(other))
    assert gone is not None
    assert stays is not None
    with rewritten_keys(file) as records:
        records[:] = [each for each in records if each.id != key_id]
    watched.look()
    assert Ended.REVOKED is way.why_ended(gone)
    assert way.why_ended(stays) is None


GOOD = {"id": "abcdefghij", "name": "n", "hash": "sha256:" + "0" * 64}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("keys: [", "is not YAML"),
        ("[]", "one member, 'keys'"),
        ("key: []", "one member, 'keys'"),
        ("keys: 5", "'keys' is a list"),
        ("\xff\xfe", "is not UTF-8"),
        ({"keys": [5]}, "entry 1: an entry is an object"),
        ({"keys": [GOOD, {**GOOD, "id": "short"}]}, "entry 2: id"),
        ({"keys": [{**GOOD, "id": None}]}, "entry 1: id"),
        ({"keys": [{"id": "abcdefghij", "name": "n"}]}, "the member 'hash' is missing"),
        ({"keys": [{**GOOD, "hash": "5f4dcc3b"}]}, "entry 1: hash"),
        ({"keys": [{**GOOD, "publsh": ["a"]}]}, "did you mean 'publish'?"),
        ({"keys": [{**GOOD, "publish": "a"}]}, "publish: it is a list"),
        ({"keys": [{**GOOD, "publish": ["a/#/b"]}]}, "publish: entry 1"),
        ({"keys": [{**GOOD, "publish": [{"filter": "a", "qos": "1"}]}]}, "'qos' is 0, 1 or 2"),
        ({"keys": [{**GOOD, "scopes": ["status:red"]}]}, "did you mean 'status:read'?"),
        ({"keys": [{**GOOD, "expires_at": "soon"}]}, "expires_at"),
        ({"keys": [{**GOOD, "expires_at": "2026-01-01T00:00:00"}]}, "expires_at"),
        ({"keys": [GOOD, GOOD]}, "the id abcdefghij is there twice"),
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_that_cannot_be_used_stops_the_start(
    tmp_path: Path, content: Any, words: str, suffix: str
) -> None:
    """The text has the file, the entry and the reason."""
    file = tmp_path / f"keys.{suffix}"
    if isinstance(content, str):
        file.write_bytes(content.encode("latin-1"))
        words = words.replace("YAML", "JSON") if suffix == "json" else words
        words = words if suffix == "yaml" or content[0] in "[\xff" else "is not JSON"
    else:
        file.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError) as caught:
        watched_keys(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """A bridge that nobody can use is a mistake, and one that takes old keys too."""
    with pytest.raises(ConfigurationError, match="No such file"):
        watched_keys(tmp_path / "keys.yaml")


def test_an_empty_list_is_allowed(tmp_path: Path) -> None:
    """A bridge may start before its first key is made."""
    (tmp_path / "keys.yaml").write_text("keys:\n")
    assert {} == watched_keys(tmp_path / "keys.yaml").value


def test_a_file_that_is_torn_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The old keys hold, and the log says so once; when it is mended, it counts."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file)
    way, watched = way_of(file)
    whole = file.read_bytes()
    for number, torn in enumerate((whole[: whole.index(b"hash") + 20], whole + b"- id: [", b"")):
        file.write_bytes(torn)
        watched.look()
        watched.look()
        assert way.recall(request(text)) is not None
        assert watched.fault is not None
        assert number + 1 == caplog.text.count("what the file said before holds")
    file.unlink()
    watched.look()
    assert way.recall(request(text)) is not None
    assert "cannot be read" in (watched.fault or "")
    file.write_bytes(whole)
    watched.look()
    assert watched.fault is None
    change_key(file, key_id, revoked_at=datetime.now(UTC))
    watched.look()
    assert way.recall(request(text)) is None


def test_a_mounted_secret_that_is_swapped_is_seen(tmp_path: Path) -> None:
    """Kubernetes puts a link in the place of a link; the file's own name stays what it was."""
    first, second = tmp_path / "..1", tmp_path / "..2"
    for directory in (first, second):
        directory.mkdir()
    old, _ = add_key(first / "keys.yaml")
    new, _ = add_key(second / "keys.yaml")
    (tmp_path / "..data").symlink_to(first.name)
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    way, watched = way_of(tmp_path / "keys.yaml")
    assert way.recall(request(old)) is not None
    (tmp_path / "..new").symlink_to(second.name)
    (tmp_path / "..new").replace(tmp_path / "..data")
    watched.look()
    assert way.recall(request(old)) is None
    assert way.recall(request(new)) is not None


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    """An editor may write twice in one tick of the file system's clock."""

    class Frozen(type(tmp_path)):  # type: ignore[misc]
        """A file whose times stand still."""

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            return status

    text, _ = add_key(tmp_path / "keys.yaml")
    status = (tmp_path / "keys.yaml").stat()
    file = Frozen(tmp_path / "keys.yaml")
    way, watched = way_of(file)
    file.write_text(file.read_text().replace("line-4", "line-5"))
    watched.look()
    principal = way.recall(request(text))
    assert principal is not None
    assert "line-5" == principal.subject


def test_a_file_that_is_torn_is_told_by_the_status(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Whoever looks after the bridge sees it, without the log."""
    file = tmp_path / "keys.yaml"
    text, _ = add_key(file, scopes=frozenset({"status:read"}))
    headers = {"Authorization": f"Bearer {text}"}
    with running_bridge(mosquitto.url, api_keys_file=file) as bridge:

        def status() -> Any:
            return bridge.client.get("/v1/status", headers=headers).json()["authentication"]

        assert {"required": True, "faults": []} == status()
        whole = file.read_bytes()
        file.write_bytes(b"keys: [")
        wait_until(lambda: status()["faults"] != [])
        assert f"{file} is not YAML" in status()["faults"][0]
        file.write_bytes(whole)
        wait_until(lambda: status()["faults"] == [])


def test_a_stream_ends_with_its_key(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """The key's record is changed, and the stream is told why it ends."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file, subscribe=(Grant("keys/#"),))
    with (
        running_bridge(mosquitto.url, api_keys_file=file) as bridge,
        RawStream(bridge.port, "keys/a", token=text) as stream,
    ):
        change_key(file, key_id, revoked_at=datetime.now(UTC))
        stream.read_to_end()
        assert {"reason": "token_revoked", "may_reconnect": False} == stream.events[-1].json


def test_a_stream_of_a_replaced_key_lasts_as_long_as_the_key(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """After 'rotate --overlap' the old key's stream goes on, and ends at the old key's new end."""
    file = tmp_path / "keys.yaml"
    text, key_id = add_key(file, publish=(Grant("keys/#"),), subscribe=(Grant("keys/#"),))
    settings = {"TIDEGATE_API_KEYS_FILE": str(file)}
    headers = {"Authorization": f"Bearer {text}"}
    with (
        running_bridge(mosquitto.url, api_keys_file=file) as bridge,
        RawStream(bridge.port, "keys/#", token=text) as stream,
    ):
        rotated = run_command("key", "rotate", "line-4", "--overlap", "1d", settings=settings)
        successor = rotated.stdout.strip()
        wait_until(lambda: publish(bridge, successor).status_code == 200)
        assert bridge.client.get("/v1/principal", headers=headers).json()["expires_at"] is not None
        stream.read_messages(1)
        change_key(file, key_id, expires_at=datetime.now(UTC) + timedelta(seconds=2))
        stream.read_to_end()
        assert {"reason": "token_expired", "may_reconnect": False} == stream.events[-1].json
        assert "expired at" in publish(bridge, text).json()["detail"]


def publish(bridge: Bridge, key: str, topic: str = "keys/line-4/a") -> Any:
    """The answer to a publish with a key."""
    headers = {"Authorization": f"Bearer {key}"}
    return bridge.client.post(f"/v1/topics/{topic}", content=b"1", headers=headers)


def test_a_key_is_made_used_and_revoked_while_the_bridge_runs(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Over real HTTP, with the command: taken and refused within seconds."""
    file = tmp_path / "keys.yaml"
    file.write_text("keys: []\n")
    settings = {"TIDEGATE_API_KEYS_FILE": str(file)}
    with running_bridge(mosquitto.url, api_keys_file=file) as bridge:
        answer = bridge.client.post("/v1/topics/keys/line-4/a", content=b"1")
        assert (401, 'Bearer realm="tidegate"') == (answer.status_code, answer.headers["WWW-Authenticate"])
        made = run_command("key", "create", "line-4", "--publish", "keys/{sub}/#", settings=settings)
        key = made.stdout.strip()
        wait_until(lambda: publish(bridge, key).status_code == 200)
        refused = publish(bridge, key, "keys/line-5/a")
        assert (403, "urn:tidegate:problem:not-granted") == (refused.status_code, refused.json()["type"])
        assert 0 == run_command("key", "revoke", "line-4", settings=settings).returncode
        wait_until(lambda: publish(bridge, key).status_code == 401, 15.0)
        assert "is revoked" in publish(bridge, key).json()["detail"]
