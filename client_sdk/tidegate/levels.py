"""Topics with named levels: ``sensors/{sensor_id}/temperature``.

A subscribing function gets the level of each message's topic under that name; a publishing one fills it from
the argument of that name. Braces that are part of a longer level stand for themselves.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from tidegate.errors import ConfigurationError, TopicError
from tidegate.topics import matches, parse_named_levels, validate_topic


class NamedFilter:
    """A topic filter and the names of its levels.

    Args:
        text: the filter as it was written.

    Raises:
        TopicError: it is no filter, or a name is no argument's.
    """

    def __init__(self, text: str) -> None:
        self.filter, self._levels = parse_named_levels(text)
        self.names = frozenset(name for _, name in self._levels)

    def read(self, topic: str) -> dict[str, str] | None:
        """The named levels of a topic; None where the filter does not match."""
        if not matches(self.filter, topic):
            return None
        levels = topic.split("/")
        return {name: levels[index] for index, name in self._levels}


class NamedTopic:
    """A topic to publish to, some of whose levels are arguments of a function.

    Args:
        text: the topic as it was written.

    Raises:
        TopicError: it is no topic, or a name is no argument's.
    """

    def __init__(self, text: str) -> None:
        if "{" not in text:
            validate_topic(text)
            self._levels: tuple[tuple[int, str], ...] = ()
        else:
            _, self._levels = parse_named_levels(text)
            levels = text.split("/")
            for index, name in self._levels:
                levels[index] = name
            validate_topic("/".join(levels))
        self.text = text

    def for_function(self, function: Callable[..., Any]) -> Callable[..., str] | None:
        """What gives the topic for the arguments of a call; None where it is always the same.

        Raises:
            ConfigurationError: a name is none of the function's parameters.
        """
        if not self._levels:
            return None
        signature = inspect.signature(function)
        for _, name in self._levels:
            parameter = signature.parameters.get(name)
            if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ConfigurationError(
                    f"the topic {self.text!r} names {name!r}, which is no parameter of "
                    f"{getattr(function, '__name__', function)}"
                )
        return functools.partial(self._fill, signature)

    def _fill(self, signature: inspect.Signature, /, *args: Any, **kwargs: Any) -> str:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self.fill(bound.arguments)

    def fill(self, arguments: Mapping[str, Any]) -> str:
        """The topic with its levels filled.

        Raises:
            TopicError: a value is None or empty, or would be more than one level.
        """
        levels = self.text.split("/")
        for index, name in self._levels:
            levels[index] = self._level(name, arguments[name])
        topic = "/".join(levels)
        validate_topic(topic)
        return topic

    def _level(self, name: str, value: Any) -> str:
        if isinstance(value, Enum):
            value = value.value
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if value is None or not text or "/" in text:
            raise TopicError(
                f"{name}={value!r} cannot fill a level of {self.text!r}: a level is not empty and has no '/'",
                topic=self.text,
            )
        return text
