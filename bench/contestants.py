"""Server processes under load: started on a free loopback port, loaded by wrk for a bounded time, ended by
pid.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.isolation import is_loopback_only

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw, and what the server paid for it.

    Attributes:
        requests: answers a second.
        errors: answers other than 2xx, and failed connections.
        cpu_microseconds: CPU time of the server process for each answer.
    """

    requests: float
    errors: int
    cpu_microseconds: float


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: Sequence[str], port: int, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a server until the block ends; gives its pid once it accepts connections."""
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if running.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise RuntimeError(f"{command[0]} does not serve:\n{output.read().decode()}")
                time.sleep(0.05)
            yield running.pid
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@contextlib.contextmanager
def mosquitto(*settings: str) -> Iterator[int]:
    """Run a Mosquitto with its defaults and these further settings; gives its port."""
    with mosquitto_process(*settings) as (_, port):
        yield port


@contextlib.contextmanager
def mosquitto_process(*settings: str) -> Iterator[tuple[int, int]]:
    """The same; gives pid and port."""
    port = free_port()
    with _mosquitto(port, settings) as pid:
        yield pid, port


@contextlib.contextmanager
def websocket_mosquitto() -> Iterator[tuple[int, int, int]]:
    """Run a Mosquitto with a second listener for WebSocket; gives pid, port and the WebSocket's port.

    Raises:
        RuntimeError: other interfaces than loopback are up, which it would bind too.
    """
    if not is_loopback_only():
        raise RuntimeError("Mosquitto binds a WebSocket listener to all interfaces: give it a namespace")
    port, websocket_port = free_port(), free_port()
    settings = [f"listener {websocket_port} 127.0.0.1", "protocol websockets"]
    with _mosquitto(port, settings) as pid:
        yield pid, port, websocket_port


@contextlib.contextmanager
def _mosquitto(port: int, settings: Sequence[str]) -> Iterator[int]:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("mosquitto is not installed; `make bench` installs it")
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "log_type error", *settings]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n")
        with process([program, "-c", str(path)], port) as pid:
            yield pid


@contextlib.contextmanager
def uvicorn(application: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """Run one uvicorn worker over an ASGI application; gives pid and port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "warning"]
    with process(command, port, environment) as pid:
        yield pid, port


@contextlib.contextmanager
def bridge(broker_port: int, settings: Mapping[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """Run the bridge as a user does, with further settings by variable; gives pid and port."""
    port = free_port()
    environment = {
        **(settings or {}),
        "TIDEGATE_BROKER_URL": f"mqtt://127.0.0.1:{broker_port}",
        "TIDEGATE_PORT": str(port),
        "TIDEGATE_LOG_LEVEL": "warning",
    }
    with process([sys.executable, "-m", "app", "serve"], port, environment) as pid:
        _wait_until_ready(port)
        yield pid, port


def _wait_until_ready(port: int) -> None:
    """The bridge serves before it has its connection to the broker, and answers 503 until then."""
    deadline = time.monotonic() + START_SECONDS
    while not httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
        if time.monotonic() > deadline:
            raise RuntimeError("the bridge does not get ready")
        time.sleep(0.05)


def load(pid: int, url: str, *, body: bytes, connections: int, seconds: int, token: str = "") -> Load:
    """Load one URL with POST requests for a bounded time.

    Args:
        pid: the server's process.
        url: an address on loopback.
        body: what each request carries.
        connections: open connections, each with one request at a time.
        seconds: how long.
        token: what ``Authorization: Bearer`` carries; none where it is empty.
    """
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is not installed; `make bench` installs it")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = {_lua(body)}\n')
        script.write('wrk.headers["Content-Type"] = "application/json"\n')
        if token:
            script.write(f'wrk.headers["Authorization"] = "Bearer {token}"\n')
        script.flush()
        command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        before = _cpu_seconds(pid)
        command += ["-s", script.name, url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30)
        spent = _cpu_seconds(pid) - before
    counted = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if counted is None or rate is None:
        raise RuntimeError(f"wrk said something unexpected:\n{done.stdout}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    errors = (int(failed[1]) if failed else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    return Load(float(rate[1]), errors, spent / max(int(counted[1]), 1) * 1e6)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lua(body: bytes) -> str:
    return '"' + "".join(f"\\{octet:03d}" for octet in body) + '"'
