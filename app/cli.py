"""The command ``tidegate``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from fastapi import FastAPI

from app import server
from app.commands import doctor as checks
from app.commands import keys as key_commands
from app.commands import tokens as token_commands
from app.commands.credential_use import add_commands
from app.commands.credentials import credentials
from app.commands.terminal import FAILED, WRONG_SETTINGS, fail, read_settings, show_step
from app.credentials.opening import open_store
from app.dev import run as development
from app.logs.configuration import configure_logging
from app.main import create_app
from app.settings.broker import check_broker_url
from tidegate.errors import MQTTError
from tidegate.url import parse_url

cli = typer.Typer(
    name="tidegate",
    help="Tidegate joins HTTP to MQTT: publish, read and follow a broker's topics over HTTP.\n\n"
    "New here? 'tidegate dev' starts everything, and prints what to try.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cli.add_typer(key_commands.commands, name="key")
cli.add_typer(token_commands.commands, name="token")
add_commands(credentials)
cli.add_typer(credentials)

Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on. [env: TIDEGATE_HOST] [default: 127.0.0.1]", show_default=False),
]
Port = Annotated[
    int | None, typer.Option(help="TCP port. [env: TIDEGATE_PORT] [default: 8080]", show_default=False)
]
BrokerUrl = Annotated[
    str | None,
    typer.Option(
        help="Where the broker is. A password belongs in TIDEGATE_BROKER_PASSWORD, since other users of this "
        "machine can read a command line. [env: TIDEGATE_BROKER_URL] [default: mqtt://localhost:1883]",
        show_default=False,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        help="debug, info, warning or error. [env: TIDEGATE_LOG_LEVEL] [default: info]", show_default=False
    ),
]


def main() -> None:
    """Run the command; the entry point."""
    cli()


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tidegate {version('tidegate-bridge')}")
        raise typer.Exit


@cli.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""


@cli.command(epilog="Example: tidegate serve --broker-url mqtt://localhost:1883 --port 8080")
def serve(
    host: Host = None, port: Port = None, broker_url: BrokerUrl = None, log_level: LogLevel = None
) -> None:
    """Run the bridge.

    It serves until Ctrl-C or SIGTERM, says goodbye to open streams, and ends. Everything else is set by
    environment variables; docs/configuration.md lists them.
    """
    settings = read_settings(listens=True, host=host, port=port, broker_url=broker_url, log_level=log_level)
    configure_logging(settings.log_level, settings.log_format)
    try:
        server.run(create_app(settings), settings)
    except MQTTError as error:
        fail(str(error), WRONG_SETTINGS)
    except OSError as error:
        fail(error.strerror or str(error), FAILED)
    except KeyboardInterrupt:
        return


@cli.command(epilog="Example: tidegate dev")
def dev(
    port: Port = None,
    sensors: Annotated[
        bool, typer.Option("--sensors/--no-sensors", help="Publish made-up measurements under demo/.")
    ] = True,
) -> None:
    """Try Tidegate out: broker, bridge and made-up sensors at once.

    An embedded broker is started, unless TIDEGATE_BROKER_URL names one. It keeps everything in memory,
    listens on this machine alone, and is not for production.
    """
    settings = read_settings(listens=True, port=port)
    try:
        development.run(settings, has_sensors=sensors, say=typer.echo)
    except MQTTError as error:
        fail(str(error), WRONG_SETTINGS)
    except OSError as error:
        fail(error.strerror or str(error), FAILED)
    except RuntimeError as error:
        fail(f"the embedded broker does not start: {error}", FAILED)
    except KeyboardInterrupt:
        return


Output = Annotated[Path, typer.Option(help="The file.")]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; end with status 1 where the file is not up to date.")
]


@cli.command(epilog="Example: tidegate openapi --check")
def openapi(output: Output = Path("openapi/openapi.yaml"), check: Check = False) -> None:
    """Write the description of the HTTP interface (OpenAPI 3.1)."""
    _describe("openapi", lambda app: app.openapi(), output, check=check)


@cli.command(epilog="Example: tidegate asyncapi --check")
def asyncapi(output: Output = Path("openapi/asyncapi.yaml"), check: Check = False) -> None:
    """Write the description of streams and of the WebSocket (AsyncAPI 3)."""
    _describe("asyncapi", lambda app: app.state.describe_streams(), output, check=check)


def _describe(
    command: str, describe: Callable[[FastAPI], dict[str, Any]], output: Path, *, check: bool
) -> None:
    """Write a description into a file, or compare it with the file."""
    try:
        text = yaml_text(describe(create_app(read_settings())))
    except MQTTError as error:
        fail(str(error), WRONG_SETTINGS)
    if check:
        if not output.is_file() or output.read_text(encoding="utf-8") != text:
            fail(f"{output} is not what the code says; run 'tidegate {command}' and commit it", FAILED)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}", FAILED)
    typer.echo(f"wrote {output}")


@cli.command(epilog="Example: tidegate doctor mqtts://broker.example:8883")
def doctor(
    url: Annotated[
        str | None,
        typer.Argument(
            help="A broker's URL (mqtt, mqtts, ws, wss) or a bridge's (http, https). "
            "[default: TIDEGATE_BROKER_URL, else mqtt://localhost:1883]",
            show_default=False,
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            help="Certificate authorities to trust, as PEM. [env: TIDEGATE_BROKER_CA_FILE]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Check the way to a broker, or to a bridge, step by step.

    Name, port, TLS, user name and password, a message there and back: each step says whether it went well,
    and what to do where it did not. Ends with status 1 where one failed. User name, password and certificates
    come from TIDEGATE_BROKER_USERNAME and its like, or from the URL; the configured broker is shown the
    credential that is in use, where there is one.
    """
    if url is not None and url.lower().startswith(("http://", "https://")):
        work = checks.examine_bridge(url, ca_file=ca_file, tell=show_step)
    else:
        settings = read_settings(
            broker_url=url, broker_ca_file=ca_file, without_tls=url is not None and not _has_tls(url)
        )
        try:
            options = settings.connect_options()
            store = open_store(settings) if url is None and ca_file is None else None
        except MQTTError as error:
            fail(str(error), WRONG_SETTINGS)
        work = checks.examine_broker(options, schemas_file=settings.schemas_file, store=store, tell=show_step)
    try:
        report = asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(report.verdict)
    if not report.is_ok:
        raise typer.Exit(FAILED)


def _has_tls(url: str) -> bool:
    """Whether the way to a broker goes over TLS; the end with a word, where it is no broker's URL."""
    try:
        check_broker_url(url)
        return parse_url(url).connect_options.tls is not None
    except MQTTError as error:
        fail(str(error), WRONG_SETTINGS)


def yaml_text(document: dict[str, Any]) -> str:
    """A document as YAML."""
    plain = json.loads(json.dumps(document))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))
