"""A proxy that keeps a broker's answers of one kind from the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.fault_proxy import FaultProxy
from tests.support.packets import PacketType, split_packet


class AnswerProxy(FaultProxy):
    """A ``FaultProxy`` that can go silent toward the client, from the first packet of one kind on."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._unwanted: PacketType | None = None
        self._withheld = asyncio.Event()

    def withhold(self, kind: PacketType | None) -> None:
        """Let no packet of this kind through, and nothing after it; None lets new connections be."""
        self._unwanted = kind
        self._withheld.clear()

    async def until_withheld(self) -> None:
        """Wait until the broker has sent such a packet."""
        async with asyncio.timeout(20):
            await self._withheld.wait()

    def _make_answer_filter(self) -> Callable[[bytes], bytes]:
        stream = b""
        is_silent = False

        def let_through(data: bytes) -> bytes:
            nonlocal stream, is_silent
            stream += data
            passed = b""
            while not is_silent and (found := split_packet(stream)) is not None:
                head, rest, stream = found
                if head[0] >> 4 == self._unwanted:
                    is_silent = True
                    self._withheld.set()
                else:
                    passed += head + rest
            return passed

        return let_through
