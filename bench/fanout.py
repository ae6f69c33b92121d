"""Deliveries of one topic to many listeners, beside Mosquitto's own WebSocket and nginx's nchan.

Three measurements: a rate that all of them can hold (what does a delivery cost?), two floods that none of
them need hold (how many get through?), and silence (what does a listener cost?).

Rules:

1. Each server is one process with one worker. All run at once and are loaded in turn, round after round, so
   that each round's ratios come from the same minute of the same machine.
2. A publisher and the listeners are a process each, and the same code for all. The listeners' share of a core
   is printed: they are no measure of the server while it stays below 100 %.
3. All of it runs in a network namespace with loopback alone. Where none can be made, Mosquitto's WebSocket
   is left out (see ``bench.isolation``).
4. A server's CPU time is divided by the messages that the listeners received. Tidegate's is that of the
   bridge; its broker, which hands it each message once, does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from bench import isolation
from bench.contestants import bridge, mosquitto, websocket_mosquitto
from bench.listeners import Seen
from bench.nchan import nchan
from bench.packets import PAYLOAD_BYTES, TOPIC
from bench.usage import allow_open_files, cpu_seconds, machine_cpu_seconds, resident_bytes, wait_until_quiet

LISTENERS: Final = 1000
IDLE_LISTENERS: Final = 5000
IDLE_WARM_UP_LISTENERS: Final = 100
AT_RATE: Final = 20
FLOODS: Final = (300, 700)
AT_RATE_REST_MS: Final = 1
FLOOD_REST_MS: Final = 5
OPEN_FILES: Final = 8192

LEAD_SECONDS: Final = 0.5
WARM_UP_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 2.0
QUIET_SECONDS: Final = 15.0

OURS: Final = "Tidegate"
BROKER: Final = "Mosquitto, WebSocket"
NCHAN: Final = "nginx with nchan"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that runs: its process, where one publishes and where one listens."""

    pid: int
    publish_url: str
    listen_url: str


@dataclass(frozen=True, slots=True)
class Fanout:
    """One load of one contestant.

    Attributes:
        published: messages a second that the publisher got rid of.
        deliveries: messages a second that all listeners received.
        lost_share: what part of the published messages, one for each listener, never came.
        cpu_microseconds: CPU time of the server for each delivery.
        cpu_share: the share of one core that the server used.
        other_cores: how many cores other programs of the machine kept busy meanwhile.
        seen: what the listeners' process says.
    """

    published: float
    deliveries: float
    lost_share: float
    cpu_microseconds: float
    cpu_share: float
    other_cores: float
    seen: Seen


def run(*, rounds: int, seconds: int) -> None:
    """Measure and print, in a network namespace where one can be made."""
    prefix = isolation.command_prefix()
    if prefix is None:
        print(
            "No network namespace can be made here, and Mosquitto's WebSocket is not started without one.\n"
        )
        measure(rounds=rounds, seconds=seconds, isolated=False)
    else:
        sys.stdout.flush()
        command = [sys.executable, "-m", "bench.fanout", str(rounds), str(seconds)]
        subprocess.run([*prefix, *command], check=True)


def measure(*, rounds: int, seconds: int, isolated: bool) -> None:
    """Measure and print, here."""
    allow_open_files(OPEN_FILES)
    starts: dict[str, Callable[[], contextlib.AbstractContextManager[Contestant]]] = {OURS: _tidegate}
    if isolated:
        starts[BROKER] = _mosquitto
    starts[NCHAN] = _nchan
    memory = {name: _idle_bytes(start) for name, start in starts.items()}
    at_rate: dict[str, list[Fanout]] = {name: [] for name in starts}
    floods: dict[int, dict[str, list[Fanout]]] = {rate: {name: [] for name in starts} for rate in FLOODS}
    with contextlib.ExitStack() as stack:
        contestants = {name: stack.enter_context(start()) for name, start in starts.items()}
        for _ in range(rounds):
            for name, contestant in contestants.items():
                with Group(contestant.listen_url, LISTENERS) as group:
                    at_rate[name].append(offer(contestant, group, AT_RATE, seconds, AT_RATE_REST_MS))
                for rate, flood in floods.items():  # new listeners: who is behind has the last flood to read
                    with Group(contestant.listen_url, LISTENERS) as group:
                        flood[name].append(offer(contestant, group, rate, seconds, FLOOD_REST_MS))
                    wait_until_quiet(contestant.pid, at_most_seconds=QUIET_SECONDS)
    asked = f"{LISTENERS:,} listeners of one topic, {PAYLOAD_BYTES}-byte payload"
    length = f"{rounds} rounds of {seconds} s"
    print(f"fanout at rate: {asked}, {AT_RATE} messages a second offered, {length}")
    _print_loads(at_rate, "CPU", lambda each: each.cpu_microseconds)
    for rate, flood in floods.items():
        print(f"\nfanout flood: {asked}, {rate} messages a second offered, {length}")
        _print_loads(flood, "deliveries/s", lambda each: each.deliveries)
    print(f"\nidle: {IDLE_LISTENERS:,} silent listeners")
    print("| | resident memory a listener, KiB |")
    print("| --- | --- |")
    for name, size in memory.items():
        print(f"| {name} | {size / 1024:.1f} |")


class Group:
    """The listeners' process; it ends with the block."""

    def __init__(self, url: str, count: int) -> None:
        self.count = count
        self._command = [sys.executable, "-m", "bench.listeners", url, str(count)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def follow(self, begin: int, end: int, rest_ms: int) -> None:
        """Have the listeners listen from now on, resting between sweeps, and count from begin to end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"begin": begin, "end": end, "rest_ms": rest_ms}) + "\n")
        self._process.stdin.flush()

    def seen(self) -> Seen:
        """What they saw; comes after the end."""
        return Seen(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the listeners failed; what they said stands above")
        return line


def offer(contestant: Contestant, group: Group, rate: int, seconds: int, rest_ms: int) -> Fanout:
    """Publish at a rate, in messages a second, and see what the listeners get."""
    start = time.monotonic_ns() + int(LEAD_SECONDS * 1e9)
    begin = start + int(WARM_UP_SECONDS * 1e9)
    end = begin + seconds * 1_000_000_000
    group.follow(begin, end, rest_ms)
    times = [str(each) for each in (start, begin, end)]
    with subprocess.Popen(
        [sys.executable, "-m", "bench.publisher", contestant.publish_url, str(rate), *times],
        stdout=subprocess.PIPE,
    ) as publisher:
        _sleep_until(begin)
        before, others = cpu_seconds(contestant.pid), _other_cpu_seconds()
        _sleep_until(end)
        spent, others = cpu_seconds(contestant.pid) - before, _other_cpu_seconds() - others
        output, _ = publisher.communicate(timeout=60)
    if publisher.returncode:
        raise RuntimeError("the publisher failed; what it said stands above")
    offered = json.loads(output)
    seen = group.seen()
    if seen.disorder:
        raise RuntimeError(f"{contestant.listen_url}: {seen.disorder} messages came twice or out of order")
    return Fanout(
        published=offered["inside"] / seconds,
        deliveries=seen.inside / seconds,
        lost_share=1 - seen.total / max(offered["sent"] * group.count, 1),
        cpu_microseconds=spent / max(seen.inside, 1) * 1e6,
        cpu_share=spent / seconds,
        other_cores=max(0.0, others / seconds),
        seen=seen,
    )


def _idle_bytes(start: Callable[[], contextlib.AbstractContextManager[Contestant]]) -> float:
    """Memory for each of many silent listeners; the first few, which load code and tables, do not count."""
    with start() as contestant, Group(contestant.listen_url, IDLE_WARM_UP_LISTENERS):
        time.sleep(SETTLE_SECONDS)
        before = resident_bytes(contestant.pid)
        with Group(contestant.listen_url, IDLE_LISTENERS):
            time.sleep(SETTLE_SECONDS)
            return (resident_bytes(contestant.pid) - before) / IDLE_LISTENERS


def _print_loads(loads: dict[str, list[Fanout]], figure: str, value: Callable[[Fanout], float]) -> None:
    """One row a contestant; the figure that counts is set against each reference, round by round."""
    references = [name for name in loads if name != OURS]
    titles = ["published/s", "deliveries/s", "never came", "p50, ms", "p99, ms", "CPU, µs a delivery"]
    titles += [f"{figure} × {name}" for name in references]
    titles += ["server's core", "listeners' core", "streams closed"]
    print("".join(f"| {title} " for title in ["", *titles]) + "|")
    print("| --- " * (len(titles) + 1) + "|")
    for name, each in loads.items():
        cells = [
            f"{statistics.median(one.published for one in each):,.0f}",
            f"{statistics.median(one.deliveries for one in each):,.0f}",
            f"{statistics.median(one.lost_share for one in each):.1%}",
            _milliseconds([one.seen.p50_ms for one in each]),
            _milliseconds([one.seen.p99_ms for one in each]),
            f"{statistics.median(one.cpu_microseconds for one in each):.2f}",
        ]
        for reference in references:
            ratios = [
                value(one) / max(value(other), 1e-9)
                for one, other in zip(each, loads[reference], strict=True)
            ]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        cells += [
            f"{statistics.median(one.cpu_share for one in each):.0%}",
            f"{statistics.median(one.seen.cpu_share for one in each):.0%}",
            f"{sum(one.seen.closed for one in each):,}",
        ]
        print("".join(f"| {cell} " for cell in [name, *cells]) + "|")

    busy = [one.other_cores for each in loads.values() for one in each]
    print(
        f"\nOther programs kept {statistics.median(busy):.2f} of {os.cpu_count()} cores busy meanwhile "
        f"(at most {max(busy):.2f} during one load)."
    )


def _milliseconds(values: Sequence[float | None]) -> str:
    known = [each for each in values if each is not None]
    return f"{statistics.median(known):.1f}" if known else "—"


def _other_cpu_seconds() -> float:
    """CPU time of all that is not this benchmark, whose servers and clients are children of this process."""
    return machine_cpu_seconds() - cpu_seconds(os.getpid())


def _sleep_until(nanoseconds: int) -> None:
    time.sleep(max(0.0, (nanoseconds - time.monotonic_ns()) / 1e9))


@contextlib.contextmanager
def _tidegate() -> Iterator[Contestant]:
    with mosquitto() as broker_port, bridge(broker_port) as (pid, port):
        listen_url = f"http://127.0.0.1:{port}/v1/subscribe?topic={TOPIC}"
        yield Contestant(pid, f"mqtt://127.0.0.1:{broker_port}", listen_url)


@contextlib.contextmanager
def _mosquitto() -> Iterator[Contestant]:
    with websocket_mosquitto() as (pid, port, websocket_port):
        yield Contestant(pid, f"mqtt://127.0.0.1:{port}", f"ws://127.0.0.1:{websocket_port}/mqtt")


@contextlib.contextmanager
def _nchan() -> Iterator[Contestant]:
    with nchan(open_files=OPEN_FILES) as (pid, port):
        url = f"http://127.0.0.1:{port}"
        yield Contestant(pid, f"{url}/publish", f"{url}/subscribe")


def main() -> int:
    """Measure in the namespace that ``run`` made: ``python -m bench.fanout ROUNDS SECONDS``."""
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=main.__doc__)
    parser.add_argument("rounds", type=int)
    parser.add_argument("seconds", type=int)
    arguments = parser.parse_args()
    isolation.raise_loopback()
    measure(rounds=arguments.rounds, seconds=arguments.seconds, isolated=isolation.is_loopback_only())
    return 0


if __name__ == "__main__":
    sys.exit(main())
