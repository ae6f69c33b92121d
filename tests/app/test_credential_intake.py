"""Uploads are read in a process of their own, which can be ended, and come back checked."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from app.credentials import intake as intake_module
from app.credentials import reading
from app.credentials.intake import Intake
from tests.client_sdk.test_bundles_in_zips import ATTACKS, KIT, pack
from tests.support import der
from tests.support.bundles import DEVICE, DIRECT, INTERMEDIATE, ROOT, subjects, write
from tests.support.issued import NOW, issue
from tidegate import TLSError
from tidegate.bundles import Bundle, read_bundle

MOST = 2_147_483_647


async def test_a_bundle_is_the_same_as_without_the_process() -> None:
    """What it consists of, what was passed over, and where each part came from by the name of the upload."""
    content = pack(*KIT)
    there = await Intake().take_content(content, name="kit.zip")
    here = read_bundle(content, name="kit.zip")
    assert here.dump() == there.bundle.dump()
    assert here.ignored == there.bundle.ignored
    assert (here.place, here.reaches_authority) == (there.bundle.place, there.bundle.reaches_authority)
    assert () == there.warnings


async def test_parts_and_a_directory_are_taken_too(tmp_path: Path) -> None:
    """Text and bytes, an encrypted key, and files as a mounted Secret has them."""
    taken = await Intake().take_parts(
        ca=ROOT.pem.decode(),
        certificate=DEVICE.pem + INTERMEDIATE.pem,
        private_key=DEVICE.key(passphrase="secret"),
        passphrase="secret",
    )
    assert ("CN=device-7", ["CN=Plant Issuer"], ["CN=Plant Root"]) == subjects(taken.bundle)
    write(tmp_path, tls__crt=DIRECT.pem, tls__key=DIRECT.key(), ca__crt=ROOT.pem)
    taken = await Intake().take_path(tmp_path)
    assert ("CN=device-8", [], ["CN=Plant Root"]) == subjects(taken.bundle)


async def test_what_is_warned_of_comes_back() -> None:
    """The process has no log of its own."""
    expired = issue("device-9", ROOT, starts=NOW - timedelta(days=20), ends=NOW - timedelta(days=10))
    content = expired.pem + expired.key()
    taken = await Intake().take_content(content, name="up", validity="warn")
    (warning,) = taken.warnings
    assert "the certificate of CN=device-9 in up expired on" in warning
    with pytest.raises(TLSError, match="expired on"):
        await Intake().take_content(content)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_archive_that_is_an_attack_is_refused(attack: str) -> None:
    """With the same words as by the SDK, and with the member as the file at fault."""
    make, words = ATTACKS[attack]
    with pytest.raises(TLSError) as caught:
        await Intake().take_content(make(), name="upload.zip")
    assert words in str(caught.value)
    assert str(caught.value.file).startswith("upload.zip")


async def test_rounds_that_nobody_can_see_are_ended(tmp_path: Path) -> None:
    """In an encrypted part of a PKCS#12 file stands another that asks for two thousand million rounds."""
    content = der.hidden_pkcs12(der.pbkdf2(MOST), "secret")
    with pytest.raises(TLSError, match="upload takes more than 1 seconds to read") as caught:
        await Intake(seconds=1).take_content(content, name="upload", passphrase="secret")
    assert "upload" == caught.value.file


async def test_rounds_in_the_open_are_refused_with_their_number() -> None:
    """The process is not needed to end these."""
    content = der.encrypted_key(der.pbkdf2(MOST))
    with pytest.raises(TLSError, match="asks for more than 5,000,000 rounds"):
        await Intake().take_content(content, passphrase="secret")


async def test_a_process_that_waits_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time counts also where no processor is at work, as with a file system that hangs."""
    monkeypatch.setattr(intake_module, "_WAIT_FACTOR", 0)
    with pytest.raises(TLSError, match="takes more than 10 seconds"):
        await Intake().take_content(DIRECT.pem + DIRECT.key())


async def test_a_process_that_dies_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is asked for what it does not know."""
    monkeypatch.setattr(intake_module, "as_request", lambda kind, options: b"no JSON")
    with pytest.raises(TLSError, match=r"^up cannot be read: it is damaged"):
        await Intake().take_content(b"", name="up")


async def test_a_cancelled_upload_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever uploaded it has gone."""
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def starting(*arguments: str, **options: object) -> asyncio.subprocess.Process:
        started.append(await start(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    content = der.hidden_pkcs12(der.pbkdf2(MOST), "secret")
    work = asyncio.create_task(Intake().take_content(content, passphrase="secret"))
    while not started:
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert -9 == started[0].returncode


async def test_the_process_knows_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's file is read where no secret is."""
    monkeypatch.setenv("TIDEGATE_CREDENTIALS_KEY", "a canary")
    monkeypatch.setenv("tidegate_broker_password", "a canary")
    seen: list[dict[str, str]] = []

    async def look(*arguments: str, env: dict[str, str], **options: object) -> None:
        seen.append(env)
        raise BlockingIOError

    monkeypatch.setattr(asyncio, "create_subprocess_exec", look)
    with pytest.raises(BlockingIOError):
        await Intake().take_content(b"")
    assert "PATH" in seen[0]
    assert "a canary" not in seen[0].values()


async def test_at_most_two_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd of uploads does not take all processors."""
    running, most = 0, 0

    async def ask(self: Intake, request: bytes, place: str) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return json.dumps({"error": "no", "file": None}).encode()

    monkeypatch.setattr(Intake, "_ask", ask)
    intake = Intake()
    results = await asyncio.gather(*(intake.take_content(b"") for _ in range(8)), return_exceptions=True)
    assert 2 == most
    assert all(isinstance(each, TLSError) for each in results)


def test_the_answer_of_the_process_has_what_a_bundle_is_made_of() -> None:
    """Asked here, without a process."""
    request = reading.as_request("content", {"content": DIRECT.pem + DIRECT.key(), "name": "up"})
    answer = reading.answer_of(request)
    assert {"bundle", "place", "ignored", "warnings"} == set(answer)
    assert isinstance(read_bundle(answer["bundle"]), Bundle)
    refused = reading.answer_of(reading.as_request("path", {"path": "/nowhere"}))
    assert {"error", "file"} == set(refused)
