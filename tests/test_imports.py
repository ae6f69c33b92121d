"""The import contracts of pyproject.toml: this tree keeps them, and each of them can be broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

SDK = "The SDK knows neither the service nor a web framework"
LAYERS = "The service's layers import downwards"
HUB = "The hub knows neither HTTP nor an MQTT client"
PUBLISHING = "Publishing knows no web framework"
ADAPTER = "One package knows aiomqtt and paho"
TRACES = "One package knows OpenTelemetry"
METRICS = "One package knows the Prometheus client"

KEPT = {
    "app/__init__.py": "",
    "app/cli.py": "import app.main\n",
    "app/main.py": "import app.api\nimport app.settings\n",
    "app/api/__init__.py": "import fastapi\nimport app.hub\nimport app.security\nimport app.credentials\n",
    "app/credentials/__init__.py": "",
    "app/security/__init__.py": "",
    "app/metrics/__init__.py": "import app.publishing\n",
    "app/metrics/exposition.py": "import prometheus_client\n",
    "app/tracing/__init__.py": "import app.publishing\n",
    "app/tracing/spans.py": "from opentelemetry import trace\n",
    "app/logs/__init__.py": "",
    "app/publishing/__init__.py": "import app.hub\nimport app.broker\n",
    "app/hub/__init__.py": "import tidegate.message\n",
    "app/broker/__init__.py": "import tidegate\nimport app.settings\n",
    "app/settings.py": "",
    "app/problems.py": "",
    "tidegate/__init__.py": "import tidegate.connections.aiomqtt_connection\n",
    "tidegate/message.py": "import json\n",
    "tidegate/connections/__init__.py": "",
    "tidegate/connections/aiomqtt_connection/__init__.py": (
        "import tidegate.connections.aiomqtt_connection.opening\n"
    ),
    "tidegate/connections/aiomqtt_connection/opening.py": "import aiomqtt\nfrom paho.mqtt import client\n",
}


def lint(directory: Path, search_path: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Run import-linter in a directory that holds, or finds on ``search_path``, both packages."""
    path = os.pathsep.join([*map(str, search_path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache", "--no-logo"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def tree(directory: Path, changes: dict[str, str]) -> Path:
    """Write a small bridge and SDK that keep every contract, with some files replaced."""
    for name, source in {**KEPT, **changes}.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    shutil.copy(ROOT / "pyproject.toml", directory)
    return directory


def test_this_tree_keeps_its_contracts() -> None:
    """Every import in app and in the SDK goes the way that the contracts allow."""
    outcome = lint(ROOT, search_path=[ROOT, ROOT / "client_sdk"])
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_allowed_imports_are_allowed(tmp_path: Path) -> None:
    """A tree in which every layer uses what lies below it breaks nothing."""
    outcome = lint(tree(tmp_path, {}), search_path=[tmp_path])
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("contract", "file", "source"),
    [
        (SDK, "tidegate/message.py", "import app.settings"),
        (SDK, "tidegate/message.py", "from fastapi import FastAPI"),
        (SDK, "tidegate/connections/__init__.py", "import uvicorn"),
        (LAYERS, "app/api/__init__.py", "from app import cli"),
        (LAYERS, "app/hub/__init__.py", "from app.api import router"),
        (LAYERS, "app/hub/__init__.py", "import app.security"),
        (LAYERS, "app/broker/__init__.py", "import app.hub"),
        (LAYERS, "app/settings.py", "import app.broker"),
        (HUB, "app/hub/__init__.py", "from starlette.responses import Response"),
        (HUB, "app/hub/__init__.py", "import tidegate"),
        (HUB, "app/hub/journal.py", "import fastapi"),
        (PUBLISHING, "app/publishing/gate.py", "import starlette"),
        (LAYERS, "app/hub/__init__.py", "import app.publishing"),
        (ADAPTER, "app/broker/__init__.py", "import aiomqtt"),
        (ADAPTER, "app/main.py", "import paho.mqtt.client"),
        (LAYERS, "app/hub/__init__.py", "import app.metrics"),
        (LAYERS, "app/publishing/__init__.py", "import app.tracing"),
        (LAYERS, "app/metrics/__init__.py", "import app.api"),
        (LAYERS, "app/logs/__init__.py", "import app.settings"),
        (TRACES, "app/hub/__init__.py", "import opentelemetry"),
        (TRACES, "app/main.py", "from opentelemetry import trace"),
        (METRICS, "app/hub/__init__.py", "from prometheus_client import Counter"),
        (METRICS, "tidegate/message.py", "import prometheus_client"),
        (ADAPTER, "tidegate/message.py", "from paho.mqtt.properties import Properties"),
    ],
)
def test_forbidden_imports_are_found(tmp_path: Path, contract: str, file: str, source: str) -> None:
    """One import against a contract breaks that contract, by name."""
    outcome = lint(tree(tmp_path, {file: source + "\n"}), search_path=[tmp_path])
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert f"{contract} BROKEN" in outcome.stdout


@pytest.mark.parametrize(
    "package", ["api", "broker", "credentials", "logs", "metrics", "security", "tracing"]
)
def test_layers_may_be_absent(tmp_path: Path, package: str) -> None:
    """A contract says nothing about a layer that does not exist."""
    directory = tree(tmp_path, {"app/main.py": "", "app/api/__init__.py": ""})
    shutil.rmtree(directory / "app" / package)
    outcome = lint(directory, search_path=[directory])
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_sdk_loads_no_web_framework() -> None:
    """A program that imports the SDK loads nothing of the service, not even through a third party."""
    program = "import sys, tidegate; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(outcome.stdout.split())
    assert "tidegate" in loaded
    assert set() == loaded & {"app", "fastapi", "starlette", "sse_starlette", "uvicorn", "pydantic_settings"}
