"""A message to publish, as JSON has it: in a body, in a line of one, or in a frame of a WebSocket.

Rules:

1. A JSON payload is passed on as it was written. Reading it into numbers and writing it again would change
   it: 1.10 becomes 1.1, a long number loses digits, a repeated name loses a value.
2. What is right is read by msgspec, which leaves a payload where it stands. What it refuses is read again by
   the pydantic model, which finds the words for what is wrong.
3. A name that is there twice is refused: readers differ on which of the two counts (RFC 8259 §4).
"""

from __future__ import annotations

import base64
import binascii
import operator
from typing import Final, Literal, NoReturn

import msgspec
from msgspec import UNSET, Raw, UnsetType
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.api.input.body import require_text
from app.api.input.topic_rules import require_topic
from app.api.models import MessageProperties, PublishRequest
from app.api.output.refusals import (
    MAX_DEPTH,
    empty_retained,
    invalid_body,
    malformed_body,
    without_properties,
)
from app.problems import ProblemError, ProblemType
from tidegate.connection import BrokerLimits
from tidegate.message import NO_PROPERTIES, Message, Properties

_properties: Final = TypeAdapter(MessageProperties | None)


class Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of ``PublishRequest``; what was left out is UNSET."""

    topic: str
    payload: Raw
    encoding: Literal["json", "text", "base64"] | UnsetType = UNSET
    qos: Literal[0, 1, 2] | UnsetType = UNSET
    retain: bool | UnsetType = UNSET
    properties: Raw | UnsetType = UNSET

    def count(self) -> int:
        """How many members are there."""
        return (
            2
            + (self.encoding is not UNSET)
            + (self.qos is not UNSET)
            + (self.retain is not UNSET)
            + (self.properties is not UNSET)
        )


class _Name(str):
    """A member's name; two are never equal, so that both stand in one mapping."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


_read_names: Final = msgspec.json.Decoder(dict[_Name, Raw], dec_hook=operator.call).decode


class RequestReader:
    """Reads JSON objects that ask to publish.

    Args:
        members: what an object has.
        model: the same as a model, for the words of a refusal.
    """

    def __init__(self, members: type[Request], model: type[BaseModel]) -> None:
        self._read = msgspec.json.Decoder(members).decode
        self._model = model
        self._adapter: TypeAdapter[BaseModel] = TypeAdapter(model)

    def read(self, text: bytes) -> Message:
        """The message that one JSON object asks to publish.

        Raises:
            ProblemError: it is not JSON, or something about it is not allowed.
        """
        try:
            text.decode()  # msgspec passes over a payload without a look at its UTF-8
            request = self._read(text)
            names = _read_names(text)
            if len(text) > 2 * MAX_DEPTH and text.count(b"[") + text.count(b"{") > MAX_DEPTH:
                self._adapter.validate_json(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValidationError):
            self._refuse(text)
        if len(names) != request.count():
            raise malformed_body(f"the name {_repeated(names)!r} is there twice")
        require_topic(request.topic, field="/topic")
        payload = bytes(request.payload) if request.encoding is UNSET else _payload(request)
        retain = request.retain is True
        if retain and not payload:
            raise empty_retained()
        properties = NO_PROPERTIES
        if request.properties is not UNSET:
            properties = self._carried(request.properties, text)
            if properties.payload_format:
                require_text(payload, "/properties/payload_format")
        return Message(request.topic, payload, 1 if request.qos is UNSET else request.qos, retain, properties)

    def _carried(self, properties: Raw, text: bytes) -> Properties:
        try:
            found = _properties.validate_json(bytes(properties))
        except ValidationError:
            self._refuse(text)
        return NO_PROPERTIES if found is None else found.carried()

    def _refuse(self, text: bytes) -> NoReturn:
        try:
            self._adapter.validate_json(text)
        except ValidationError as found:
            raise invalid_body(found, self._model) from None
        raise malformed_body("a number is a finite one; NaN and Infinity are none") from None


read_message: Final = RequestReader(Request, PublishRequest).read
"""The message that the JSON object of ``PublishRequest`` asks to publish."""


def require_carriable(message: Message, limits: BrokerLimits | None) -> None:
    """Refuse properties where the connection of the moment has none.

    Args:
        message: the message.
        limits: what the broker said, where there is a connection.

    Raises:
        ProblemError: UNSUPPORTED.
    """
    if message.properties is not NO_PROPERTIES and limits is not None and limits.protocol_version < 5:
        raise without_properties("/properties")


def _payload(request: Request) -> bytes:
    if request.encoding == "json":
        return bytes(request.payload)
    try:
        text = msgspec.json.decode(request.payload, type=str)
    except msgspec.ValidationError:
        raise ProblemError(
            ProblemType.INVALID_BODY,
            f"/payload: with the encoding {request.encoding!r} it is a string",
            field="/payload",
            hint="leave 'encoding' out to publish JSON",
        ) from None
    if request.encoding == "text":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError(
            ProblemType.INVALID_BODY, f"/payload: it is not base64: {error}", field="/payload"
        ) from None


def _repeated(names: dict[_Name, Raw]) -> str:
    seen: set[str] = set()
    for name in map(str.__str__, names):
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name is there twice")
