"""Made-up requests to every operation of the document: no 5xx, and no answer that the document does not have.

schemathesis makes the requests from the document, those that it allows and those that it does not. A device
answers whatever asks for a reply, and streams end when nothing comes, so that each request has an end.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case, SerializationContext
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.api.input.credential_body import FILES
from app.security.authentication import Authentication
from tests.support.bridge import Bridge, running_bridge
from tests.support.device import Device, echo
from tests.support.fixed_tokens import FixedTokens, bearer, principal
from tests.support.mosquitto import Mosquitto
from tidegate.message import Message

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = 20
REPLIES: Final = 4
SECONDS: Final = 20.0
SUBSCRIBE: Final = "/v1/subscribe"
LONGEST: Final = 3600
"""The longest idle time-out that the document allows, in seconds."""

CHECKS: Final = [
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]

TOKENS: Final = FixedTokens(
    everything=principal(
        "everything",
        publish=("#",),
        subscribe=("#", "$SYS/#"),
        scopes=("status:read", "metrics:read", "credentials:read", "credentials:write"),
    )
)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    """A bridge and a broker of its own: any topic may come, and be kept."""
    with (
        Mosquitto() as broker,
        answering(broker.port),
        running_bridge(
            broker.url,
            authentication=Authentication([TOKENS]),
            max_replies=REPLIES,
            reply_topic_settle_seconds=0.01,
            # made-up requests come faster than anybody types
            audit_max_refusals_per_second=10_000,
        ) as running,
    ):
        yield running


@contextmanager
def answering(port: int) -> Iterator[None]:
    """A device that answers every request, in a thread."""
    ready, over = threading.Event(), threading.Event()

    async def live() -> None:
        async with Device(port, "#", answer):
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="device")
    thread.start()
    assert ready.wait(SECONDS)
    try:
        yield
    finally:
        over.set()
        thread.join(SECONDS)


def answer(request: Message) -> Iterable[Message]:
    """Answer what asks for a reply as often as anybody may ask for."""
    if request.properties.response_topic is not None:
        for _ in range(REPLIES):
            yield from echo(request)


def soon(seconds: Any, kinds: tuple[type, ...] = (int, float)) -> Any:
    """An idle time-out that a test can wait for, in place of one that the document allows."""
    if seconds is None:
        return 0.1
    try:
        return 0.1 if isinstance(seconds, kinds) and 0 < float(str(seconds)) <= LONGEST else seconds
    except ValueError:
        return seconds


schemathesis.serializer.alias(
    [each for each in FILES if each != "application/octet-stream"], "application/octet-stream"
)


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: SerializationContext, value: object) -> bytes:
    """A body of lines: a list is a line each, a text stands as it is."""
    if isinstance(value, list):
        return b"".join(json.dumps(each).encode() + b"\n" for each in value)
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


schema: Final = schemathesis.openapi.from_path(ROOT / "openapi" / "openapi.yaml")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_has(bridge: Bridge, case: Case[Any]) -> None:
    """Whatever is asked, in the document's terms and against them."""
    streams = case.path == SUBSCRIBE
    if streams and case.method == "GET":
        case.query = {
            **(case.query or {}),
            "idle_timeout": soon((case.query or {}).get("idle_timeout"), (str, int, float)),
        }
    elif streams and isinstance(case.body, dict):
        case.body["idle_timeout"] = soon(case.body.get("idle_timeout"))
    response = case.call(base_url=bridge.url, headers=bearer("everything"), timeout=SECONDS)
    # An event is no string, which is all that OpenAPI 3.1 can say of a stream; other tests read events.
    checks = [each for each in CHECKS if not (streams and each is response_schema_conformance)]
    case.validate_response(response, checks=checks)
