"""docs/kubernetes.md: kubectl makes the Secrets that the values name; no cluster is asked."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import yaml

from deploy.values_page import default
from tests.support.command import ROOT
from tests.support.markdown import blocks

PAGE: Final = "docs/kubernetes.md"
KUBECTL: Final = Path(sys.executable).parent / "kubectl"
SECONDS: Final = 60.0


def test_kubectl_makes_the_secrets_that_the_values_name(tmp_path: Path) -> None:
    """By the commands of the page, with the keys that the chart reads."""
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    texts = [block.text.replace("\\\n", " ") for block in blocks("console") if block.page == PAGE]
    commands = [line for text in texts for line in text.splitlines() if "create secret" in line]
    assert 3 == len(commands)
    made: dict[str, set[str]] = {}
    for command in commands:
        words = shlex.split(command.partition("|")[0])
        assert "kubectl" == words[0]
        done = subprocess.run(
            [KUBECTL, *words[1:], "--dry-run=client", "--output=yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (0, "") == (done.returncode, done.stderr)
        secret = yaml.safe_load(done.stdout)
        made.setdefault(secret["metadata"]["name"], set()).update(secret["data"])
    pages = [yaml.safe_load(block.text) for block in blocks("yaml") if block.page == PAGE]
    [values] = [page for page in pages if "broker" in page]
    assert {values["access"]["apiKeys"]["existingSecret"], *values["existingSecrets"]} == set(made)
    assert {"api-keys"} == made["tidegate-api-keys"]
    assert {"TIDEGATE_BROKER_USERNAME", "TIDEGATE_BROKER_PASSWORD"} == made["tidegate-settings"]


def test_the_scaler_asks_for_a_metric_that_there_is() -> None:
    """What the adapter makes of it has the name that the chart's scaler asks for by default."""
    pages = [yaml.safe_load(block.text) for block in blocks("yaml") if block.page == PAGE]
    [rule] = [each for page in pages if "rules" in page for each in page["rules"]["custom"]]
    name = rule["seriesQuery"].partition("{")[0]
    assert default("autoscaling.streamsMetric") == name
    assert f"`{name}`" in (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
