"""The time from an HTTP publish to its SSE event, beside MQTT without a bridge and beside a naive bridge.

Rules:

1. All three run at once, each with a broker of its own, and are loaded in turn, round after round; the
   figures of a round are compared with one another. That is done with Mosquitto's defaults, and once more
   with ``set_tcp_nodelay true``.
2. One publisher process sends at a fixed pace, one listener process receives: the same code for all.
3. What a bridge *adds* is its time less the time of MQTT alone in the same round: there are two hops to and
   from the broker in either.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.contestants import bridge, mosquitto, mosquitto_process, uvicorn
from bench.fanout import Contestant, Group, offer
from bench.naive_bridge import BROKER_PORT_VARIABLE
from bench.packets import PAYLOAD_BYTES, TOPIC

RATE: Final = 200
DIRECT: Final = "MQTT, no bridge"
NAIVE: Final = "naive bridge"
OURS: Final = "Tidegate"


@dataclass(frozen=True, slots=True)
class Latency:
    """One load of one contestant, in milliseconds."""

    p50: float
    p99: float


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print."""
    for settings in ((), ("set_tcp_nodelay true",)):
        seen = _measure_all(settings, rounds, seconds)
        print(
            f"latency: {RATE} messages a second, {PAYLOAD_BYTES}-byte payload, one listener, {rounds} rounds "
            f"of {seconds} s, Mosquitto with {' '.join(settings) or 'its defaults'}"
        )
        _print(seen)


def _measure_all(settings: Sequence[str], rounds: int, seconds: int) -> dict[str, list[Latency]]:
    with contextlib.ExitStack() as stack:
        contestants = {
            DIRECT: stack.enter_context(_direct(settings)),
            NAIVE: stack.enter_context(_naive(settings)),
            OURS: stack.enter_context(_tidegate(settings)),
        }
        seen: dict[str, list[Latency]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, contestant in contestants.items():
                seen[name].append(_measure(contestant, seconds))
    return seen


def _print(seen: Mapping[str, Sequence[Latency]]) -> None:
    print("| | p50, ms | p99, ms | added at p50, ms | added at p99, ms | added at p50 × naive |")
    print("| --- | --- | --- | --- | --- | --- |")
    naive = [each.p50 - direct.p50 for each, direct in zip(seen[NAIVE], seen[DIRECT], strict=True)]
    for name, loads in seen.items():
        added = [each.p50 - direct.p50 for each, direct in zip(loads, seen[DIRECT], strict=True)]
        late = [each.p99 - direct.p99 for each, direct in zip(loads, seen[DIRECT], strict=True)]
        ratios = [ours / reference for ours, reference in zip(added, naive, strict=True)]
        print(
            f"| {name} | {statistics.median(each.p50 for each in loads):.2f} "
            f"| {statistics.median(each.p99 for each in loads):.2f} "
            f"| {statistics.median(added):.2f} | {statistics.median(late):.2f} "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
        )
    print()


def _measure(contestant: Contestant, seconds: int) -> Latency:
    with Group(contestant.listen_url, 1) as group:
        seen = offer(contestant, group, RATE, seconds, 0).seen
    if seen.p50_ms is None or seen.p99_ms is None:
        raise RuntimeError(f"nothing came from {contestant.listen_url}")
    return Latency(seen.p50_ms, seen.p99_ms)


@contextlib.contextmanager
def _direct(settings: Sequence[str]) -> Iterator[Contestant]:
    with mosquitto_process(*settings) as (pid, port):
        yield Contestant(pid, f"mqtt://127.0.0.1:{port}", f"mqtt://127.0.0.1:{port}")


@contextlib.contextmanager
def _naive(settings: Sequence[str]) -> Iterator[Contestant]:
    with mosquitto(*settings) as broker_port:
        environment = {BROKER_PORT_VARIABLE: str(broker_port)}
        with uvicorn("bench.naive_bridge:app", environment) as (pid, port):
            yield _over_http(pid, port)


@contextlib.contextmanager
def _tidegate(settings: Sequence[str]) -> Iterator[Contestant]:
    with mosquitto(*settings) as broker_port, bridge(broker_port) as (pid, port):
        yield _over_http(pid, port)


def _over_http(pid: int, port: int) -> Contestant:
    url = f"http://127.0.0.1:{port}/v1"
    return Contestant(pid, f"{url}/topics/{TOPIC}", f"{url}/subscribe?topic={TOPIC}&qos=0")
