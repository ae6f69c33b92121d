"""``python -m bench [NAME …]``: run the named benchmarks, or all, and print a table for each."""

from __future__ import annotations

import argparse
import sys

from bench import publish

BENCHMARKS = {"publish": publish.run}


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; each runs every contestant once")
    parser.add_argument("--seconds", type=int, default=4, help="seconds of load for one in a round")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    for name in arguments.names or BENCHMARKS:
        BENCHMARKS[name](rounds=arguments.rounds, seconds=arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
