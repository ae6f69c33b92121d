"""The MQTT half of a pair, and the publisher: MQTT 5 clients without a thread, straight to the broker.

Like a stream they are read in the turn of whoever waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.ports import LOOPBACK
from tests.support.twin_stream import MARKERS, Seen

KEEPALIVE_SECONDS: Final = 3600
_make_properties: Callable[[int], Any] = Properties


class MQTTClient:
    """A connection to the broker; made, it has sent CONNECT.

    Attributes:
        is_connected: whether CONNACK has come.
        seen: the copies that came since ``take``.
        marker: the last marker that came.
    """

    def __init__(self, port: int) -> None:
        self.is_connected = False
        self.seen: list[Seen] = []
        self.marker = ""
        self._unanswered: set[int] = set()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.connect(LOOPBACK, port, keepalive=KEEPALIVE_SECONDS)

    @property
    def is_answered(self) -> bool:
        """Whether the broker has answered every SUBSCRIBE and every PUBLISH at QoS 1 and 2."""
        return not self._unanswered

    def subscribe(self, filters: Sequence[str], *, qos: int, retained: bool) -> None:
        """SUBSCRIBE to each filter with an identifier of its own, and to markers; see ``is_answered``."""
        for identifier, topic_filter in enumerate([MARKERS + "#", *filters], start=1):
            options = SubscribeOptions(
                qos=2 if identifier == 1 else qos,
                retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
                if retained
                else SubscribeOptions.RETAIN_DO_NOT_SEND,
            )
            carried = _make_properties(PacketTypes.SUBSCRIBE)
            carried.SubscriptionIdentifier = identifier
            _, mid = self._client.subscribe(topic_filter, options=options, properties=carried)
            assert mid is not None
            self._unanswered.add(mid)

    def publish(self, topic: str, payload: str, *, qos: int, retain: bool = False) -> None:
        """PUBLISH; see ``is_answered``."""
        told = self._client.publish(topic, payload.encode(), qos, retain)
        if qos > 0:
            self._unanswered.add(told.mid)

    def fileno(self) -> int:
        """The socket, to wait on."""
        found = self._client.socket()
        assert found is not None, "the broker closed a client's connection"
        return found.fileno()

    def read(self) -> None:
        """Take in what the socket has, and answer."""
        assert self._client.loop_read() == paho.MQTT_ERR_SUCCESS, "the broker closed a client's connection"

    def take(self) -> list[Seen]:
        """What came since the last call: of the copies of one message, one for each filter, the first."""
        seen, self.seen = self.seen, []
        return list(dict.fromkeys(seen))

    def close(self) -> None:
        """Say DISCONNECT and close."""
        self._client.disconnect()

    def _on_connect(
        self, client: paho.Client, userdata: Any, flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        assert not code.is_failure, code
        self.is_connected = True

    def _on_subscribe(
        self, client: paho.Client, userdata: Any, mid: int, codes: list[ReasonCode], properties: Any
    ) -> None:
        assert not any(code.is_failure for code in codes), codes
        self._unanswered.discard(mid)

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, code: ReasonCode, properties: Any
    ) -> None:
        assert not code.is_failure, code
        self._unanswered.discard(mid)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        text = bytes(message.payload).decode()
        if message.topic.startswith(MARKERS):
            self.marker = text
        else:
            self.seen.append(Seen(message.topic, text, message.qos, bool(message.retain)))


def _send_at_once(client: paho.Client, userdata: Any, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
