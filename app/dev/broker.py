"""The embedded broker: iotcore, which is rumqttd in a process of its own. It keeps everything in memory."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from iotcore import Broker

LOOPBACK: Final = "127.0.0.1"
USUAL_PORT: Final = 1883
ATTEMPTS: Final = 3
SEGMENT_BYTES: Final = 1_048_576
PACKET_OVERHEAD_BYTES: Final = 131_072
"""Room for what a PUBLISH carries besides its payload: a topic of 65,535 bytes, and properties."""

_ROUTER: Final = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = {segment_bytes}
max_segment_count = 10
"""
_LISTENER: Final = """\
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 10000
max_payload_size = {packet_bytes}
max_inflight_count = 1000
dynamic_filters = true
"""


class _LastToGo(Broker):
    """Ends when its pipe is closed; deaf to SIGINT and SIGTERM, which reach every process of a group."""

    def start(self, timeout: float = 10.0) -> Self:
        """Start it with the signals blocked, which its process inherits."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            super().start(timeout)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def stop(self, timeout: float = 5.0) -> None:
        """Close the pipe, and wait for its end; one that does not end is killed."""
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        super().stop(1.0)


class EmbeddedBroker:
    """A broker on loopback with a listener for MQTT 5 and one for 3.1.1; a context manager.

    Args:
        max_payload_bytes: the largest payload that it takes.

    Attributes:
        port: that of MQTT 5; 1883 where it is free.
        port_3_1_1: that of MQTT 3.1.1.

    Raises:
        OSError: no port could be had.
        RuntimeError: the broker did not start.
    """

    def __init__(self, *, max_payload_bytes: int) -> None:
        self._packet_bytes = max_payload_bytes + PACKET_OVERHEAD_BYTES
        self._resources = ExitStack()
        self.port = 0
        self.port_3_1_1 = 0

    @property
    def url(self) -> str:
        """Where MQTT 5 is spoken."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        for attempt in range(ATTEMPTS):
            try:
                self._start()
                break
            except OSError:  # somebody was faster to take one of the ports
                self._resources.close()
                if attempt == ATTEMPTS - 1:
                    raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _start(self) -> None:
        with _bound(USUAL_PORT) or _free() as first, _free() as second:
            self.port = first.getsockname()[1]
            self.port_3_1_1 = second.getsockname()[1]
        directory = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-"))
        file = Path(directory) / "rumqttd.toml"
        file.write_text(self._configuration(), encoding="utf-8")
        broker = _LastToGo(config_path=str(file))
        self._resources.callback(broker.stop)
        try:
            broker.start()
        except RuntimeError:
            self._resources.close()
            raise

    def _configuration(self) -> str:
        text = _ROUTER.format(segment_bytes=max(SEGMENT_BYTES, self._packet_bytes))
        for version, port in (("v5", self.port), ("v4", self.port_3_1_1)):
            text += _LISTENER.format(
                version=version, host=LOOPBACK, port=port, packet_bytes=self._packet_bytes
            )
        return text


def _free() -> socket.socket:
    found = _bound(0)
    if found is None:
        raise OSError(errno.EADDRINUSE, "no port of 127.0.0.1 is free")
    return found


def _bound(port: int) -> socket.socket | None:
    """A socket that holds a port of loopback, 0 for any; None where somebody has it."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
    except OSError:
        found.close()
        return None
    return found
