"""Requests a second of ``POST /v1/topics/…``, beside a FastAPI route and a raw ASGI application that do
nothing, and with callers that show who they are beside those that nobody asks.

All contestants run at once and are loaded in turn, round after round, so that each round's ratios come from
the same minute of the same machine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from bench.contestants import Load, bridge, load, mosquitto, uvicorn

BODY: Final = (
    b'{"value": 23.5, "unit": "celsius", "note": "a body of a hundred bytes, as the target has it. ....."}'
)
CONNECTIONS: Final = 64
REFERENCE: Final = "FastAPI no-op"
OPEN: Final = "bridge, QoS {}"
GRANTS: Final = (*(f"plant/{number}/+/#" for number in range(9)), "bench/#")
"""Ten, of which the last covers the topic."""


class Contestant(NamedTuple):
    """What is loaded, and what it is compared with besides the reference."""

    pid: int
    url: str
    token: str = ""
    rival: str = ""


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print."""
    with contextlib.ExitStack() as stack:
        contestants = _start(stack)
        seen: dict[str, list[Load]] = {name: [] for name in contestants}
        for each in contestants.values():
            _load(each, seconds=1)
        for _ in range(rounds):
            for name, each in contestants.items():
                seen[name].append(_load(each, seconds=seconds))
    print(f"publish: {CONNECTIONS} connections, {len(BODY)}-byte body, {rounds} rounds of {seconds} s")
    print(
        "| | requests/s, median | × FastAPI no-op, median (min to max) | × without authentication "
        "| CPU, µs a request | errors |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, loads in seen.items():
        rival = contestants[name].rival
        print(
            f"| {name} | {statistics.median(each.requests for each in loads):,.0f} "
            f"| {_ratio(loads, seen[REFERENCE])} | {_ratio(loads, seen[rival]) if rival else ''} "
            f"| {statistics.median(each.cpu_microseconds for each in loads):.0f} "
            f"| {sum(each.errors for each in loads)} |"
        )


def _start(stack: contextlib.ExitStack) -> dict[str, Contestant]:
    broker_port = stack.enter_context(mosquitto())
    settings, key, token = stack.enter_context(_callers())
    fastapi_pid, fastapi_port = stack.enter_context(uvicorn("bench.references:fastapi_route"))
    raw_pid, raw_port = stack.enter_context(uvicorn("bench.references:raw_asgi"))
    open_pid, open_port = stack.enter_context(bridge(broker_port))
    asking_pid, asking_port = stack.enter_context(bridge(broker_port, settings))
    contestants = {
        "raw ASGI no-op": Contestant(raw_pid, f"http://127.0.0.1:{raw_port}/v1/topics/bench/a"),
        REFERENCE: Contestant(fastapi_pid, f"http://127.0.0.1:{fastapi_port}/v1/topics/bench/a"),
    }
    for qos in (0, 1):
        rival = OPEN.format(qos)
        path = f"/v1/topics/bench/a?qos={qos}"
        url = f"http://127.0.0.1:{asking_port}{path}"
        contestants[rival] = Contestant(open_pid, f"http://127.0.0.1:{open_port}{path}")
        contestants[f"{rival}, API key"] = Contestant(asking_pid, url, key, rival)
        contestants[f"{rival}, JWT"] = Contestant(asking_pid, url, token, rival)
    return contestants


@contextlib.contextmanager
def _callers() -> Iterator[tuple[Mapping[str, str], str, str]]:
    """Settings of a bridge that takes keys and tokens, with one of each, made as an operator makes them."""
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "TIDEGATE_API_KEYS_FILE": str(Path(directory) / "keys.yaml"),
            "TIDEGATE_JWT_KEY": secrets.token_hex(32),
        }
        granted = [word for each in GRANTS for word in ("--publish", each)]
        key = _tidegate(settings, "key", "create", "bench", *granted)
        token = _tidegate(settings, "token", "create", "--sub", "bench", "--expires", "1d", *granted)
        yield settings, key, token


def _tidegate(settings: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "app", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **settings}, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.split()[-1]


def _load(contestant: Contestant, *, seconds: int) -> Load:
    return load(
        contestant.pid,
        contestant.url,
        body=BODY,
        connections=CONNECTIONS,
        seconds=seconds,
        token=contestant.token,
    )


def _ratio(loads: list[Load], others: list[Load]) -> str:
    ratios = [each.requests / other.requests for each, other in zip(loads, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
