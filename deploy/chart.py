"""The Helm chart, rendered in this process; no helm, and no cluster, is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from helm_python import Chart

CHART: Final = Path(__file__).parent / "helm" / "tidegate"

NOTES: Final = "NOTES.txt"


@cache
def chart() -> Chart:
    """The chart, loaded once."""
    return Chart.load(CHART)


def render(
    values: Mapping[str, Any], *, release: str = "tidegate", namespace: str = "tidegate"
) -> dict[str, str]:
    """The text of each template by its name, ``NOTES.txt`` among them; empty ones are left out.

    Raises:
        HelmValuesError: the schema refuses a value; the text tells which and why.
        HelmRenderError: values contradict one another; the text tells what to do.
    """
    rendered = chart().render(values=dict(values), name=release, namespace=namespace)
    return {name.partition("/templates/")[2]: text for name, text in rendered.items() if text.strip()}


def objects(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Kubernetes objects among what ``render`` gave, in the order of the templates' names."""
    documents = (
        document for name in sorted(texts) if name != NOTES for document in yaml.safe_load_all(texts[name])
    )
    return [document for document in documents if document]
