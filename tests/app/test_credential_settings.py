"""Which store the settings ask for, and what is said of settings that ask for none that there can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.credentials.folder_store import FolderStore
from app.credentials.mounted_store import MountedStore
from app.credentials.opening import open_folder, open_store
from app.settings import Settings
from app.settings.errors import describe_errors
from tests.support.credentials import KEY, OLD_KEY, one
from tidegate.errors import ConfigurationError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().startswith("TIDEGATE_"):
            monkeypatch.delenv(name)


def refusal() -> str:
    """The text for an environment that is refused."""
    with pytest.raises(ValidationError) as caught:
        Settings()
    text = describe_errors(caught.value)
    assert KEY[:-9] not in text + str(caught.value)
    return text


async def test_a_folder_and_its_keys_make_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key encrypts, the others decrypt; spaces do not matter."""
    await FolderStore(tmp_path / "credentials", [OLD_KEY]).write("old", one())
    monkeypatch.setenv("TIDEGATE_CREDENTIALS_DIR", str(tmp_path / "credentials"))
    monkeypatch.setenv("TIDEGATE_CREDENTIALS_KEY", f"{KEY} , {OLD_KEY},")
    settings = Settings()
    assert (KEY, OLD_KEY) == settings.credentials_keys()
    store = open_store(settings)
    assert isinstance(store, FolderStore)
    assert ("old",) == await store.names()
    await store.write("new", one())
    assert "new" == (await FolderStore(tmp_path / "credentials", [KEY]).read("new")).name
    for text in (repr(settings), str(settings)):
        assert KEY not in text


async def test_a_mount_makes_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the passphrase of the setting."""
    (tmp_path / "tls").mkdir()
    monkeypatch.setenv("TIDEGATE_CREDENTIALS_MOUNT", str(tmp_path / "tls"))
    monkeypatch.setenv("TIDEGATE_CREDENTIALS_PASSPHRASE", "a canary")
    settings = Settings()
    store = open_store(settings)
    assert isinstance(store, MountedStore)
    assert ("tls",) == await store.names()
    assert None is open_folder(settings)
    assert "a canary" not in repr(settings)


def test_without_settings_there_is_no_store() -> None:
    """Most bridges have none."""
    assert None is open_store(Settings())
    assert () == Settings().credentials_keys()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"DIR": "/x"},
            "TIDEGATE_CREDENTIALS_DIR needs TIDEGATE_CREDENTIALS_KEY; 'tidegate credentials key'",
        ),
        ({"KEY": KEY}, "TIDEGATE_CREDENTIALS_KEY needs TIDEGATE_CREDENTIALS_DIR"),
        (
            {"DIR": "/x", "KEY": KEY, "MOUNT": "/"},
            "TIDEGATE_CREDENTIALS_DIR and TIDEGATE_CREDENTIALS_MOUNT exclude",
        ),
        ({"PASSPHRASE": KEY[:-9]}, "TIDEGATE_CREDENTIALS_PASSPHRASE needs TIDEGATE_CREDENTIALS_MOUNT"),
        ({"MOUNT": "/nowhere/at/all"}, "TIDEGATE_CREDENTIALS_MOUNT='/nowhere/at/all': there is no directory"),
        (
            {"DIR": "/x", "KEY": KEY[:-9]},
            "TIDEGATE_CREDENTIALS_KEY: its first part is no Fernet key; 'tidegate",
        ),
        ({"DIR": "/x", "KEY": f"{KEY},{KEY[:-9]}"}, "its second part is no Fernet key"),
        ({"DIR": "/x", "KEY": f"{KEY},{KEY},{KEY},é"}, "its 4th part is no Fernet key"),
        ({"DIR": "/x", "KEY": " , "}, "TIDEGATE_CREDENTIALS_KEY: there is no key in it"),
    ],
)
def test_settings_that_fit_no_store_are_refused(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, with what to do, and without the value of a secret."""
    for name, value in environment.items():
        monkeypatch.setenv(f"TIDEGATE_CREDENTIALS_{name}", value)
    assert words in refusal()


def test_a_folder_that_cannot_be_used_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    """Which ends the start."""
    settings = Settings(credentials_dir=tmp_path / "no" / "where", credentials_key=SecretStr(KEY))
    with pytest.raises(ConfigurationError, match=r"TIDEGATE_CREDENTIALS_DIR: the folder .* cannot be used"):
        open_store(settings)
