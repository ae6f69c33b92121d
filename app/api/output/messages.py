"""Answers that are messages from the broker: one as it is, or a list of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.types import Send

from app.api.input.cloud_event import event_headers
from app.api.input.headers import FAULT, message_headers
from app.api.input.percent import percent_encode
from app.api.output.answer import NO_STORE, answer
from app.api.stream.cloud_event_forms import event_text
from app.hub.event import Event, envelope
from app.publishing.cloud_events import BATCH, STRUCTURED
from app.publishing.trace_context import trace_of

NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"
LIST_FORMS: Final = (JSON, NDJSON, BATCH)
"""The forms of a list, the default first."""

_SANDBOX: Final = [
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    NO_STORE,
]
"""A payload is somebody else's input: a browser must not run it as a page of the bridge."""
_ATTACHMENT: Final = (b"content-disposition", b"attachment")
_is_page: Final = re.compile(r"html|xml|xsl|svg", re.IGNORECASE).search
"""Content types that a browser may show as a page; not even without scripts should it."""


async def answer_message(send: Send, event: Event) -> None:
    """The payload as the body, and what belongs to it as headers."""
    message = event.message
    headers = message_headers(message) + event_headers(message) + _SANDBOX
    headers += [(name.encode("ascii"), value.encode("ascii")) for name, value in trace_of(message.properties)]
    if _is_page(message.properties.content_type or ""):
        headers.append(_ATTACHMENT)
    if event.fault is not None:
        fault = percent_encode(f"{event.fault.pointer}: {event.fault.reason}")
        headers.append((FAULT.lower().encode("ascii"), fault))
    await answer(send, 200, headers, message.payload)


async def answer_cloud_event(send: Send, event: Event, source: str) -> None:
    """The message as a CloudEvent in structured mode."""
    headers = [(b"content-type", STRUCTURED.encode("ascii")), *_SANDBOX]
    await answer(send, 200, headers, event_text(event, event.message.qos, source))


async def answer_list(
    send: Send,
    events: Sequence[Event],
    form: str,
    source: str,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Several messages.

    Args:
        send: the answer's channel (ASGI).
        events: the messages.
        form: one of ``LIST_FORMS``.
        source: the source of CloudEvents that are made here.
        headers: further headers.
    """
    if form == BATCH:
        texts = [event_text(each, each.message.qos, source) for each in events]
    else:
        texts = [envelope(each.message, fault=each.fault) for each in events]
    body = b"".join(text + b"\n" for text in texts) if form == NDJSON else b"[" + b",".join(texts) + b"]"
    await answer(send, 200, [(b"content-type", form.encode("ascii")), NO_STORE, *headers], body)
