"""``tidegate doctor``: the way to a broker or a bridge, checked step by step.

Rules:

1. A step either went well or failed; after one that failed, the steps behind it are not tried.
2. A failure says what was seen, and what to do about it.
3. No step takes longer than ``STEP_SECONDS``.
"""

from __future__ import annotations

import asyncio
import http.client
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from app.doctor_advice import StepError, explain_connect, explain_tcp
from app.doctor_tls import shake_hands
from tidegate.connection import BrokerLimits, Carry, Connection, ConnectOptions, Subscription
from tidegate.connections import aiomqtt_connection
from tidegate.errors import ConfigurationError, MQTTConnectionError, MQTTError, TLSError
from tidegate.message import Message
from tidegate.reason_codes import describe, is_refusal
from tidegate.tls import TLS, make_context
from tidegate.url import parse_url

STEP_SECONDS: Final = 10.0
TOPIC_PREFIX: Final = "tidegate/doctor/"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was checked.

    Attributes:
        name: what was checked.
        is_ok: whether it went well.
        milliseconds: how long it took.
        detail: what was seen.
        advice: what to do, where it failed or soon will.
    """

    name: str
    is_ok: bool
    milliseconds: float
    detail: str
    advice: str = ""


@dataclass(slots=True)
class Report:
    """The steps that were taken, in order.

    Attributes:
        tell: called with each step when it ends.
        steps: those that ended.
    """

    tell: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """Whether all went well."""
        return all(step.is_ok for step in self.steps)

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        return "All is well." if self.is_ok else f"Failed at: {self.steps[-1].name}."

    async def step(self, name: str, work: Callable[[], Awaitable[tuple[str, str] | str]]) -> bool:
        """Take a step; its work returns what was seen, with advice perhaps, or raises StepError."""
        began_at = time.perf_counter()
        advice = ""
        try:
            async with asyncio.timeout(STEP_SECONDS):
                seen = await work()
            is_ok = True
            detail, advice = seen if isinstance(seen, tuple) else (seen, "")
        except TimeoutError:
            is_ok, detail = False, f"no answer within {STEP_SECONDS:g} s"
            advice = (
                "Something on the way may drop packets: look at firewalls, and at whether the broker hangs."
            )
        except StepError as failure:
            is_ok, detail, advice = False, str(failure), failure.advice
        step = Step(name, is_ok, (time.perf_counter() - began_at) * 1000, detail, advice)
        self.steps.append(step)
        self.tell(step)
        return is_ok


def _ignore(_: Step) -> None:
    return None


async def examine_broker(
    options: ConnectOptions,
    *,
    schemas_file: Path | None = None,
    tell: Callable[[Step], None] = _ignore,
) -> Report:
    """Check the way to a broker: name, TCP, TLS, CONNECT, and a message there and back.

    Args:
        options: where and how to connect.
        schemas_file: the schemas of payloads, looked at first where there are some.
        tell: called with each step when it ends.
    """
    report = Report(tell)
    if schemas_file is not None and not await report.step("schemas", lambda: _read_schemas(schemas_file)):
        return report
    path = _Path(options)
    steps: list[tuple[str, Callable[[], Awaitable[tuple[str, str] | str]]]] = [
        ("URL", path.read),
        ("DNS", path.resolve),
        ("TCP", path.reach),
    ]
    if options.tls is not None:
        steps.append(("TLS", path.shake_hands))
    steps += [("CONNECT", path.connect), ("round trip", path.round_trip)]
    try:
        for name, work in steps:
            if not await report.step(name, work):
                break
    finally:
        await path.close()
    return report


async def _read_schemas(file: Path) -> str:
    from app.publishing.schema_file import load_schemas  # noqa: PLC0415 - the library is loaded where it is used

    try:
        schemas = load_schemas(file)
    except ConfigurationError as error:
        raise StepError(str(error), "docs/schemas.md shows what TIDEGATE_SCHEMAS_FILE may hold.") from error
    return f"{len(schemas)} in {file}"


async def examine_bridge(
    url: str, *, ca_file: Path | None = None, tell: Callable[[Step], None] = _ignore
) -> Report:
    """Check the way to a bridge: name, TCP, TLS, ``/livez`` and ``/readyz``.

    Args:
        url: the bridge's, ``http`` or ``https``.
        ca_file: authorities to trust, as PEM; the system's where it is left out.
        tell: called with each step when it ends.
    """
    report = Report(tell)
    options = ConnectOptions()

    async def read() -> str:
        nonlocal options
        try:
            parts = urlsplit(parse_url(url).bridge_url)
        except ConfigurationError as error:
            raise StepError(str(error), "Write it as http://127.0.0.1:8080.") from error
        try:
            trust: TLS = True if ca_file is None else {"ca_certs": ca_file}
            tls = make_context(trust) if parts.scheme == "https" else None
        except TLSError as error:
            raise StepError(str(error), "--ca-file takes the certificates of authorities.") from error
        port = parts.port or (443 if tls else 80)
        options = ConnectOptions(host=parts.hostname or "", port=port, tls=tls, path=parts.path)
        return f"a bridge, {options.host}, port {options.port}{', with TLS' if tls else ''}"

    if not await report.step("URL", read):
        return report
    path = _Path(options)
    for name, work in (("DNS", path.resolve), ("TCP", path.reach)):
        if not await report.step(name, work):
            return report
    if options.tls is not None and not await report.step("TLS", path.shake_hands):
        return report
    for name in ("livez", "readyz"):
        if not await report.step(f"/{name}", lambda name=name: _probe(options, name)):  # type: ignore[misc]
            break
    return report


class _Path:
    """The way to one host, and the steps on it; also the receiver of the connection's events."""

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._connection: Connection | None = None
        self._ended: asyncio.Queue[Message | int | MQTTError] = asyncio.Queue()

    async def read(self) -> str:
        options = self._options
        kind = "MQTT over WebSocket" if options.transport == "websockets" else "MQTT"
        user = f", as {options.username!r}" if options.username else ""
        return f"{kind}, {options.host}, port {options.port}{', with TLS' if options.tls else ''}{user}"

    async def resolve(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._options.host, self._options.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no host name"
            raise StepError(
                f"the name {self._options.host!r} has no address: {reason}",
                "Is it spelt right, and does this machine use the name server that knows it?",
            ) from error
        return ", ".join(dict.fromkeys(str(address[0]) for *_, address in found))

    async def reach(self) -> str:
        host, port = self._options.host, self._options.port
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            raise explain_tcp(error, host, port) from error
        peer = writer.get_extra_info("peername")
        writer.close()
        return f"{peer[0]}, port {peer[1]} answers"

    async def shake_hands(self) -> tuple[str, str]:
        return await asyncio.to_thread(shake_hands, self._options)

    async def connect(self) -> str:
        try:
            self._connection = await aiomqtt_connection.connect(self._options, self)
        except MQTTError as error:
            raise explain_connect(error, self._options) from error
        limits = self._connection.limits
        version = {5: "MQTT 5", 4: "MQTT 3.1.1"}[limits.protocol_version]
        return f"accepted, {version}, QoS up to {limits.maximum_qos}"

    async def round_trip(self) -> str:
        connection = self._connection
        assert connection is not None
        topic = TOPIC_PREFIX + secrets.token_hex(8)
        payload = secrets.token_bytes(16)
        rights = (
            f"Give this user the right to publish and subscribe to {TOPIC_PREFIX}#, or heed only what it may."
        )
        try:
            code = (await connection.subscribe([Subscription(topic, qos=1)]))[0]
            if is_refusal(code):
                raise StepError(
                    f"the subscription to {topic} was refused: {describe(code)} (0x{code:02X})", rights
                )
            connection.publish(Message(topic, payload, qos=1), token=topic)
            acknowledged = received = False
            while not (acknowledged and received):
                event = await self._next(acknowledged)
                if isinstance(event, MQTTError):
                    raise event
                if isinstance(event, Message):
                    received = received or event.payload == payload
                elif is_refusal(event):
                    raise StepError(
                        f"the publish to {topic} was refused: {describe(event)} (0x{event:02X})", rights
                    )
                else:
                    acknowledged = True
        except MQTTError as error:
            raise StepError(str(error), "The broker's log tells why it closed the connection.") from error
        return f"published to {topic} at QoS 1 and got it back"

    async def _next(self, acknowledged: bool) -> Message | int | MQTTError:
        try:
            async with asyncio.timeout(STEP_SECONDS / 2):
                return await self._ended.get()
        except TimeoutError:
            if not acknowledged:
                raise StepError("the broker acknowledges no publish", "Does the broker hang?") from None
            raise StepError(
                "the broker took subscription and publish, and delivered nothing",
                "Some brokers keep from readers what their rules forbid, without a word: look at who may "
                f"read {TOPIC_PREFIX}#.",
            ) from None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    # What the connection tells.

    def on_message(self, message: Message) -> None:
        self._ended.put_nowait(message)

    def on_published(self, token: Any, reason_code: int) -> None:
        self._ended.put_nowait(reason_code)

    def on_resumed(self, limits: BrokerLimits, tokens: Sequence[object]) -> Sequence[Carry]:
        """Nothing is kept."""
        return []

    def on_lost(self, error: MQTTConnectionError) -> None:
        self._ended.put_nowait(error)


async def _probe(options: ConnectOptions, name: str) -> str:
    try:
        status, body = await asyncio.to_thread(_get, options, f"{options.path}/{name}")
    except (OSError, http.client.HTTPException) as error:
        raise StepError(
            f"no answer that is HTTP: {str(error) or type(error).__name__}", "Is this port a bridge's?"
        ) from error
    if status == 200:
        return f"{status}"
    if name == "readyz" and status == 503:
        raise StepError(
            f"503: {body[:300]}", "The bridge runs and cannot use its broker; check that with its URL."
        )
    raise StepError(
        f"{status}: {body[:300]}", "Is this a bridge's URL? A proxy in between may answer instead."
    )


def _get(options: ConnectOptions, target: str) -> tuple[int, str]:
    connection: http.client.HTTPConnection
    if options.tls is None:
        connection = http.client.HTTPConnection(options.host, options.port, timeout=STEP_SECONDS)
    else:
        connection = http.client.HTTPSConnection(
            options.host, options.port, timeout=STEP_SECONDS, context=options.tls
        )
    try:
        connection.request("GET", target, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode("utf-8", "replace")
    finally:
        connection.close()
