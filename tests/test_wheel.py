"""The service as it is installed: both wheels, in an environment with nothing but what they ask for."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import pytest
from packaging.utils import canonicalize_name

from tests.deploy.test_image import TOOLS, instructions, run
from tests.support.command import ROOT, Command
from tests.support.mosquitto import Mosquitto
from tests.support.wheels import build_wheel, make_environment, metadata_of, names_in, run_isolated
from tests.test_lock_files import RUN, SERVICE, pins, project


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's wheel."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has both wheels and what they ask for."""
    sdk = build_wheel(ROOT / "client_sdk", tmp_path_factory.mktemp("sdk"))
    return make_environment(tmp_path_factory.mktemp("environment"), wheel, sdk)


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """The console's files are there, and no test, no bench and nothing of deploy/."""
    names = names_in(wheel)
    assert "app/console/static/index.html" in names
    assert {"app", wheel.name.split("-py3")[0] + ".dist-info"} == {name.split("/")[0] for name in names}
    assert [] == [name for name in names if name.endswith((".pyc", ".lock"))]


def test_the_metadata_is_complete(wheel: Path) -> None:
    """What an index shows: a summary, the licence with its text, and the Python that it needs."""
    metadata = metadata_of(wheel)
    assert ("MIT", ">=3.11") == (metadata["License-Expression"], metadata["Requires-Python"])
    assert ["LICENSE"] == metadata.get_all("License-File")
    assert metadata["Summary"]


def test_it_tells_its_version(python: Path) -> None:
    """The one of pyproject.toml, which is written nowhere else in the code."""
    version = project(SERVICE)["project"]["version"]
    assert f"tidegate {version}\n" == run_isolated(python.with_name("tidegate"), "--version")


def test_it_serves_as_installed(python: Path, mosquitto: Mosquitto) -> None:
    """A publish, the console and the description of the interface, with nothing of the checkout in reach."""
    settings = {"TIDEGATE_BROKER_URL": mosquitto.url, "TIDEGATE_PORT": "0"}
    with Command("serve", settings=settings, program=("-I", "-m", "app"), python=python) as command:
        command.wait_for("connected to")
        command.wait_for("serving at")
        [url] = re.findall(r"serving at (http://\S+)", command.output)
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert 200 == client.post("/v1/topics/wheel", content=b"1").status_code
            assert "<html" in client.get("/console").text
            assert (
                project(SERVICE)["project"]["version"]
                == client.get("/openapi.json").json()["info"]["version"]
            )
        assert 0 == command.interrupt(signal.SIGTERM)


def test_the_bill_of_materials_names_all_that_is_pinned(python: Path, tmp_path: Path) -> None:
    """The Dockerfile's own command: CycloneDX with the SDK and every locked distribution."""
    [words] = [line for line in instructions() if "cyclonedx-py" in " ".join(line)]
    options = words[words.index("/opt/sbom/bin/cyclonedx-py") + 1 :]
    target = tmp_path / "sbom.json"
    places = {"/opt/tidegate/sbom.cdx.json": str(target), "/opt/tidegate/bin/python": str(python)}
    done = run(TOOLS / "cyclonedx-py", *(places.get(option, option) for option in options))
    assert 0 == done.returncode, done.stderr
    written = json.loads(target.read_text(encoding="utf-8"))
    assert "CycloneDX" == written["bomFormat"]
    assert "tidegate-bridge" == written["metadata"]["component"]["name"]
    named = {canonicalize_name(each["name"]) for each in written["components"]}
    locked = {name for name, pin in pins(RUN).items() if pin.marker is None or pin.marker.evaluate()}
    assert set() == (locked | {"tidegate"}) - named
