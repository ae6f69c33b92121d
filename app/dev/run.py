"""Starts broker, bridge and sensors, and ends them in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from pydantic import SecretStr

from app.dev.banner import banner
from app.dev.broker import EmbeddedBroker
from app.dev.sensors import run_sensors
from app.logs.configuration import configure_logging
from app.main import create_app
from app.server import BridgeServer, listen, make_server, url_of, warn_if_insecure
from app.settings import Settings
from tidegate.connection import ConnectOptions
from tidegate.url import without_password

PORTS_TRIED: Final = 50


def run(settings: Settings, *, has_sensors: bool, say: Callable[[str], None]) -> None:
    """Run until SIGINT or SIGTERM.

    Args:
        settings: those of the bridge; without a broker URL of their own, a broker is started.
        has_sensors: whether made-up sensors publish.
        say: takes the texts for the terminal.

    Raises:
        OSError: a port cannot be had.
        RuntimeError: the embedded broker does not start.
        TLSError: a certificate file cannot be used.
    """
    level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    configure_logging(level, settings.log_format)
    with ExitStack() as stack:
        if "broker_url" in settings.model_fields_set:
            where = without_password(settings.broker_url.get_secret_value())
        else:
            broker = stack.enter_context(EmbeddedBroker(max_payload_bytes=settings.max_body_bytes))
            settings = settings.model_copy(update={"broker_url": SecretStr(broker.url)})
            where = (
                f"{broker.url} with MQTT 5, mqtt://127.0.0.1:{broker.port_3_1_1} with 3.1.1\n"
                "           (embedded; all in memory, and never for production)"
            )
        listening = stack.enter_context(_listen(settings, say))
        warn_if_insecure(settings, url_of(listening))
        server = make_server(
            create_app(settings), settings, on_started=lambda: say(banner(url_of(listening), where, settings))
        )
        options = settings.connect_options() if has_sensors else None
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(server, listening, options))


def _listen(settings: Settings, say: Callable[[str], None]) -> socket.socket:
    """The port of the settings, or the next that is free."""
    wanted = settings.port
    for port in range(wanted, min(wanted + PORTS_TRIED, 65_536)):
        try:
            listening = listen(settings.host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            if port != wanted:
                say(f"Port {wanted} is taken; the bridge uses {port}.")
            return listening
    raise OSError(
        errno.EADDRINUSE, f"none of {PORTS_TRIED} ports from {wanted} up is free; name one with --port"
    )


async def _serve(server: BridgeServer, listening: socket.socket, sensors_to: ConnectOptions | None) -> None:
    if sensors_to is None:
        await server.serve(sockets=[listening])
        return
    sensors = asyncio.create_task(run_sensors(sensors_to), name="sensors")
    try:
        await server.serve(sockets=[listening])
    finally:
        sensors.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sensors
