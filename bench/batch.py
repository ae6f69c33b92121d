"""Messages a second through ``POST /v1/publish/batch``, a hundred a request, beside other ways to the broker.

All contestants run at once and are loaded in turn, round after round, so that each round's ratios come from
the same minute of the same machine. They share one Mosquitto, whose bounds on what is in flight and queued
are lifted, and which writes acknowledgements at once (``set_tcp_nodelay``).
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from typing import Final

import orjson

from bench.batch_direct import BATCH
from bench.contestants import Load, bridge, load, mosquitto, uvicorn

SENDERS: Final = 8
BROKER: Final = ("max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true")
DIRECT: Final = "the SDK's session alone, no HTTP"
OURS: Final = "bridge"
FASTAPI_MQTT: Final = "FastAPI over fastapi-mqtt"
AIOMQTT: Final = "FastAPI over aiomqtt"
NO_OP: Final = "FastAPI no-op"


def body(qos: int) -> bytes:
    """A request with a hundred messages of 100 bytes."""
    return orjson.dumps([{"topic": "bench/a", "payload": "x" * 98, "qos": qos}] * BATCH)


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(mosquitto(*BROKER))
        environment = {"BENCH_BROKER_PORT": str(port)}
        servers = {OURS: stack.enter_context(bridge(port))}
        for name, application in (
            (FASTAPI_MQTT, "over_fastapi_mqtt"),
            (AIOMQTT, "over_aiomqtt"),
            (NO_OP, "no_op"),
        ):
            servers[name] = stack.enter_context(uvicorn(f"bench.batch_references:{application}", environment))
        for qos in (0, 1):
            seen: dict[str, list[Load]] = {name: [] for name in (OURS, DIRECT, FASTAPI_MQTT, AIOMQTT, NO_OP)}
            for warming in range(-1, rounds):
                for name, loads in seen.items():
                    span = seconds if warming >= 0 else 1
                    found = (
                        _direct(port, qos, span)
                        if name == DIRECT
                        else load(
                            servers[name][0],
                            f"http://127.0.0.1:{servers[name][1]}/v1/publish/batch",
                            body=body(qos),
                            connections=SENDERS,
                            seconds=span,
                        )
                    )
                    if warming >= 0:
                        loads.append(found)
            _print(qos, seen, rounds, seconds)


def _direct(port: int, qos: int, seconds: int) -> Load:
    command = [sys.executable, "-m", "bench.batch_direct", str(port), str(qos), str(SENDERS), str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60)
    found = json.loads(done.stdout)
    return Load(found["rate"] / BATCH, 0, found["cpu_microseconds"] * BATCH)


def _print(qos: int, seen: dict[str, list[Load]], rounds: int, seconds: int) -> None:
    reference = FASTAPI_MQTT if qos == 0 else AIOMQTT
    print(f"batch, QoS {qos}: {SENDERS} senders, {BATCH} messages a request, {rounds} rounds of {seconds} s")
    print(f"| | messages/s, median | × {reference} (min to max) | CPU, µs a message | failed requests |")
    print("| --- | --- | --- | --- | --- |")
    for name, loads in seen.items():
        ratios = [each.requests / other.requests for each, other in zip(loads, seen[reference], strict=True)]
        print(
            f"| {name} | {statistics.median(each.requests for each in loads) * BATCH:,.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {statistics.median(each.cpu_microseconds for each in loads) / BATCH:.1f} "
            f"| {sum(each.errors for each in loads)} |"
        )
