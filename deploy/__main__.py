"""``python -m deploy``: write anew what is made from the chart, and what is copied into it.

A test holds what is committed to it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.chart import CHART
from deploy.manifests import render_manifests
from deploy.settings_file import render_settings
from deploy.values_page import render_page

HERE: Final = Path(__file__).parent
PAGE: Final = CHART / "README.md"
MANIFESTS: Final = HERE / "kubernetes" / "base" / "tidegate.yaml"
SETTINGS: Final = CHART / "files" / "settings.yaml"
COPIES: Final = {
    CHART / "files" / "rules.yaml": HERE / "prometheus" / "rules.yaml",
    CHART / "files" / "dashboard.json": HERE / "grafana" / "tidegate.json",
}
"""Files in the chart and what they are copies of: Helm reads no file outside of the chart."""


def main() -> int:
    """Write all of them; those first that the chart reads."""
    made: list[tuple[Path, Callable[[], str]]] = [
        (SETTINGS, render_settings),
        *((copy, _reader(original)) for copy, original in COPIES.items()),
        (PAGE, render_page),
        (MANIFESTS, render_manifests),
    ]
    for path, make in made:
        path.write_text(make(), encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(Path.cwd())}\n")
    return 0


def _reader(path: Path) -> Callable[[], str]:
    return lambda: path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
