"""``tidegate credentials test`` and ``activate``: a credential is tried, and taken into use."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from app.commands.credentials import Name, open_settings_store, run
from app.commands.terminal import FAILED, WRONG_SETTINGS, fail, read_settings, show_step
from app.credentials.store import Activation, Credential, CredentialStore
from app.diagnosis.credential import examine_credential
from app.diagnosis.steps import Report
from tidegate.connection import ConnectOptions
from tidegate.errors import MQTTError

BY: Final = "command line"
"""Who asked, on record."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="A broker with TLS, as mqtts://broker.example:8883. [default: TIDEGATE_BROKER_URL]",
        show_default=False,
    ),
]


def add_commands(credentials: typer.Typer) -> None:
    """Put both commands among the others."""
    credentials.command(
        "test", epilog="Example: tidegate credentials test plant --url mqtts://broker.example:8883"
    )(try_out)
    credentials.command(epilog="Example: tidegate credentials activate plant")(activate)


def try_out(name: Name, url: Url = None) -> None:
    """Try a credential at a broker: name, port, TLS, and CONNECT; nothing is published.

    Each step says whether it went well, and what to do where it did not. Ends with status 1 where one failed.
    """
    options = _options(url)

    async def work() -> Report:
        store = open_settings_store()
        return await _try(await store.read(name), options)

    report = run(work())
    typer.echo(report.verdict)
    if not report.is_ok:
        raise typer.Exit(FAILED)


def activate(
    name: Name,
    test_first: Annotated[
        bool, typer.Option("--test/--no-test", help="Try it at the configured broker first.")
    ] = True,
) -> None:
    """Take a credential into use: bridges on this store go over to it, and their streams do not notice.

    Where the broker does not take it, nothing is changed. A bridge that cannot go over to it keeps what it
    has, says so in its log and in /v1/status, and tries again.
    """
    options = _options(None) if test_first else None

    async def work() -> Report | None:
        store = open_settings_store()
        if not store.is_writable:
            fail("what is mounted from a Secret is in use without being asked", WRONG_SETTINGS)
        credential = await store.read(name)
        report = None if options is None else await _try(credential, options)
        if report is None or report.is_ok:
            await _record(store, credential)
        return report

    report = run(work())
    if report is not None and not report.is_ok:
        fail(f"{name} is not taken into use", FAILED)
    typer.echo(f"{name} is in use; bridges that run go over to it")


async def _try(credential: Credential, options: ConnectOptions) -> Report:
    options = replace(options, tls=credential.bundle.context())
    return await examine_credential(credential.bundle, options, tell=show_step)


async def _record(store: CredentialStore, credential: Credential) -> None:
    await store.record(Activation(credential.name, credential.revision, datetime.now(UTC), "active", by=BY))


def _options(url: str | None) -> ConnectOptions:
    try:
        options = read_settings(broker_url=url).connect_options()
    except MQTTError as error:
        fail(str(error), WRONG_SETTINGS)
    if options.tls is None:
        fail(
            "a credential has no use without TLS; give --url, or begin TIDEGATE_BROKER_URL with mqtts or wss",
            WRONG_SETTINGS,
        )
    return options
