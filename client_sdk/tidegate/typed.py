"""Reading a payload, or a level of a topic, into the type that a handler's parameter is annotated with.

Payloads are validated for annotations that say a shape: pydantic models, dataclasses and TypedDicts, by
themselves or within another type (``list[Reading]``, ``Reading | None``). Other annotations are the word of
whoever wrote them, and the payload comes as the formatter reads it.

pydantic validates whatever has a part of pydantic's, msgspec the rest; each is loaded with the first
annotation that needs it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from tidegate.formatters import Formatter, JSONFormatter
from tidegate.message import Message

Read = Callable[[Message], Any]


class UnfitError(ValueError):
    """A message that is not what a handler asks for; the text says where it is not."""


def payload_reader(annotation: Any, formatter: Formatter) -> Read:
    """What reads a payload for a parameter with this annotation; it raises UnfitError."""
    parts = list(_parts(annotation))
    if any(_is_pydantic(each) for each in parts):
        return _pydantic_reader(annotation, formatter)
    if any(dataclasses.is_dataclass(each) or typing.is_typeddict(each) for each in parts):
        return _msgspec_reader(annotation, formatter)
    return lambda message: formatter.parse(message.payload)


def level_reader(annotation: Any) -> Callable[[str], Any]:
    """What reads a level of a topic for a parameter with this annotation; it raises UnfitError."""
    if annotation in (str, Any):
        return str

    import msgspec  # noqa: PLC0415 - loaded with the first annotation that needs it

    def read(level: str) -> Any:
        try:
            return msgspec.convert(level, annotation, strict=False, dec_hook=_construct)
        except msgspec.ValidationError as error:
            raise UnfitError(str(error)) from None

    return read


def _parts(annotation: Any) -> typing.Iterator[Any]:
    """The annotation and the types within it."""
    yield annotation
    for each in typing.get_args(annotation):
        yield from _parts(each)


def _is_pydantic(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__pydantic_core_schema__")


def _pydantic_reader(annotation: Any, formatter: Formatter) -> Read:
    import pydantic  # noqa: PLC0415 - there, since the annotation is made of it

    adapter = pydantic.TypeAdapter(annotation)
    is_json = type(formatter) is JSONFormatter

    def read(message: Message) -> Any:
        try:
            if is_json:  # which a strict model reads differently from Python values
                return adapter.validate_json(message.payload)
            return adapter.validate_python(formatter.parse(message.payload))
        except pydantic.ValidationError as error:
            raise UnfitError(_in_one_line(error.errors(include_url=False, include_input=False))) from None

    return read


def _in_one_line(errors: list[Any]) -> str:
    return "; ".join(f"{each['msg']} - at `{'.'.join(['$', *map(str, each['loc'])])}`" for each in errors)


def _msgspec_reader(annotation: Any, formatter: Formatter) -> Read:
    import msgspec  # noqa: PLC0415 - loaded with the first annotation that needs it

    def read(message: Message) -> Any:
        try:
            return msgspec.convert(formatter.parse(message.payload), annotation, dec_hook=_construct)
        except msgspec.ValidationError as error:
            raise UnfitError(str(error)) from None

    return read


def _construct(kind: Any, value: Any) -> Any:
    """Make what msgspec has no rule for: a pydantic model within a dataclass, or a class of the user's."""
    if _is_pydantic(kind):
        import pydantic  # noqa: PLC0415 - there, since the annotation is made of it

        try:
            return pydantic.TypeAdapter(kind).validate_python(value)
        except pydantic.ValidationError as error:
            raise ValueError(_in_one_line(error.errors(include_url=False, include_input=False))) from None
    return kind(value)
