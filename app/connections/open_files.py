"""How many files the process may have open, and with them connections (setrlimit(2), RLIMIT_NOFILE).

The soft limit is 1,024 in many a place, for programs that wait with select(2), which takes no more. The
bridge waits with epoll(7) or kqueue(2), so it may take all that the hard limit lets it have.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import Final

from app.connections.http import SPARE_CONNECTIONS

logger = logging.getLogger("tidegate")

OTHER_FILES: Final = 100
"""For the broker, Redis, files that are read, and the management port."""


def raise_file_limit(max_connections: int) -> None:
    """Raise the soft limit to the hard one, and warn where that is too low.

    Args:
        max_connections: so many connections are to be let in at once.
    """
    beside = SPARE_CONNECTIONS + OTHER_FILES
    needed = max_connections + beside
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, needed):  # a hard limit without an end is more than macOS gives
        if wanted > limit:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                limit = wanted
    if limit < needed:
        logger.warning(
            "the process may have %d files open, and TIDEGATE_MAX_CONNECTIONS=%d needs %d: connections "
            "beyond that are closed without an answer; raise the hard limit (LimitNOFILE in systemd, "
            "--ulimit nofile= of a container engine), or set TIDEGATE_MAX_CONNECTIONS to %d",
            limit,
            max_connections,
            needed,
            max(limit - beside, 1),
        )
