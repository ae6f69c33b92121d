"""Debian's nginx on loopback, apart from the system's."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.bridge import wait_until
from tests.support.ports import is_listening

STOP_SECONDS: Final = 10.0
CONFIGURATION: Final = """\
daemon off;
user {user};
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
events {{
    worker_connections 512;
}}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{servers}
}}
"""


@contextmanager
def running_nginx(directory: Path, port: int, servers: str) -> Iterator[None]:
    """Run an nginx of one worker until the block ends.

    Args:
        directory: an empty one for its files.
        port: where it is told to listen on 127.0.0.1.
        servers: what stands in its block ``http``.

    Raises:
        RuntimeError: nginx does not take the configuration.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed; `make test` installs it")
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(user=directory.owner(), directory=directory, servers=servers))
    with subprocess.Popen([program, "-e", "stderr", "-c", str(file)], stdin=subprocess.DEVNULL) as running:
        wait_until(lambda: is_listening(port) or running.poll() is not None)
        if running.poll() is not None:
            raise RuntimeError("nginx does not serve; what it wrote above tells why")
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(STOP_SECONDS)
