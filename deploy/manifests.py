"""Plain manifests, for people without Helm: the chart with ``deploy/kubernetes/values.yaml``.

What only Helm has a use for is left out: its labels, the checksums that restart pods, the test's pod.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from deploy.chart import objects, render

VALUES: Final = Path(__file__).parent / "kubernetes" / "values.yaml"

_HEAD: Final = (
    "# Made by make manifests from the chart and deploy/kubernetes/values.yaml; not to be edited.\n"
)
_ORDER: Final = (
    "ServiceAccount",
    "ConfigMap",
    "NetworkPolicy",
    "Service",
    "PodDisruptionBudget",
    "Deployment",
)
_OF_HELM: Final = frozenset({"helm.sh/chart", "app.kubernetes.io/managed-by"})


def render_manifests() -> str:
    """All objects as one YAML text, in the order in which they are best made."""
    made = objects(render(yaml.safe_load(VALUES.read_text(encoding="utf-8"))))
    kept = [_plain(each) for each in made if "helm.sh/hook" not in each["metadata"].get("annotations", {})]
    kept.sort(key=lambda each: _ORDER.index(each["kind"]))
    return _HEAD + "---\n".join(yaml.safe_dump(each, sort_keys=False, width=110) for each in kept)


def _plain(each: dict[str, Any]) -> dict[str, Any]:
    labels = each["metadata"]["labels"]
    each["metadata"]["labels"] = {name: labels[name] for name in labels if name not in _OF_HELM}
    pod = each["spec"]["template"]["metadata"] if each["kind"] == "Deployment" else {}
    pod.pop("annotations", None)
    return each
