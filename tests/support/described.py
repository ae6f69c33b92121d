"""The AsyncAPI document as a judge of what really came, more strictly than a client is to be.

A client passes over members that it does not know. Here each object has the members that its schema names,
and no others, so that none is told that is not described.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import jsonschema_rs

from app.api.stream.cloud_event_forms import CONTROL_TYPE
from app.hub.control import CONTROL_FACTS

CONTROLS: Final = frozenset(each.name for each in CONTROL_FACTS)


class Described:
    """Judges events and frames.

    Args:
        document: the document.

    Attributes:
        names: all messages, as ``channel.message``.
        seen: those of which one was judged.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.seen: set[str] = set()
        self.names = set(document["components"]["messages"])
        self._messages: dict[str, dict[str, Any]] = document["components"]["messages"]
        self._schemas = {name: _closed(schema) for name, schema in document["components"]["schemas"].items()}

    def require(self, message: str, payload: Any, headers: dict[str, str] | None = None) -> None:
        """Insist that a payload, and the fields around it, are those of a message.

        Args:
            message: its name, as ``channel.message``.
            payload: what came.
            headers: the fields of the event around it, where it has some.
        """
        described = self._messages[message]
        self._require(message, described["payload"], payload)
        if "headers" in described:
            self._require(message, _closed(described["headers"]), headers)
        assert ("headers" in described) is (headers is not None)
        self.seen.add(message)

    def _require(self, message: str, schema: dict[str, Any], value: Any) -> None:
        whole = {"allOf": [schema], "components": {"schemas": self._schemas}}
        errors = jsonschema_rs.Draft7Validator(whole).iter_errors(value)
        assert [] == [f"{message}: {each.message} at {each.instance_path}" for each in errors], value

    def require_events(self, text: str, form: str) -> None:
        """Judge a text of Server-Sent Events; ``form`` is ``message``, ``payload`` or ``cloudEvent``."""
        for block in text.split("\n\n"):
            pairs = [line.partition(":")[::2] for line in block.split("\n") if line[:1] not in ("", ":")]
            fields = {name: value.removeprefix(" ") for name, value in pairs if name != "data"}
            data = "\n".join(value.removeprefix(" ") for name, value in pairs if name == "data")
            if not any(name == "data" for name, _ in pairs):
                continue
            name = fields.get("event", form)
            self.require(f"eventStream.{name}", data if name == "payload" else json.loads(data), fields)

    def require_lines(self, lines: Iterable[Any], form: str) -> None:
        """Judge lines that were read as JSON; ``form`` as above."""
        for line in lines:
            name = form
            if form == "message" and "event" in line:
                name = line["event"]
            elif form == "cloudEvent" and line["type"].removeprefix(CONTROL_TYPE) in CONTROLS:
                name = f"{line['type'].removeprefix(CONTROL_TYPE)}CloudEvent"
            self.require(f"lines.{name}", line)

    def require_frames(self, frames: Iterable[dict[str, Any]], asked: Mapping[int | str, str]) -> None:
        """Judge the frames that a client of the WebSocket got.

        Args:
            frames: the frames.
            asked: the op that each id of the client's stands for.
        """
        for frame in frames:
            name = frame["op"]
            self.require(f"webSocket.{asked[frame['id']] + 'Ack' if name == 'ack' else name}", frame)


def _closed(schema: Any) -> Any:
    """A schema whose objects have no other members than those that it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items() if name not in ("examples", "default")}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
