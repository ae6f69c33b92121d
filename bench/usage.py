"""What a server uses: CPU time and memory of a process with all its threads and children."""

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path

POLL_SECONDS = 0.25


def cpu_seconds(pid: int) -> float:
    """CPU time since the start: what ``/proc/PID/stat`` sums up, read to the nanosecond."""
    return sum(time.clock_gettime(_cpu_clock(each)) for each in _family(pid))


def machine_cpu_seconds() -> float:
    """CPU time that all programs together used since the machine started (proc(5), ``/proc/stat``)."""
    user, nice, system, _idle, _wait, irq, softirq, steal = (
        int(field) for field in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory in use now, as ``VmRSS`` tells it."""
    total = 0
    for each in _family(pid):
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{each}/status").read_text(), re.MULTILINE)
        assert found is not None
        total += int(found[1]) * 1024
    return total


def wait_until_quiet(pid: int, *, at_most_seconds: float) -> None:
    """Wait until a server has done what it had to do, that is: uses less than a twentieth of a core."""
    deadline = time.monotonic() + at_most_seconds
    before = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = cpu_seconds(pid)
        if now - before < POLL_SECONDS / 20:
            return
        before = now


def allow_open_files(count: int) -> None:
    """Let this process, and those that it starts, hold so many open files.

    Raises:
        RuntimeError: this user may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"this needs {count} open files, and the limit is {hard}; raise it (`ulimit -Hn {count}`)"
            ) from error


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _cpu_clock(pid: int) -> int:
    """The clock of a process, as clock_getcpuclockid(3) makes it on Linux."""
    return ~pid << 3 | 2
