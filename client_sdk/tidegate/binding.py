"""What a handler's parameters get of a message.

Rules:

1. A parameter with the name of a level of the topic filter gets that level, read into its annotated type;
   ``**`` gets those that no parameter asks for, as text.
2. Of the others, the first gets the payload; with ``with_topic`` the first gets the topic and the second the
   payload. One annotated with ``Message`` gets the whole message in place of the payload, and needs no topic
   before it.
3. Parameters with a default may stay as they are; one without that nothing fills is an error at once.
4. What cannot be read as annotated is ``UnfitError``, and the handler is not called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tidegate.errors import ConfigurationError
from tidegate.formatters import Formatter
from tidegate.levels import NamedFilter
from tidegate.message import Message
from tidegate.typed import Read, UnfitError, level_reader, payload_reader

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Binding:
    """Makes the arguments for one handler.

    Args:
        handler: the handler, whose signature is read once.
        formatter: what reads payloads.
        filters: the topic filters, with their named levels.
        with_topic: the handler takes the topic before the payload.

    Raises:
        ConfigurationError: the handler has a parameter that nothing fills, or none for the message.
    """

    def __init__(
        self,
        handler: Callable[..., Any],
        formatter: Formatter,
        filters: Sequence[NamedFilter],
        *,
        with_topic: bool,
    ) -> None:
        self._name = getattr(handler, "__name__", type(handler).__name__)
        self._filters = filters
        self._levels: dict[str, Callable[[str], Any]] = {}
        self._positional: list[Read | str] = []
        self._keywords: dict[str, Read | str] = {}
        self._is_plain = True
        parameters = _parameters(handler)
        if parameters is None:
            self._positional = [_topic_of] if with_topic else []
            self._positional.append(payload_reader(Any, formatter))
            return
        named = frozenset().union(*(each.names for each in filters))
        others = [each for each in parameters if each.name not in named or each.kind in _VARIABLE]
        sources = self._sources(others, formatter, with_topic=with_topic)
        is_in_place = True
        for each in parameters:
            source: Read | str | None
            if each.name in named and each.kind not in _VARIABLE:
                source = each.name
                self._levels[each.name] = level_reader(_known(each.annotation))
                if not all(each.name in one.names for one in filters):
                    is_in_place = False
                    self._require_default(each)
            elif each.kind is inspect.Parameter.VAR_KEYWORD:
                rest = named - {one.name for one in parameters}
                self._levels |= dict.fromkeys(rest, str)
                self._keywords |= {name: name for name in rest}
                continue
            elif each.kind is inspect.Parameter.VAR_POSITIONAL:
                if is_in_place:
                    self._positional += sources.values()
                    sources.clear()
                continue
            else:
                source = sources.pop(each.name, None)
            if source is None:
                is_in_place = False
                self._require_default(each)
            elif is_in_place and each.kind in _POSITIONAL:
                self._positional.append(source)
            else:
                self._keywords[each.name] = source
        if sources and not self._levels:
            expected = "(topic, payload)" if with_topic else "(payload)"
            raise ConfigurationError(f"the handler {self._name} takes no {expected}")
        self._is_plain = not self._keywords and not self._levels

    def arguments(self, message: Message) -> tuple[list[Any], dict[str, Any]]:
        """The arguments for a message; raises UnfitError."""
        if self._is_plain:
            return [source(message) for source in self._positional if not isinstance(source, str)], {}
        levels = self._read_levels(message.topic)

        def value(source: Read | str) -> Any:
            return levels[source] if isinstance(source, str) else source(message)

        named = {
            name: value(source)
            for name, source in self._keywords.items()
            if not isinstance(source, str) or source in levels
        }
        return [value(source) for source in self._positional], named

    def _sources(
        self, others: Sequence[inspect.Parameter], formatter: Formatter, *, with_topic: bool
    ) -> dict[str, Read]:
        """What each parameter gets that no level fills; names that are no parameter's are for ``*args``."""
        takers = [each for each in others if each.kind in _POSITIONAL]
        if takers and _is_message(takers[0].annotation):
            return {takers[0].name: _whole}
        names = [*(each.name for each in takers), "*1", "*2"]
        index = 1 if with_topic else 0
        annotation = takers[index].annotation if len(takers) > index else inspect.Parameter.empty
        payload = {names[index]: _payload_source(annotation, formatter)}
        return {names[0]: _topic_of, **payload} if with_topic else payload

    def _read_levels(self, topic: str) -> dict[str, Any]:
        found: dict[str, str] = next(
            (levels for each in self._filters if (levels := each.read(topic)) is not None), {}
        )
        values: dict[str, Any] = {}
        for name, read in self._levels.items():
            if name in found:
                try:
                    values[name] = read(found[name])
                except UnfitError as error:
                    raise UnfitError(f"{name}={found[name]!r}: {error}") from None
        return values

    def _require_default(self, parameter: inspect.Parameter) -> None:
        if parameter.default is parameter.empty and parameter.kind not in _VARIABLE:
            raise ConfigurationError(
                f"the handler {self._name} has a parameter {parameter.name!r} that nothing fills: "
                "it is neither the message nor a named level of every topic filter"
            )


def _topic_of(message: Message) -> str:
    return message.topic


def _whole(message: Message) -> Message:
    return message


def _payload_source(annotation: Any, formatter: Formatter) -> Read:
    return _whole if _is_message(annotation) else payload_reader(_known(annotation), formatter)


def _known(annotation: Any) -> Any:
    """The annotation; where there is none, or it could not be resolved, anything will do."""
    return Any if annotation is inspect.Parameter.empty or isinstance(annotation, str) else annotation


def _is_message(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == "Message"
    return annotation is Message


def _parameters(handler: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters with their annotations as objects, or as text where they name what is not there."""
    try:
        signature = inspect.signature(handler, eval_str=True)
    except Exception:  # noqa: BLE001 - annotations are code, and may raise anything
        try:
            signature = inspect.signature(handler)
        except (TypeError, ValueError):
            return None
    return list(signature.parameters.values())
