"""The code blocks of the document that specifies the SDK, to be run as they stand.

They are read from ``../shared/seed`` beside the repository, and nothing of them is kept here. Three things
are changed, and no more: the import (``pycarta.mqtt`` becomes ``tidegate``), the import that two blocks
forget, and the directory of certificate files, which stands at the root of the file system. Host names are
led to a broker of the test's by ``lead``, beneath the code.
"""

from __future__ import annotations

import re
import socket
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from tests.support.ports import LOOPBACK
from tidegate import Message

T = TypeVar("T", bound=Callable[..., Any])

SPECIFICATION: Final = Path(__file__).parents[3] / "shared" / "seed" / "pycarta-mqtt.rst"

_HEADING_OR_CODE: Final = re.compile(
    r"""^ (?P<heading> \S.* ) \n (?: -{3,} | \^{3,} | ={3,} ) $
        | ^ \.\.\ code::.* \n \n (?P<code> (?: [ ]{4}.* \n | [ \t]* \n )+ )""",
    re.MULTILINE | re.VERBOSE,
)

FORGOTTEN_IMPORTS: Final = {
    "Async Decorators": "from tidegate import publish, subscribe\n",
    "Message Logging": "from tidegate import publish, subscribe\n",
}


def blocks() -> dict[str, str]:
    """The code blocks by the heading that they stand under, as they are written, without their margin."""
    if not SPECIFICATION.exists():
        pytest.skip("the SDK's specification is not beside this checkout (../shared/seed)")
    text = SPECIFICATION.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    heading = ""
    for part in _HEADING_OR_CODE.finditer(text):
        if part["heading"]:
            heading = part["heading"]
        else:
            assert heading not in found, f"two blocks under {heading!r}: number them"
            found[heading] = textwrap.dedent(part["code"])
    return found


def source(heading: str, *, certificates: Path | None = None) -> str:
    """The block under a heading, ready to run.

    Args:
        heading: as it is written.
        certificates: the directory that stands for ``/path/to``.
    """
    text = FORGOTTEN_IMPORTS.get(heading, "") + blocks()[heading].replace("pycarta.mqtt", "tidegate")
    return text if certificates is None else text.replace("/path/to/", f"{certificates}/")


def run(heading: str, *, certificates: Path | None = None, **given: object) -> dict[str, Any]:
    """Run the block under a heading as a module of its own, and give its names.

    Args:
        heading: as it is written.
        certificates: the directory that stands for ``/path/to``.
        given: names that the block uses and does not define.
    """
    names: dict[str, Any] = {"__name__": "example", **given}
    exec(compile(source(heading, certificates=certificates), "<example>", "exec"), names)
    return names


def covers(heading: str) -> Callable[[T], T]:
    """Say which block a test runs."""

    def mark(test: T) -> T:
        vars(test)["covered_block"] = heading
        return test

    return mark


def covered(*modules: Any) -> set[str]:
    """The headings of the blocks that tests of these modules run."""
    tests = [value for module in modules for name, value in vars(module).items() if name.startswith("test_")]
    return {test.covered_block for test in tests if hasattr(test, "covered_block")}


def lead(monkeypatch: pytest.MonkeyPatch, ports: Mapping[tuple[str, int], int]) -> None:
    """Lead connections elsewhere, by the look-up of names.

    Args:
        monkeypatch: undoes it.
        ports: for a host name and a port, the port of 127.0.0.1 to connect to in its place.
    """
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        found = ports.get((name, port))
        where = (host, port) if found is None else (LOOPBACK, found)
        return look_up(*where, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def shown(messages: Sequence[Message]) -> list[tuple[str, Any, int]]:
    """Topic, payload and QoS of each."""
    return [(message.topic, message.json(), message.qos) for message in messages]
