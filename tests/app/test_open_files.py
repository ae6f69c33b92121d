"""How many files the process may have open: as many as it can have, and told where that is too few."""

from __future__ import annotations

import resource
from typing import Final

import pytest

from app.connections.http import SPARE_CONNECTIONS
from app.connections.open_files import OTHER_FILES
from tests.support.command import Command
from tests.support.mosquitto import Mosquitto

SOFT: Final = 256
HARD: Final = 1024
ENOUGH: Final = HARD - SPARE_CONNECTIONS - OTHER_FILES
CODE: Final = (
    "import resource, runpy; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({SOFT}, {HARD})); "
    "runpy.run_module('app', run_name='__main__')"
)


@pytest.mark.parametrize("max_connections", [ENOUGH, ENOUGH + 1])
def test_the_soft_limit_is_raised_to_the_hard_one(mosquitto: Mosquitto, max_connections: int) -> None:
    """A warning says what to do where the hard one is too low for the connections that are allowed."""
    arguments = ("serve", "--port", "0", "--broker-url", mosquitto.url)
    settings = {"TIDEGATE_MAX_CONNECTIONS": str(max_connections), "TIDEGATE_LOG_FORMAT": "console"}
    with Command(*arguments, settings=settings, program=("-c", CODE)) as bridge:
        bridge.wait_for("serving at")
        assert (HARD, HARD) == resource.prlimit(bridge.pid, resource.RLIMIT_NOFILE)
        warnings = [line for line in bridge.output.splitlines() if "files open" in line]
        assert (max_connections > ENOUGH) == (len(warnings) == 1)
        assert all(f"or set TIDEGATE_MAX_CONNECTIONS to {ENOUGH}" in line for line in warnings)
