"""The site that `make docs` builds from the Markdown of this repository.

Rule 1: a page is plain Markdown that reads well on a code host; nothing in it is for the builder alone.
Rule 2: docs/README.md is the index, and the navigation is made from its lists: a page that it does not name
fails the build.
Rule 3: every link and anchor inside the repository has to lead somewhere; the builder's warnings are errors.
Rule 4: the site loads nothing from another host.
Rule 5: it works from the disk, without a server.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

ROOT: Final = Path(__file__).resolve().parents[2]
INDEX: Final = "docs/README"
DECISIONS: Final = "docs/decisions/README"

project = "Tidegate"
author = "Tidegate maintainers"
project_copyright = author
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = INDEX
include_patterns = [
    "*.md",
    "client_sdk/README.md",
    "deploy/README.md",
    "deploy/helm/tidegate/README.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "docs/examples/*/README.md",
]
exclude_patterns = [".*", "app", "bench", "build", "dist", "openapi", "tests"]
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # JSON with an ellipsis in it is meant to be read

myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough"]

html_theme = "furo"
html_title = "Tidegate"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # a summary is fetched, which no browser does for a page opened as a file
html_additional_pages = {"index": "first.html"}
templates_path = ["templates"]


def navigation(text: str) -> str:
    """The index's lists as toctrees, one for each of its headings.

    Args:
        text: the index, with headings of the second level and lists of links under them.
    """
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages = re.findall(r"^- \[([^]]+)\]\(([^)#:]+)\.md\)", section, re.MULTILINE)
        entries = "\n".join(f"{title} <{page}>" for title, page in pages)
        trees.append(f"\n```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n\n{entries}\n```\n")
    return "".join(trees)


def without_directories(text: str, page: Path) -> str:
    """A page whose links to directories are plain text: they lead somewhere on a code host alone.

    Args:
        text: the page.
        page: its path.
    """

    def plain(link: re.Match[str]) -> str:
        return link[1] if (page.parent / link[2]).is_dir() else link[0]

    return re.sub(r"\[([^]]+)\]\(([^):#]+)\)", plain, text)


def prepare(app: Sphinx, name: str, content: list[str]) -> None:
    """Give the index its toctrees, and the page of the decisions all decisions."""
    content[0] = without_directories(content[0], Path(app.srcdir, name))
    if name == INDEX:
        content[0] += navigation(content[0])
    elif name == DECISIONS:
        content[0] += "\n```{toctree}\n:glob:\n:maxdepth: 1\n\n0*\n```\n"


def setup(app: Sphinx) -> None:
    """Take part in the build."""
    app.connect("source-read", prepare)
