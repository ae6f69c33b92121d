"""One subscription of a WebSocket: writes what its listener has pending, a frame a message."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import orjson

from app.api.stream.frames import Id, event_frames
from app.api.stream.sending import Sending
from app.hub.event import ControlEvent
from app.hub.hub import Hub
from app.hub.listener import Listener

PIECE_BYTES: Final = 65_536

logger = logging.getLogger("tidegate.streams")


class SocketStream:
    """One subscription of a socket.

    Args:
        hub: the hub that the listener has joined, and leaves at the end.
        sending: the socket's.
        frame_id: the id of the frame that asked for it.
        listener: its listener.
        on_end: called with the id when the subscription ends by itself.
    """

    def __init__(
        self, hub: Hub, sending: Sending, frame_id: Id, listener: Listener, on_end: Callable[[Id], None]
    ) -> None:
        self.listener = listener
        self._hub = hub
        self._sending = sending
        self._on_end = on_end
        self._id = frame_id
        self._id_json = orjson.dumps(frame_id)
        self._frames: deque[str] = deque()
        self._has_ended = False

    def schedule(self) -> None:
        """Have the listener written in its turn."""
        self._hub.flusher.add(self)

    def write(self) -> None:
        """Write what is pending, as far as the connection takes it."""
        sending = self._sending
        listener = self.listener
        if self._has_ended:
            return
        while not sending.is_blocked:
            if not self._frames:
                if not listener.is_due:
                    break
                self._take()
            if self._frames:
                sending.send({"type": "websocket.send", "text": self._frames.popleft()})
        reason = listener.close_reason
        if reason is not None and not (listener.is_due or self._frames or sending.is_blocked):
            self.end()
            self._on_end(self._id)
            farewell = reason.event()
            frames = event_frames(self._id_json, [farewell], 0, self._hub.epoch, marked=False)
            sending.send({"type": "websocket.send", "text": frames[0]})

    def end(self) -> None:
        """Leave the hub."""
        self._has_ended = True
        self._hub.leave(self.listener)
        reason = self.listener.close_reason
        assert reason is not None  # whoever leaves is closed
        logger.info(
            "a subscription of %d filters on a WebSocket ended: %s", len(self.listener.filters), reason.reason
        )

    def _take(self) -> None:
        listener = self.listener
        # the socket tells of the broker, once for all its subscriptions
        events = [
            event
            for event in listener.take(PIECE_BYTES)
            if not (isinstance(event, ControlEvent) and event.name == "broker")
        ]
        self._hub.counts.deliveries += len(events)
        marked, filters = listener.lacks_retained, listener.digest
        self._frames.extend(
            event_frames(self._id_json, events, listener.qos, self._hub.epoch, marked=marked, filters=filters)
        )
