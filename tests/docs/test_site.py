"""The site of ``make docs``: no warning, every page, and nothing from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.support.browser import running_browser
from tests.support.command import ROOT
from tests.support.markdown import DOCS, INDEX, links, pages

SECONDS: Final = 100.0
LARGEST_PICTURE_BYTES: Final = 150_000
LOADED: Final = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]+)\"|url\(['\"]?((?:https?:)?//[^)]+)\)"
)
"""What a browser fetches from another host without being asked."""


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Do as ``make docs`` does."""
    made = re.search(r"^docs:.*\n\t\S+/sphinx-build (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made is not None
    words = made[1].replace("docs/site", str(DOCS / "site")).replace("build/", f"{target}/").split()
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *words],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    target = tmp_path_factory.mktemp("build")
    built = build(ROOT, target)
    assert (0, "") == (built.returncode, built.stderr)
    return target / "site"


def test_every_page_is_in_the_site(site: Path) -> None:
    """Where its Markdown is in the tree, so that links between pages are the same in both."""
    made = {path.relative_to(site) for path in site.rglob("*.html")}
    assert {page.relative_to(ROOT).with_suffix(".html") for page in pages()} <= made
    assert Path("index.html") in made


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    """No script, no style, no font, no picture."""
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert [] == LOADED.findall(path.read_text(encoding="utf-8")), path


def test_it_is_read_and_searched_from_the_disk(site: Path) -> None:
    """Opened as files, without a server: the first page leads to the index, and a search leads to pages."""
    with running_browser() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((site / "index.html").as_uri())
        expect(page.get_by_role("heading", name="Tidegate", level=1)).to_be_visible()
        search = page.locator("input[name=q]:visible")
        search.fill("retained")
        search.press("Enter")
        expect(page.get_by_text("Search finished, found")).to_be_visible()
        page.locator("ul.search").get_by_role("link", name="Configuration", exact=True).click()
        expect(page.get_by_role("heading", name="Configuration", level=1)).to_be_visible()
        assert [] == complaints


def test_every_page_is_in_the_navigation() -> None:
    """The index links to each once; the decisions have a page that lists them."""
    listed = [(DOCS / link).resolve() for link in links(INDEX) if link.endswith(".md")]
    decisions = {page for page in pages() if page.parent.name == "decisions" and page.name != "README.md"}
    assert decisions
    assert {*pages()} - decisions - {INDEX} == {*listed}
    assert len(listed) - 1 == len({*listed})  # the first sentence has one more link to a page
    assert (DOCS / "start.md").resolve() == listed[0]


def test_the_projects_first_page_links_to_the_index() -> None:
    """And briefly: the index has the rest."""
    assert "docs/README.md" in links(ROOT / "README.md")


def test_pictures_are_small() -> None:
    """They are in everybody's clone."""
    pictures = [*(DOCS / "images").iterdir()]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= LARGEST_PICTURE_BYTES, picture


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[x](nowhere.md)", "cross-reference target not found: 'nowhere.md'"),
        ("[x](README.md#nowhere)", "local id not found in doc 'docs/README': 'nowhere'"),
        ("![x](images/nowhere.png)", "image file not readable"),
        ("# Alone", "document isn't included in any toctree"),
    ],
    ids=["page", "anchor", "picture", "navigation"],
)
def test_what_leads_nowhere_fails_the_build(text: str, told: str, tmp_path: Path) -> None:
    """A link, an anchor, a picture; and a page that the index does not link to."""
    (tmp_path / "docs").mkdir()
    listed = "" if text == "# Alone" else "- [Page](page.md): a page.\n- [Deep](deep.md): more."
    (tmp_path / "docs/README.md").write_text(f"# Index\n\n## Pages\n\n{listed}\n")
    (tmp_path / "docs/page.md").write_text(f"# Page\n\n{text}\n")
    (tmp_path / "docs/deep.md").write_text("# Deep\n")
    built = build(tmp_path, tmp_path / "build")
    assert 1 == built.returncode
    assert told in built.stderr
