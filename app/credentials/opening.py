"""Which store the settings ask for."""

from __future__ import annotations

from app.credentials.folder_store import FolderStore
from app.credentials.mounted_store import MountedStore
from app.credentials.store import CredentialStore, CredentialStoreError
from app.settings import Settings
from app.settings.sources import variable
from tidegate.errors import ConfigurationError


def open_store(settings: Settings) -> CredentialStore | None:
    """The store of credentials; None where the settings name none.

    Raises:
        ConfigurationError: the folder cannot be used.
    """
    if settings.credentials_mount is not None:
        return MountedStore(
            settings.credentials_mount,
            passphrase=settings.credentials_passphrase.get_secret_value(),
            key_setting=variable("credentials_passphrase"),
        )
    return open_folder(settings)


def open_folder(settings: Settings) -> FolderStore | None:
    """The store that can be written to; None where the settings name none.

    Raises:
        ConfigurationError: the folder cannot be used.
    """
    if settings.credentials_dir is None:
        return None
    try:
        return FolderStore(settings.credentials_dir, settings.credentials_keys())
    except CredentialStoreError as error:
        raise ConfigurationError(f"{variable('credentials_dir')}: {error}") from error
