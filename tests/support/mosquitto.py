"""A real Mosquitto on loopback, with its configuration in a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.certificates import Certificates
from tests.support.ports import LOOPBACK, ReservedPort, is_listening

START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01

# One listener, on loopback, and never a WebSocket: Mosquitto 2.0.11 opens that on every interface.
_FORBIDDEN_SETTINGS: Final = frozenset(
    {
        "listener",
        "port",
        "bind_address",
        "bind_interface",
        "protocol",
        "http_dir",
        "include_dir",
        "socket_domain",
    }
)


class Mosquitto:
    """One broker process with one listener on 127.0.0.1; a context manager that starts and stops it.

    Args:
        passwords: user names and their passwords; without them anybody may connect.
        acl: the lines of an ACL file, as mosquitto.conf(5) describes them; it refuses publishes, and grants
            subscriptions that it then delivers nothing to.
        denied: a topic filter that anonymous clients may neither publish to nor subscribe to, by the plugin
            for dynamic security, which refuses subscriptions too.
        tls: the server's certificate; the listener then speaks TLS alone.
        require_certificate: refuse a client that has no certificate of the same authority.
        persistence: keep retained messages and sessions across ``restart`` and, about a second after
            a change, across ``kill``.
        extra: more lines for the configuration; none may open a listener.
    """

    host: Final = LOOPBACK

    def __init__(
        self,
        *,
        passwords: Mapping[str, str] | None = None,
        acl: str | None = None,
        denied: str | None = None,
        tls: Certificates | None = None,
        require_certificate: bool = False,
        persistence: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        for line in extra:
            if set(line.split()[:1]) & _FORBIDDEN_SETTINGS:
                raise ValueError(f"{line!r} would change where Mosquitto listens; this class decides that")
        self._program = find_program("mosquitto")
        self._files = tempfile.TemporaryDirectory(prefix="mosquitto-", ignore_cleanup_errors=True)
        self.directory = Path(self._files.name)
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.url = f"{'mqtt' if tls is None else 'mqtts'}://{self.host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False
        lines = [
            f"listener {self.port} {self.host}",
            f"allow_anonymous {'true' if passwords is None else 'false'}",
            "log_dest stderr",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes another user, who may not read these files
        if passwords is not None:
            lines.append(f"password_file {self._write_passwords(passwords)}")
        if acl is not None:
            lines.append(f"acl_file {self._write('acl', acl)}")
        if denied is not None:
            lines.append(f"plugin {find_plugin('mosquitto_dynamic_security.so')}")
            lines.append(f"plugin_opt_config_file {self._write('rules.json', json.dumps(_rules(denied)))}")
        if tls is not None:
            lines += [f"cafile {tls.ca}", f"certfile {tls.server_certificate}", f"keyfile {tls.server_key}"]
            lines.append(f"require_certificate {'true' if require_certificate else 'false'}")
        if persistence:
            lines += ["persistence true", f"persistence_location {self.directory}/"]
            lines += ["autosave_on_changes true", "autosave_interval 1"]
        self._configuration = self._write("mosquitto.conf", "\n".join([*lines, *extra]) + "\n")

    @property
    def is_running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the broker wrote, over all its starts."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the broker, and wait until it accepts connections; nothing happens where it runs.

        Raises:
            RuntimeError: it ended, or did not listen in time; the text has what it wrote.
        """
        if self.is_running:
            return
        with (self.directory / "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [self._program, "-c", str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not is_listening(self.port):
            if process.poll() is not None:
                raise RuntimeError(f"Mosquitto ended with status {process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Mosquitto does not listen after {START_SECONDS} s:\n{self.log}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the broker as an operator would (SIGTERM): it writes its state and closes its connections."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker at once (SIGKILL), as a crash would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop, and start on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections and bytes are still accepted, nothing is answered."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGSTOP)
            self._is_paused = True

    def resume(self) -> None:
        """Let a paused process go on."""
        if self._process is not None and self._is_paused:
            self._process.send_signal(signal.SIGCONT)
            self._is_paused = False

    def close(self) -> None:
        """Stop, and remove the files."""
        self.stop()
        self._reserved.close()
        self._files.cleanup()

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

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self.resume()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        self._process = None

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def _write_passwords(self, passwords: Mapping[str, str]) -> Path:
        path = self._write("passwords", "".join(f"{user}:{word}\n" for user, word in passwords.items()))
        subprocess.run(
            [find_program("mosquitto_passwd"), "-U", str(path)], check=True, capture_output=True, timeout=60
        )
        return path


def find_program(name: str) -> str:
    """The path of one of Mosquitto's programs.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError(f"{name} is not installed, and the tests need it: `make test` installs it")
    return found


def find_plugin(name: str) -> Path:
    """The path of one of the plugins that come with Mosquitto.

    Raises:
        RuntimeError: it is not installed.
    """
    for directory in ("/usr/lib", "/usr/local/lib"):
        for found in (*Path(directory).glob(name), *Path(directory).glob(f"*/{name}")):
            return found
    raise RuntimeError(
        f"{name} is not installed, and the tests need it: `make test` installs it with Mosquitto"
    )


def _rules(denied: str) -> dict[str, object]:
    kinds = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    refused = [
        {"acltype": kind, "topic": denied, "priority": 0, "allow": False}
        for kind in ("publishClientSend", "subscribePattern")
    ]
    return {
        "defaultACLAccess": dict.fromkeys(kinds, True),
        "clients": [],
        "groups": [{"groupname": "anybody", "roles": [{"rolename": "limited"}]}],
        "roles": [{"rolename": "limited", "acls": refused}],
        "anonymousGroup": "anybody",
    }
