"""MQTT 5 first, and 3.1.1 where the broker has no 5."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tidegate.connection import ConnectOptions, ProtocolVersion
from tidegate.connections.failures import ClosedBeforeConnackError, closed_early
from tidegate.errors import ConnectRefusedError, MQTTTimeoutError
from tidegate.reason_codes import UNSUPPORTED_PROTOCOL_VERSION

OpenedT = TypeVar("OpenedT")


async def open_newest(
    options: ConnectOptions, open_once: Callable[[ProtocolVersion], Awaitable[OpenedT]]
) -> OpenedT:
    """Open a connection with the version that the options name, or the newest that the broker speaks.

    Args:
        options: how to connect.
        open_once: opens a connection with one version.

    Raises:
        MQTTTimeoutError: all attempts together took longer than ``connect_timeout_seconds``.
        MQTTConnectionError: what the last attempt raised.
    """
    try:
        async with asyncio.timeout(options.connect_timeout_seconds):
            if options.protocol_version is not None:
                return await open_once(options.protocol_version)
            try:
                return await open_once(5)
            except ConnectRefusedError as error:
                if error.reason_code != UNSUPPORTED_PROTOCOL_VERSION:
                    raise
                return await open_once(4)
            except ClosedBeforeConnackError as error:
                try:
                    return await open_once(4)
                except ClosedBeforeConnackError:
                    raise closed_early(error, encrypted=options.tls is not None) from None
    except TimeoutError:
        address, seconds = f"{options.host}:{options.port}", options.connect_timeout_seconds
        raise MQTTTimeoutError(f"{address} did not answer CONNECT within {seconds:g} s") from None
