"""nginx with its module nchan: a fan-out over Server-Sent Events that is written in C."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.contestants import free_port, process

CONFIGURATION = """\
load_module {module};
daemon off;
user {user};
worker_processes 1;
worker_rlimit_nofile {open_files};
pid {directory}/nginx.pid;
error_log stderr error;
events {{
    worker_connections {open_files};
}}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port};
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id fanout;
            nchan_message_buffer_length {kept};
        }}
        location = /subscribe {{
            nchan_subscriber eventsource;
            nchan_channel_id fanout;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""
KEPT_MESSAGES = 0


@contextlib.contextmanager
def nchan(*, open_files: int) -> Iterator[tuple[int, int]]:
    """Run an nginx of one worker, apart from the system's; gives pid and port.

    Its channel keeps no messages. ``POST /publish`` publishes, ``GET /subscribe`` follows.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed; `make bench` installs it")
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "nginx.conf"
        path.write_text(
            CONFIGURATION.format(
                module=_module(program),
                user=Path(directory).owner(),
                open_files=open_files,
                directory=directory,
                port=port,
                kept=KEPT_MESSAGES,
            )
        )
        with process([program, "-e", "stderr", "-c", str(path)], port) as pid:
            yield pid, port


def _module(program: str) -> Path:
    told = subprocess.run([program, "-V"], check=True, capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    module = Path(found[1] if found else "/usr/lib/nginx/modules") / "ngx_nchan_module.so"
    if not module.exists():
        raise RuntimeError(f"{module} is missing; `make bench` installs it (Debian: libnginx-mod-nchan)")
    return module
