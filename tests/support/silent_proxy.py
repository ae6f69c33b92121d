"""A proxy in front of a bridge that keeps its answers from the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.fault_proxy import FaultProxy


class SilentProxy(FaultProxy):
    """A ``FaultProxy`` that can pass requests on and keep answers back, on all its connections."""

    is_silent = False

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.withheld = asyncio.Event()
        """Set once an answer was kept back."""

    @property
    def url(self) -> str:
        """The bridge, as it is seen through this."""
        return f"http://{self.host}:{self.port}"

    def _make_answer_filter(self) -> Callable[[bytes], bytes]:
        def let_through(data: bytes) -> bytes:
            if not self.is_silent:
                return data
            self.withheld.set()
            return b""

        return let_through
