"""Which store the settings ask for."""

from __future__ import annotations

from app.credentials.folder_store import FolderStore
from app.credentials.mounted_store import MountedStore
from app.credentials.store import CredentialStore, CredentialStoreError
from app.settings import Settings
from app.settings.sources import variable
from tidegate.bundles import Certificate, bundle_of_files
from tidegate.errors import ConfigurationError, TLSError


def open_store(settings: Settings) -> CredentialStore | None:
    """The store of credentials; None where the settings name none.

    Raises:
        ConfigurationError: the folder, or the file of authorities beside it, cannot be used.
    """
    if settings.credentials_mount is not None:
        return MountedStore(
            settings.credentials_mount,
            passphrase=settings.credentials_passphrase.get_secret_value(),
            key_setting=variable("credentials_passphrase"),
            authorities=_authorities(settings),
        )
    return open_folder(settings)


def _authorities(settings: Settings) -> tuple[Certificate, ...]:
    """What vouches for the broker beside a Secret that has no authority."""
    if settings.broker_ca_file is None:
        return ()
    try:
        return bundle_of_files(ca=settings.broker_ca_file, validity="warn").authorities
    except TLSError as error:
        raise ConfigurationError(f"{variable('broker_ca_file')}: {error}") from error


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
