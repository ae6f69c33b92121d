"""The sessions of an in-memory broker: who gets a copy of a message, and what is retained (MQTT 5 §3.3.4)."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from tidegate.connection import ConnectOptions, ProtocolVersion, Subscription
from tidegate.memory_session import MemorySession, aged
from tidegate.message import Message
from tidegate.topics import FilterIndex, matches, split_share

NEVER_EXPIRES: Final = 0xFFFF_FFFF


class Routes:
    """All sessions with their subscriptions, and the retained messages.

    Attributes:
        sessions: by client identifier.
        retained: by topic.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, MemorySession] = {}
        self.retained: dict[str, Message] = {}
        self._index: FilterIndex[tuple[MemorySession, str]] = FilterIndex()
        self._turns: dict[str, int] = {}

    def subscribe(self, session: MemorySession, subscription: Subscription) -> None:
        """Make or replace a subscription, and send the retained messages that it asks for (§3.8.4)."""
        is_new = subscription.filter not in session.subscriptions
        session.subscriptions[subscription.filter] = subscription
        self._index.add(subscription.filter, (session, subscription.filter))
        is_shared = split_share(subscription.filter)[0] is not None
        handling = subscription.retain_handling
        if is_shared or handling == 2 or (handling == 1 and not is_new):
            return
        for message in tuple(self.retained.values()):
            if not matches(subscription.filter, message.topic):
                continue
            current = aged(message)
            if current is None:
                del self.retained[message.topic]
            else:
                session.deliver(_copy(current, subscription, retain=True))

    def unsubscribe(self, session: MemorySession, topic_filter: str) -> bool:
        """End a subscription; whether there was one."""
        self._index.discard(topic_filter, (session, topic_filter))
        return session.subscriptions.pop(topic_filter, None) is not None

    def begin(
        self, client_id: str, version: ProtocolVersion, options: ConnectOptions
    ) -> tuple[MemorySession, bool]:
        """The session to use for a CONNECT, and whether it was there before (§3.1.2.4, §3.1.2.11.2)."""
        session = self.sessions.get(client_id)
        if session is not None and options.clean_start:
            self.end(session)
            session = None
        is_present = session is not None
        expiry: int | None = options.session_expiry_seconds
        if version < 5:
            expiry = 0 if options.clean_start else None
        elif expiry == NEVER_EXPIRES:
            expiry = None
        if session is None:
            session = self.sessions[client_id] = MemorySession(client_id, version, expiry)
        session.protocol_version = version
        session.expiry_seconds = expiry
        return session, is_present

    def end(self, session: MemorySession) -> None:
        """Forget a session and its subscriptions."""
        for topic_filter in tuple(session.subscriptions):
            self.unsubscribe(session, topic_filter)
        self.sessions.pop(session.client_id, None)

    def end_expired(self) -> None:
        """Forget the sessions whose time is over."""
        now = time.monotonic()
        for session in tuple(self.sessions.values()):
            if session.expires_at is not None and session.expires_at <= now:
                self.end(session)

    def publish(self, message: Message, sender: MemorySession | None) -> bool:
        """Keep a message if it is to be retained, and send its copies; whether any subscription matched."""
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        self.end_expired()
        found: dict[MemorySession, list[Subscription]] = {}
        shared: dict[str, list[MemorySession]] = {}
        for session, topic_filter in self._index.match(message.topic):
            if split_share(topic_filter)[0] is None:
                found.setdefault(session, []).append(session.subscriptions[topic_filter])
            else:
                shared.setdefault(topic_filter, []).append(session)
        for topic_filter, members in shared.items():
            session = self._next_member(topic_filter, members)
            found.setdefault(session, []).append(session.subscriptions[topic_filter])
        for session, subscriptions in found.items():
            _send(session, subscriptions, message, sender)
        return bool(found)

    def _next_member(self, topic_filter: str, members: list[MemorySession]) -> MemorySession:
        ready = [member for member in members if member.connection is not None] or members
        turn = self._turns.get(topic_filter, 0)
        self._turns[topic_filter] = turn + 1
        return ready[turn % len(ready)]


def _send(
    session: MemorySession, subscriptions: list[Subscription], message: Message, sender: MemorySession | None
) -> None:
    if session.protocol_version < 5:
        widest = max(subscriptions, key=lambda subscription: subscription.qos)
        session.deliver(_copy(message, widest, retain=False))
        return
    for subscription in subscriptions:
        if not (subscription.no_local and session is sender):
            retain = message.retain and subscription.retain_as_published
            session.deliver(_copy(message, subscription, retain=retain))


def _copy(message: Message, subscription: Subscription, *, retain: bool) -> Message:
    return replace(
        message,
        qos=min(message.qos, subscription.qos),
        retain=retain,
        subscription_identifiers=() if subscription.identifier is None else (subscription.identifier,),
    )
