"""The commands ``tidegate credentials …``: they work on the settings' store, with or without a bridge."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from cryptography.fernet import Fernet

from app.commands.terminal import FAILED, WRONG_SETTINGS, fail, read_settings
from app.credentials.intake import Intake, Taken
from app.credentials.opening import open_folder, open_store
from app.credentials.rekeying import rekey as rekey_folder
from app.credentials.store import (
    Activation,
    Credential,
    CredentialStore,
    CredentialStoreError,
    CredentialUnreadableError,
    check_credential_name,
)
from tidegate.bundles import Bundle, Certificate
from tidegate.errors import ConfigurationError, MQTTError

Result = TypeVar("Result")

credentials = typer.Typer(
    name="credentials",
    help="Keep TLS credentials for the broker: certificates, keys and authorities, encrypted, by name.\n\n"
    "They are where TIDEGATE_CREDENTIALS_DIR says, encrypted with TIDEGATE_CREDENTIALS_KEY. "
    "A bridge that runs takes note of what is changed here.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_NO_STORE: Final = (
    "there is no place for credentials; set TIDEGATE_CREDENTIALS_DIR, and TIDEGATE_CREDENTIALS_KEY as "
    "'tidegate credentials key' makes it"
)

Name = Annotated[str, typer.Argument(help="What it is called: lower-case letters, digits and hyphens.")]


@credentials.command(epilog="Example: tidegate credentials add plant connect_device_package.zip")
def add(
    name: Name,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A ZIP, a directory, or a file in PEM, PKCS#12, DER or JSON; parts are told by content.",
            show_default=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="In place of all in one: the authorities of the broker.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="The client's certificate, with its chain.", show_default=False)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.", show_default=False)] = None,
    ask_passphrase: Annotated[
        bool, typer.Option("--ask-passphrase", "-p", help="Ask for what opens an encrypted key.")
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="A file whose first line opens an encrypted key; - for stdin.", show_default=False),
    ] = None,
    allow_expired: Annotated[
        bool,
        typer.Option("--allow-expired", help="Take it with a warning where it expired or is not valid yet."),
    ] = False,
) -> None:
    """Store a credential, new or in place of another of the name.

    It is checked first: the key belongs to the certificate, the chain holds, nothing is too weak.
    """
    parts = (ca, certificate, key)
    if (source is None) == (parts == (None, None, None)):
        fail("give either one file, ZIP or directory, or --ca, --certificate and --key", WRONG_SETTINGS)
    store = open_settings_store()
    passphrase = _passphrase(is_asked=ask_passphrase, file=passphrase_file)
    validity: Any = "warn" if allow_expired else "refuse"

    async def work() -> tuple[Taken, Credential]:
        check_credential_name(name)
        intake = Intake()
        if source is not None:
            taken = await intake.take_path(source, passphrase=passphrase, validity=validity)
        else:
            taken = await intake.take_files(
                ca=ca, certificate=certificate, key=key, passphrase=passphrase, validity=validity
            )
        return taken, await store.write(name, taken.bundle)

    taken, credential = run(work())
    for warning in taken.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for file in taken.bundle.ignored:
        typer.echo(f"passed over: {file}", err=True)
    typer.echo(f"stored {name}: {_summary(credential.bundle)}")


@credentials.command("list", epilog="Example: tidegate credentials list")
def list_all() -> None:
    """List all credentials; a star marks the one in use."""
    store = open_settings_store()

    async def work() -> tuple[dict[str, Credential | str], Activation | None]:
        found: dict[str, Credential | str] = {}
        for name in await store.names():
            try:
                found[name] = await store.read(name)
            except CredentialUnreadableError as error:
                found[name] = str(error)
        return found, await store.active()

    found, active = run(work())
    width = max(map(len, found), default=0)
    for name, credential in found.items():
        star = "*" if active is not None and active.name == name else " "
        told = credential if isinstance(credential, str) else _summary(credential.bundle)
        typer.echo(f"{star} {name:<{width}}  {told}")
    if any(isinstance(credential, str) for credential in found.values()):
        raise typer.Exit(FAILED)


@credentials.command(epilog="Example: tidegate credentials show plant")
def show(name: Name) -> None:
    """Show what a credential consists of; its key is never shown."""
    store = open_settings_store()

    async def work() -> tuple[Credential, Activation | None]:
        return await store.read(name), await store.active()

    credential, active = run(work())
    is_active = active is not None and (active.name, active.revision) == (name, credential.revision)
    typer.echo(f"name         {credential.name}{' (in use)' if is_active else ''}")
    typer.echo(f"stored       {credential.stored_at:%Y-%m-%d %H:%M} UTC")
    typer.echo(f"revision     {credential.revision}")
    bundle = credential.bundle
    if bundle.certificate is not None:
        _show_certificate("certificate", bundle.certificate)
        for each in bundle.chain:
            _show_certificate("chain", each)
    for each in bundle.authorities:
        _show_certificate("authority", each)


@credentials.command(epilog="Example: tidegate credentials delete plant")
def delete(name: Name) -> None:
    """Remove a credential, unless it is in use."""
    run(open_settings_store().delete(name))
    typer.echo(f"deleted {name}")


@credentials.command(epilog="Example: tidegate credentials rekey")
def rekey() -> None:
    """Encrypt everything with the first key of TIDEGATE_CREDENTIALS_KEY.

    To change keys: put a new one before the old one, with a comma, and restart all bridges; run this; leave
    the old one away, and restart them again. If it is interrupted, run it again.
    """
    try:
        folder = open_folder(read_settings())
        if folder is None:
            fail(_NO_STORE, WRONG_SETTINGS)
        done = rekey_folder(folder)
    except ConfigurationError as error:
        fail(str(error), WRONG_SETTINGS)
    except CredentialStoreError as error:
        fail(str(error), FAILED)
    typer.echo(f"{len(done.changed)} encrypted anew, {len(done.passed)} had the first key already")
    if done.failed:
        fail("\n".join(done.failed), FAILED)


@credentials.command("key", epilog="Example: tidegate credentials key")
def make_key() -> None:
    """Make a key for TIDEGATE_CREDENTIALS_KEY. It is shown this once, and kept nowhere."""
    typer.echo(Fernet.generate_key().decode())


def open_settings_store() -> CredentialStore:
    """The store that the settings name; ends the command where there is none."""
    try:
        store = open_store(read_settings())
    except ConfigurationError as error:
        fail(str(error), WRONG_SETTINGS)
    if store is None:
        fail(_NO_STORE, WRONG_SETTINGS)
    return store


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of work on the store; ends the command where it fails."""
    try:
        return asyncio.run(work)
    except (CredentialStoreError, MQTTError, ValueError) as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _passphrase(*, is_asked: bool, file: Path | None) -> str:
    if file is None:
        return str(typer.prompt("Passphrase", hide_input=True, err=True)) if is_asked else ""
    if is_asked:
        fail("give --ask-passphrase or --passphrase-file, and not both", WRONG_SETTINGS)
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        fail(f"{file} cannot be read: {reason}", FAILED)
    return next(iter(text.splitlines()), "")


def _summary(bundle: Bundle) -> str:
    """A credential in one line."""
    certificate = bundle.certificate
    if certificate is None:
        count = len(bundle.authorities)
        return f"{count} {'authority' if count == 1 else 'authorities'}, no client certificate"
    return f"{certificate.label}, {_validity(certificate)}"


def _validity(certificate: Certificate) -> str:
    days = certificate.days_left()
    left = f"expired {-days} days ago" if days < 0 else f"{days} days left"
    return f"until {certificate.not_after:%Y-%m-%d} ({left})"


def _show_certificate(role: str, certificate: Certificate) -> None:
    typer.echo(f"{role:<12} {certificate.label}")
    typer.echo(f"{'':<12} issued by {certificate.issuer}")
    if certificate.names:
        typer.echo(f"{'':<12} for {', '.join(certificate.names)}")
    typer.echo(f"{'':<12} from {certificate.not_before:%Y-%m-%d} {_validity(certificate)}")
    typer.echo(f"{'':<12} SHA-256 {certificate.fingerprint}")
