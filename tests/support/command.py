"""The command ``tidegate`` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with these ``TIDEGATE_…`` variables and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("TIDEGATE_")}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "client_sdk")])
    return {**kept, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", **(settings or {})}


def run_command(
    *arguments: str, settings: Mapping[str, str] | None = None, directory: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run ``tidegate`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env=environment(settings),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


class Command:
    """A ``tidegate`` that runs until it is told to stop; a context manager.

    Args:
        arguments: of the command.
        settings: more environment variables.
        program: what Python runs in place of the command.
        python: the interpreter.

    Attributes:
        output: what it wrote so far, to stdout and to stderr.
    """

    def __init__(
        self,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "app"),
        python: str | Path = sys.executable,
    ) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            [python, *program, *arguments],
            env=environment(settings),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_for(self, text: str) -> None:
        """Wait until it has written this text; raises AssertionError where it does not."""
        self._wait(lambda: text in self.output or self._process.poll() is not None)
        self._reader.join(0 if self._process.poll() is None else SECONDS)
        assert text in self.output, f"{text!r} is not in what it wrote:\n{self.output}"

    def interrupt(self, number: signal.Signals, *, whole_group: bool = False) -> int:
        """Send a signal and return the status that it ends with.

        Args:
            number: the signal.
            whole_group: send it to all processes of the terminal, as Ctrl-C does.
        """
        if whole_group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        status = self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line

    def _wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come about within {SECONDS:g} s; it wrote:\n{self.output}")
            time.sleep(POLL_SECONDS)
