"""``python -m deploy``: write anew what is made from the chart. A test holds what is committed to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from deploy.chart import CHART
from deploy.manifests import render_manifests
from deploy.values_page import render_page

PAGE: Final = CHART / "README.md"
MANIFESTS: Final = Path(__file__).parent / "kubernetes" / "base" / "tidegate.yaml"


def main() -> int:
    """Write both files."""
    for path, text in ((PAGE, render_page()), (MANIFESTS, render_manifests())):
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(Path.cwd())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
