"""The SDK as it is installed: built into a wheel, in an environment with nothing but what it asks for."""

from __future__ import annotations

import json
from email.message import Message as Headers
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tests.support.mosquitto import Mosquitto
from tests.support.wheels import build_wheel, make_environment, metadata_of, names_in, needed
from tests.support.wheels import run_isolated as run

WEB_FRAMEWORKS = {"fastapi", "starlette", "uvicorn", "sse-starlette", "flask", "django", "aiohttp"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    return build_wheel(ROOT / "client_sdk", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Headers:
    """What the wheel says of itself."""
    return metadata_of(wheel)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it asks for, directly or not."""
    return make_environment(tmp_path_factory.mktemp("environment"), wheel)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """The marker for type checkers is there, and no test or top-level module beside the package."""
    names = names_in(wheel)
    assert "tidegate/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"tidegate", wheel.name.split("-py3")[0] + ".dist-info"}


def test_the_wheel_asks_for_no_web_framework_and_no_test_tool(metadata: Headers) -> None:
    """Neither directly nor through what it asks for."""
    names = {name.lower().replace("_", "-") for name in needed(metadata.get_all("Requires-Dist", []))}
    assert {"aiomqtt", "httpx", "paho-mqtt"} <= names
    assert set() == names & (WEB_FRAMEWORKS | {"pytest", "pydantic"})
    assert metadata["Requires-Python"] == ">=3.11"


def test_importing_it_loads_what_is_used_alone(python: Path) -> None:
    """No client library, cryptography or validation before something needs them: an import is quick."""
    program = "import tidegate, sys, json; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    loaded = set(json.loads(run(python, "-c", program)))
    heavy = {
        "aiomqtt",
        "paho",
        "httpx",
        "httpx_sse",
        "cryptography",
        "msgspec",
        "pydantic",
        "numpy",
        "pytest",
    }
    assert set() == loaded & (heavy | WEB_FRAMEWORKS)
    assert Path(run(python, "-c", "import tidegate; print(tidegate.__file__)")).is_relative_to(
        python.parents[1]
    )


def test_it_publishes_and_follows_as_installed(python: Path, mosquitto: Mosquitto) -> None:
    """Straight to a broker, with what the wheel asked for and nothing else."""
    program = f"""
from tidegate import Publisher, Subscriber
import threading
arrived = threading.Event()
with Subscriber({mosquitto.url!r}) as subscriber, Publisher({mosquitto.url!r}) as publisher:
    subscriber.subscribe("wheel", lambda topic, payload: arrived.set())
    publisher.publish("wheel", 1)
    print(arrived.wait(20))
"""
    assert run(python, "-c", program) == "True\n"


def test_its_double_for_tests_needs_no_test_tool(python: Path) -> None:
    """``tidegate.testing`` works without pytest, and the plugin is declared for those who have it."""
    program = """
from importlib.metadata import entry_points
from tidegate import publish
from tidegate.testing import FakeBroker
with FakeBroker() as broker:
    publish("wheel")(lambda: 1)()
    print(broker.messages()[0].json())
print(*(each.value for each in entry_points(group="pytest11", name="tidegate")))
"""
    assert run(python, "-c", program) == "1\ntidegate.pytest_plugin\n"


def test_its_commands_are_there(python: Path) -> None:
    """``python -m tidegate`` comes with the package."""
    assert "pub" in run(python, "-m", "tidegate", "--help")
