"""What a contract promises its users, in lines, and what of it another one breaks.

A promise is a line that has to stay: an operation, a parameter, an answer, a member, a name. A demand is a
line that must not come anew where there was a call before: a parameter or a member that has to be given,
another type of a member that is told. Compared are names, types, the values that a caller may choose from,
and what has to be given; not patterns, bounds and words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

Schema = dict[str, Any]

MAX_DEPTH: Final = 12
_VARIANTS: Final = ("anyOf", "oneOf", "allOf")


@dataclass
class Contract:
    """What was found.

    Attributes:
        promises: lines that have to stay.
        demands: lines that must not come anew, each with the promise without which it breaks nothing.
    """

    promises: set[str] = field(default_factory=set)
    demands: dict[str, str] = field(default_factory=dict)

    def broken_by(self, other: Contract) -> list[str]:
        """What breaks for a user of this contract who gets the other."""
        gone = [f"gone: {each}" for each in self.promises - other.promises]
        new = other.demands.keys() - self.demands.keys()
        return sorted(gone) + sorted(f"new: {each}" for each in new if other.demands[each] in self.promises)


def contract(openapi: Schema, asyncapi: Schema, names: Schema) -> Contract:
    """What the documents and the names of one version promise."""
    found = Contract()
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            _operation(found, f"{method.upper()} {path}", operation, openapi)
    _streams(found, asyncapi)
    found.promises |= {f"setting {each}" for each in names["settings"]}
    found.promises |= {f"problem {each}" for each in names["problems"]}
    for metric, labels in names["metrics"].items():
        found.promises |= {f"metric {metric}", *(f"metric {metric} has {each}" for each in labels)}
    return found


def _operation(found: Contract, call: str, operation: Schema, document: Schema) -> None:
    found.promises |= {call, f"{call} is {operation['operationId']}"}
    for parameter in operation.get("parameters", ()):
        place = f"{call} takes {parameter['in']} {parameter['name']}"
        found.promises.add(place)
        if parameter.get("required"):
            found.demands[f"{call} needs {parameter['in']} {parameter['name']}"] = call
        _taken(found, place, parameter["schema"], document)
    body = operation.get("requestBody", {})
    if body.get("required"):
        found.demands[f"{call} needs a body"] = call
    for media, content in body.get("content", {}).items():
        found.promises.add(f"{call} takes {media}")
        _taken(found, f"{call} takes {media}", content["schema"], document)
    for status, answer in operation["responses"].items():
        place = f"{call} answers {status}"
        found.promises |= {place, *(f"{place} with {each}" for each in answer.get("headers", ()))}
        for media, content in answer.get("content", {}).items():
            found.promises.add(f"{place} in {media}")
            _told(found, f"{place} in {media}", content["schema"], document)


def _streams(found: Contract, document: Schema) -> None:
    for name, channel in document["channels"].items():
        place = f"channel {name}"
        found.promises |= {f"{place} at {channel['address']}"}
        found.promises |= {f"{place} ends with {code}" for code in channel.get("x-close-codes", ())}
    for name, operation in document["operations"].items():
        found.promises.add(f"operation {name}")
        for asked, is_taken in (
            (operation, operation["action"] == "receive"),
            (operation.get("reply"), False),
        ):
            for reference in () if asked is None else asked["messages"]:
                channel, message = reference["$ref"].split("/")[2::2]
                described = document["components"]["messages"][f"{channel}.{message}"]
                place = f"{channel} {'takes' if is_taken else 'tells'} {message}"
                found.promises.add(place)
                (_taken if is_taken else _told)(found, place, described["payload"], document)
                if "headers" in described:
                    _told(found, f"{place} with", described["headers"], document)


def _taken(found: Contract, place: str, schema: Schema, document: Schema) -> None:
    """What a caller may give: types and values must stay, and nothing more may be needed."""
    for where, each, needed in _walk(place, schema, document):
        found.promises |= {where, *(f"{where} as {kind}" for kind in _types(each))}
        found.promises |= {f"{where} may be {value!r}" for value in _values(each)}
        for name in needed:
            found.demands[f"{where} needs /{name}"] = where


def _told(found: Contract, place: str, schema: Schema, document: Schema) -> None:
    """What a caller is told: members must stay, those that are always there too, and have no more types."""
    for where, each, needed in _walk(place, schema, document):
        found.promises |= {where, *(f"{where} always has /{name}" for name in needed)}
        found.promises |= {f"{where} is {each['const']!r}" for _ in each.keys() & {"const"}}
        for kind in _types(each):
            found.demands[f"{where} as {kind}"] = where


def _walk(
    place: str, schema: Schema, document: Schema, depth: int = 0
) -> Iterator[tuple[str, Schema, list[str]]]:
    """A schema and those of its members: where, what, and which members have to be there."""
    schema = _resolved(schema, document)
    yield place, schema, schema.get("required", [])
    if depth == MAX_DEPTH:
        return
    for name, member in schema.get("properties", {}).items():
        yield from _walk(f"{place}/{name}", member, document, depth + 1)
    if isinstance(schema.get("items"), dict):
        yield from _walk(f"{place}/*", schema["items"], document, depth + 1)
    for word in _VARIANTS:
        for variant in schema.get(word, ()):
            yield from _walk(place, variant, document, depth + 1)


def _resolved(schema: Schema, document: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _types(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    if not kinds and not schema.keys() & {"const", "enum", *_VARIANTS}:
        return ["anything"]
    return [kinds] if isinstance(kinds, str) else kinds


def _values(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else schema.get("enum", [])
