"""The MQTT 5 properties that a publish to a topic, or a request, asks for, in its query and its headers.

What is found does not depend on the connection to the broker; ``Asked`` has the refusal for one that carries
no properties.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

from app.api.input.cloud_event import read_event_headers
from app.api.input.headers import (
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    RequestHeaders,
    read_mqtt_headers,
)
from app.api.input.query import RetainedQuery
from app.api.input.request_options import RequestQuery
from app.api.output.refusals import without_properties
from app.problems import ProblemError, ProblemType
from app.publishing.cloud_events import STRUCTURED
from tidegate.message import NO_PROPERTIES, Properties

Value = TypeVar("Value")


class Asked(NamedTuple):
    """What was asked for.

    Attributes:
        properties: without a content type.
        refusal: what to answer where the connection speaks MQTT 3.1.1; None where that can do it.
    """

    properties: Properties
    refusal: ProblemError | None


def asked_properties(
    headers: RequestHeaders, query: RetainedQuery | RequestQuery, *, is_event: bool
) -> Asked | None:
    """The properties that headers and query ask for, but for the content type; None where they ask for none.

    Args:
        headers: the request's.
        query: the request's.
        is_event: the body is a CloudEvent in structured mode, beside which ``ce-…`` headers say nothing new.

    Raises:
        ProblemError: INVALID_HEADER, INVALID_CLOUDEVENT, or INVALID_PARAMETER where header and query differ.
    """
    found = read_mqtt_headers(headers.mqtt or ())
    attributes: tuple[tuple[str, str], ...] = ()
    if headers.event is not None and not is_event:
        attributes = read_event_headers(headers.event)
    properties = replace(
        found,
        message_expiry=_one_of(query.expiry, "expiry", found.message_expiry, MESSAGE_EXPIRY),
        response_topic=_one_of(query.response_topic, "response_topic", found.response_topic, RESPONSE_TOPIC),
        payload_format=_one_of(query.payload_format, "payload_format", found.payload_format, PAYLOAD_FORMAT),
        user_properties=attributes + found.user_properties,
    )
    if properties == NO_PROPERTIES:
        return None
    return Asked(properties, _refusal(headers, query, attributes))


def _refusal(
    headers: RequestHeaders, query: RetainedQuery | RequestQuery, attributes: tuple[tuple[str, str], ...]
) -> ProblemError | None:
    """The refusal that names the first of them; where a request's reply comes need not be carried."""
    is_request = isinstance(query, RequestQuery)
    for name in ("expiry", "response_topic", "payload_format"):
        if getattr(query, name) is not None and not (is_request and name == "response_topic"):
            return without_properties(name)
    for raw_name, _ in headers.mqtt or ():
        name = raw_name.decode("latin-1").title()
        if not (is_request and name == RESPONSE_TOPIC):
            return without_properties(name)
    if not attributes:
        return None
    return without_properties(
        f"ce-{attributes[0][0]}", hint=f"send the event in structured mode, as Content-Type: {STRUCTURED}"
    )


def _one_of(asked: Value | None, parameter: str, header: Value | None, name: str) -> Value | None:
    """What the query or a header says; where both do, they have to agree."""
    if asked is None:
        return header
    if header is not None and header != asked:
        raise ProblemError(
            ProblemType.INVALID_HEADER,
            f"{name} says {header!r}, and the query parameter {parameter!r} says {asked!r}",
            field=name,
            hint="leave one of them out",
        )
    return asked
