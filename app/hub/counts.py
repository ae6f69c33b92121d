"""What the hub counts of its own work: plain whole numbers, added to where the work is done.

Rules:

1. Nobody here reads them; whoever shows them does so in its own time.
2. On the way of a delivery there is one addition a message, and one a write; none a listener.
3. What is counted only rises, but for ``open``.
"""

from __future__ import annotations

from collections import Counter


class HubCounts:
    """Counted since the start.

    Attributes:
        messages: messages from the broker that were handed to listeners; one of each copy that it sent.
        deliveries: events that streams took to write them, messages and the few control events between them.
        open: listeners of the moment, by their form; not those of the bridge itself.
        replays: clients that came back and were given what they missed.
        replayed: the messages that they were given.
        gaps: streams told that something may be missing, by the reason that they were given.
        lagged: times that a slow reader lost messages, and its stream was told or had ended.
        dropped: messages that it lost, because older ones had to go.
        conflated: messages that it lost, because a newer one of the topic had come.
        thinned: messages left out because their stream asked for the newest in each interval.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.deliveries = 0
        self.open: Counter[str] = Counter()
        self.replays = 0
        self.replayed = 0
        self.gaps: Counter[str] = Counter()
        self.lagged = 0
        self.dropped = 0
        self.conflated = 0
        self.thinned = 0
