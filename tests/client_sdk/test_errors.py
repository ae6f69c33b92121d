from __future__ import annotations

import inspect

import pytest

from tidegate import errors
from tidegate.errors import (
    ConfigurationError,
    MQTTError,
    NotAuthorizedError,
    RefusedError,
    TLSError,
    refusal,
)


def tree_in_docstring() -> dict[str, str | None]:
    """Each name in the picture, with the name above it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        name = words.split()[0] if words.split() else ""
        if not name.endswith("Error") or not line.startswith("    "):
            continue
        depth = (len(words) - len(words.lstrip()) - 4) // 4
        parents[name] = path[depth - 1] if depth else None
        path[depth:] = [name]
    return parents


def tree_of_classes() -> dict[str, str | None]:
    """Each error class that the module defines, with the first class that it derives from."""
    return {
        name: None if kind is MQTTError else kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    }


def test_the_picture_shows_every_error() -> None:
    """The tree drawn in the module's docstring is the tree of its classes."""
    assert tree_of_classes() == tree_in_docstring()


@pytest.mark.parametrize("name", tree_of_classes())
def test_every_error_says_whose_fault_it_is(name: str) -> None:
    """Every class answers ``fault`` and ``retryable``, and what the caller got wrong is not retryable."""
    kind = vars(errors)[name]
    assert kind.fault in ("caller", "broker", "network")
    assert isinstance(kind.retryable, bool)
    assert not (kind.fault == "caller" and kind.retryable)


def test_an_error_carries_its_facts() -> None:
    """What is known of the failed call is on the error, and what is not is None."""
    error = MQTTError("no", topic="a/b", qos=1, reason_code=0x97)
    assert ("a/b", 1, 0x97) == (error.topic, error.qos, error.reason_code)
    assert "no" == str(error)
    plain = MQTTError("no")
    assert (None, None, None) == (plain.topic, plain.qos, plain.reason_code)


def test_a_configuration_error_is_a_value_error() -> None:
    """Whoever catches ValueError around a constructor catches ours too."""
    assert issubclass(ConfigurationError, ValueError)


def test_a_tls_error_names_the_file() -> None:
    """The file at fault is an attribute."""
    assert "ca.pem" == TLSError("unreadable", file="ca.pem").file
    assert TLSError("unreadable").file is None


@pytest.mark.parametrize(
    ("reason_code", "kind", "text"),
    [
        (0x87, NotAuthorizedError, "the broker refused the publish of 'a/b': Not authorized (0x87)"),
        (0x97, RefusedError, "the broker refused the publish of 'a/b': Quota exceeded (0x97)"),
        (0xFE, RefusedError, "the broker refused the publish of 'a/b': reason code unknown to MQTT 5 (0xFE)"),
    ],
)
def test_a_refusal_names_the_reason(reason_code: int, kind: type[RefusedError], text: str) -> None:
    """A refusing reason code becomes the right class, with the standard's name for it in the text."""
    error = refusal("publish", reason_code, topic="a/b", qos=1)
    assert kind is type(error)
    assert text == str(error)
    assert ("a/b", 1, reason_code) == (error.topic, error.qos, error.reason_code)
    assert "broker" == error.fault
