"""Requests a second of ``POST /v1/topics/…``, beside a FastAPI route and a raw ASGI application that do
nothing.

All contestants run at once and are loaded in turn, round after round, so that each round's ratios come from
the same minute of the same machine.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import Final

from bench.contestants import Load, bridge, load, mosquitto, uvicorn

BODY: Final = (
    b'{"value": 23.5, "unit": "celsius", "note": "a body of a hundred bytes, as the target has it. ....."}'
)
CONNECTIONS: Final = 64
REFERENCE: Final = "FastAPI no-op"


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print."""
    seen: dict[str, list[Load]] = {}
    with contextlib.ExitStack() as stack:
        broker_port = stack.enter_context(mosquitto())
        bridge_pid, bridge_port = stack.enter_context(bridge(broker_port))
        fastapi_pid, fastapi_port = stack.enter_context(uvicorn("bench.references:fastapi_route"))
        raw_pid, raw_port = stack.enter_context(uvicorn("bench.references:raw_asgi"))
        contestants = {
            "raw ASGI no-op": (raw_pid, f"http://127.0.0.1:{raw_port}/v1/topics/bench/a"),
            REFERENCE: (fastapi_pid, f"http://127.0.0.1:{fastapi_port}/v1/topics/bench/a"),
            "bridge, QoS 0": (bridge_pid, f"http://127.0.0.1:{bridge_port}/v1/topics/bench/a?qos=0"),
            "bridge, QoS 1": (bridge_pid, f"http://127.0.0.1:{bridge_port}/v1/topics/bench/a?qos=1"),
        }
        for name, (pid, url) in contestants.items():
            load(pid, url, body=BODY, connections=CONNECTIONS, seconds=1)
            seen[name] = []
        for _ in range(rounds):
            for name, (pid, url) in contestants.items():
                seen[name].append(load(pid, url, body=BODY, connections=CONNECTIONS, seconds=seconds))
    print(f"publish: {CONNECTIONS} connections, {len(BODY)}-byte body, {rounds} rounds of {seconds} s")
    print("| | requests/s, median | × FastAPI no-op, median (min to max) | CPU, µs a request | errors |")
    print("| --- | --- | --- | --- | --- |")
    for name, loads in seen.items():
        ratios = [
            each.requests / reference.requests for each, reference in zip(loads, seen[REFERENCE], strict=True)
        ]
        print(
            f"| {name} | {statistics.median(each.requests for each in loads):,.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {statistics.median(each.cpu_microseconds for each in loads):.0f} "
            f"| {sum(each.errors for each in loads)} |"
        )
