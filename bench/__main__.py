"""``python -m bench [NAME …]``: run the named benchmarks, or all, and print a table for each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

from bench import batch, fanout, latency, publish, restarts, sdk


class Benchmark(NamedTuple):
    """What to run, and how long unless the command line says otherwise."""

    run: Callable[..., None]
    rounds: int
    seconds: int


BENCHMARKS = {
    "publish": Benchmark(publish.run, rounds=5, seconds=4),
    "batch": Benchmark(batch.run, rounds=5, seconds=4),
    "sdk": Benchmark(sdk.run, rounds=9, seconds=2),
    "fanout": Benchmark(fanout.run, rounds=3, seconds=5),
    "latency": Benchmark(latency.run, rounds=7, seconds=5),
    "restarts": Benchmark(restarts.run, rounds=1, seconds=30),
}


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, help="rounds; each runs every contestant once")
    parser.add_argument("--seconds", type=int, help="seconds of each load for one in a round")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    for name in arguments.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        benchmark.run(
            rounds=arguments.rounds or benchmark.rounds, seconds=arguments.seconds or benchmark.seconds
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
