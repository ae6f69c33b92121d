"""The pages of the documentation, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.command import ROOT

DOCS: Final = ROOT / "docs"
INDEX: Final = DOCS / "README.md"


@dataclass(frozen=True, slots=True)
class Block:
    """A code block.

    Attributes:
        page: the page, from the root of the tree.
        line: where its first line is, counted from one.
        language: what is written behind its fence.
        text: the code.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, for a failure's message."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """All pages of the site."""
    parts = ("*.md", "client_sdk/*.md", "deploy/*.md", "deploy/helm/tidegate/*.md", "docs/**/*.md")
    return sorted({path for pattern in parts for path in ROOT.glob(pattern)})


@cache
def tokens(page: Path) -> list[Token]:
    """What a page consists of, with the parts of its paragraphs."""
    found = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    return [each for token in found for each in (token, *(token.children or ()))]


def blocks(*languages: str) -> Iterator[Block]:
    """The fenced code blocks of all pages, or of these languages alone."""
    for page in pages():
        for token in tokens(page):
            if token.type == "fence" and (not languages or token.info in languages):
                assert token.map is not None
                yield Block(str(page.relative_to(ROOT)), token.map[0] + 2, token.info, token.content)


def inline_code(page: Path) -> list[str]:
    """What stands in a line between backquotes."""
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def links(page: Path) -> list[str]:
    """Where its links and pictures lead."""
    places = (token.attrGet("href") or token.attrGet("src") for token in tokens(page))
    return [str(place) for place in places if place]
