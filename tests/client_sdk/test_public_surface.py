from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import tidegate

PUBLIC = [
    "AsyncPublisher",
    "AsyncSubscriber",
    "ConfigurationError",
    "ConnectRefusedError",
    "Formatter",
    "JSONFormatter",
    "MQTTConnectionError",
    "MQTTError",
    "MQTTTimeoutError",
    "Message",
    "NotAuthorizedError",
    "NotConnectedError",
    "OutcomeUnknownError",
    "PayloadError",
    "Properties",
    "PublishResult",
    "Publisher",
    "QueueFullError",
    "RefusedError",
    "Subscriber",
    "TLSError",
    "TopicError",
    "UnsupportedError",
    "UnsupportedQoSWarning",
    "async_publish",
    "async_subscribe",
    "configure",
    "publish",
    "subscribe",
]


def test_the_public_names_are_these() -> None:
    """A name that is exported is a promise; adding one is a decision."""
    assert PUBLIC == tidegate.__all__
    assert sorted(PUBLIC) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented(name: str) -> None:
    """What is exported is there, and says what it is."""
    found: Any = getattr(tidegate, name)
    assert inspect.getdoc(found)
    assert found.__module__.startswith("tidegate.")


def test_every_error_can_be_imported_from_the_top() -> None:
    """Whoever catches an error need not know which module makes it."""
    errors = {
        name
        for name, value in vars(tidegate.errors).items()
        if isinstance(value, type) and issubclass(value, tidegate.MQTTError)
    }
    assert errors <= set(PUBLIC)


def test_the_asynchronous_decorators_are_the_same() -> None:
    """The kind of function decides, not the name of the decorator."""
    assert tidegate.async_publish is tidegate.publish
    assert tidegate.async_subscribe is tidegate.subscribe


def loaded_after(program: str) -> set[str]:
    """The top-level modules that are there once a program has run; it must have started no thread."""
    outcome = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{program}\nimport sys, threading\nprint(*sys.modules)\nprint(threading.active_count())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    *modules, threads = outcome.stdout.split()
    assert threads == "1"
    return {name.partition(".")[0] for name in modules}


def test_importing_loads_nothing_heavy_and_starts_nothing() -> None:
    """Neither client library, nor a web framework, nor a thread, before something is used."""
    heavy = {"aiomqtt", "cryptography", "fastapi", "httpx", "httpx_sse", "numpy", "paho", "pydantic"}
    heavy |= {"starlette", "uvicorn"}
    assert set() == heavy & loaded_after("import tidegate")


@pytest.mark.parametrize(
    ("url", "expected"), [("mqtt://127.0.0.1:1", set()), ("http://127.0.0.1:1", {"httpx", "httpx_sse"})]
)
def test_the_http_client_is_loaded_for_a_bridge_alone(url: str, expected: set[str]) -> None:
    """Making a client loads what its transport needs, and connects to nothing."""
    loaded = loaded_after(f"import tidegate\ntidegate.Publisher({url!r})")
    assert expected == loaded & {"httpx", "httpx_sse"}
