"""The topic filters that a session holds at the broker, over all its connections.

Rules:

1. What the broker granted is subscribed to again on each connection whose session the broker did not keep.
2. A filter that was left while there was no connection is left at the broker as soon as there is one.
3. Packets carry as many filters as identifiers and the broker's limits allow; a filter beyond a limit of the
   broker's is never sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from tidegate.connection import BrokerLimits, Connection, Subscription
from tidegate.errors import UnsupportedError
from tidegate.limits import check_filter
from tidegate.reason_codes import UNSPECIFIED_ERROR


class HeldFilters:
    """The filters of one session."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._left_behind: set[str] = set()

    @property
    def subscriptions(self) -> list[Subscription]:
        """What is held, as it is made again."""
        return list(self._subscriptions.values())

    def granted(self, subscription: Subscription) -> None:
        """The broker granted a subscription: hold it."""
        self._subscriptions[subscription.filter] = _again(subscription)

    def drop(self, topic_filter: str) -> None:
        """Hold a filter no longer."""
        self._subscriptions.pop(topic_filter, None)

    def leave_behind(self, filters: Sequence[str]) -> None:
        """The broker could not be told that these are left."""
        self._left_behind.update(filters)

    async def restore(
        self, connection: Connection, limits: BrokerLimits, *, is_kept: bool, timeout_seconds: float
    ) -> list[tuple[str, int]]:
        """Bring a new connection to where the session stands.

        Args:
            connection: the connection.
            limits: what it may be asked for.
            is_kept: whether the broker kept the session, and with it the subscriptions.
            timeout_seconds: how long the broker may take to answer SUBSCRIBE.

        Returns:
            The filters that are not granted any more, with the reason code; they are no longer held.

        Raises:
            TimeoutError: the broker did not answer.
            MQTTConnectionError: the connection ended.
        """
        held = [] if is_kept else list(self._subscriptions.values())
        refused: list[tuple[str, int]] = []
        wanted: list[Subscription] = []
        for each in held:
            try:
                check_filter(each.filter, limits)
            except UnsupportedError as error:
                refused.append((each.filter, error.reason_code or UNSPECIFIED_ERROR))
            else:
                wanted.append(each)
        if wanted:
            async with asyncio.timeout(timeout_seconds):
                codes = await subscribe(connection, limits, wanted)
            refused += [(each.filter, code) for each, code in zip(wanted, codes, strict=True) if code >= 0x80]
        for topic_filter, _ in refused:
            self.drop(topic_filter)
        left = {each.filter for each in held} - {topic_filter for topic_filter, _ in refused}
        if limits.session_present:
            left |= self._left_behind
        left -= self._subscriptions.keys()
        if left:  # unsubscribed meanwhile
            await unsubscribe(connection, limits, sorted(left))
        self._left_behind.clear()
        return refused


async def subscribe(
    connection: Connection, limits: BrokerLimits, subscriptions: Sequence[Subscription]
) -> list[int]:
    """SUBSCRIBE in as few packets as identifiers and the broker allow (§3.8.2.1.2); gives reason codes."""
    packets: list[list[Subscription]] = []
    for each in (_within(subscription, limits) for subscription in subscriptions):
        packet = packets[-1] if packets else None
        if packet and packet[0].identifier == each.identifier and len(packet) < limits.maximum_filters:
            packet.append(each)
        else:
            packets.append([each])
    if len(packets) == 1:  # sent before whatever is published after this call, as no task is made
        return await connection.subscribe(packets[0])
    answers = await asyncio.gather(*(connection.subscribe(packet) for packet in packets))
    return list(chain.from_iterable(answers))


async def unsubscribe(connection: Connection, limits: BrokerLimits, filters: Sequence[str]) -> list[int]:
    """UNSUBSCRIBE in as few packets as the broker allows; gives reason codes."""
    size = limits.maximum_filters
    packets = [filters[start : start + size] for start in range(0, len(filters), size)]
    answers = await asyncio.gather(*(connection.unsubscribe(packet) for packet in packets))
    return list(chain.from_iterable(answers))


def _within(subscription: Subscription, limits: BrokerLimits) -> Subscription:
    """What a broker would make of a subscription, where it does not answer one beyond its limits."""
    if subscription.qos > limits.maximum_qos:
        subscription = replace(subscription, qos=limits.maximum_qos)
    if subscription.identifier is not None and not limits.subscription_identifiers_available:
        subscription = replace(subscription, identifier=None)
    return subscription


def _again(subscription: Subscription) -> Subscription:
    """The subscription as it is made when the broker has forgotten it."""
    handling = subscription.retain_handling_again
    return subscription if handling is None else replace(subscription, retain_handling=handling)
