"""Writes down the names that are promised and stand in neither document: settings, problems, metrics.

python -m app.commands.contract_names > names.yaml
"""

from __future__ import annotations

import sys

import yaml

from app.main import create_app
from app.metrics.names import metric_names
from app.problems import ProblemType
from app.settings import Settings
from app.settings.sources import variable


def names() -> dict[str, list[str] | dict[str, list[str]]]:
    """The settings, the problems, and the metrics with their labels."""
    return {
        "settings": sorted(variable(name) for name in Settings.model_fields),
        "problems": sorted(kind.slug for kind in ProblemType),
        "metrics": metric_names(create_app(Settings()).state.collector),
    }


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(names(), sort_keys=False))
