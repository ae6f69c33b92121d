"""What pages show and name: code can be read by its language, and what is named is there."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from app.cli import cli
from app.problems import ProblemType
from app.settings import Settings
from app.settings.sources import variable
from deploy.chart import render
from tests.support.command import ROOT
from tests.support.markdown import DOCS, Block, blocks, inline_code, links, pages

LANGUAGES: Final = {"", "console", "sh", "python", "json", "yaml", "js", "mermaid", "nginx"}
SETTINGS: Final = {variable(name) for name in Settings.model_fields}
OF_THE_SDK: Final = {"TIDEGATE_URL", "TIDEGATE_TOKEN", "TIDEGATE_TLS", "TIDEGATE_TLS_PASSPHRASE"}
SETTING: Final = re.compile(r"\bTIDEGATE_[A-Z0-9]+(?:_[A-Z0-9]+)*(_[*…])?")
PATH: Final = re.compile(r"(?<![\w.])/v1/[\w{}./-]*(…)?")
THREADS: Final = {"tidegate log"}
"""Names between backquotes that look like commands."""
FIXTURES: Final = {"tidegate_broker"}
"""Names between backquotes that look like metrics: the SDK's fixture for pytest."""
TARGET: Final = re.compile(r"^make ([a-z]+)\b")
WORDS: Final = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S+/)?tidegate (?P<arguments>.+)")


def commands() -> Iterator[tuple[str, str]]:
    """Each command of a shell block with its place, its lines joined, and without a prompt."""
    for block in blocks("console", "sh"):
        text = block.text.replace("\\\n", " ")
        yield from ((block.place, line.removeprefix("$ ").strip()) for line in text.splitlines())


def all_texts() -> Iterator[tuple[str, str]]:
    """The text of each page with its name."""
    for page in pages():
        yield str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")


def test_code_blocks_say_their_language() -> None:
    """One of those that are looked at here."""
    for block in blocks():
        assert block.language in LANGUAGES, block.place


def test_python_compiles() -> None:
    """Whole programs, and parts of programs that await outside of a function."""
    found = list(blocks("python"))
    assert found
    for block in found:
        compile(block.text, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_json_can_be_read() -> None:
    """One object, or one a line; an ellipsis stands for more members."""
    found = list(blocks("json"))
    assert found
    for block in found:
        text = block.text.replace(",…}", "}").replace(", …}", "}")
        try:
            json.loads(text)
        except ValueError:
            for line in text.splitlines():
                assert json.loads(line), f"{block.place}: {line}"


def test_yaml_can_be_read() -> None:
    """Every document in it."""
    found = list(blocks("yaml"))
    assert found
    for block in found:
        assert all(yaml.safe_load_all(block.text)), block.place


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_can_parse_commands(shell: str) -> None:
    """Quotes are closed, and what is after them is where it should be."""
    text = "\n".join(re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE) for block in blocks("console", "sh"))
    parsed = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
    assert (0, "") == (parsed.returncode, parsed.stderr)


def test_settings_that_are_named_are_there() -> None:
    """By whole names, or by a beginning with ``_*`` or ``_…`` behind it."""
    known = SETTINGS | OF_THE_SDK
    for page, text in all_texts():
        for found in SETTING.finditer(text):
            if found[1]:
                beginning = found[0][:-1]
                assert any(name.startswith(beginning) for name in known), f"{page}: {found[0]}"
            else:
                assert found[0] in known, f"{page}: {found[0]}"


def options_and_name(command: Any, words: list[str]) -> tuple[set[str], list[str]]:
    """The options of the command that the words name, and the words behind its name."""
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands") or not words or words[0].startswith(("-", "…")), words
    return {option for each in command.params for option in each.opts} | {"-h", "--help"}, words


def test_commands_and_options_that_are_named_are_there() -> None:
    """Those of ``tidegate``, in code blocks and between backquotes."""
    whole = typer.main.get_command(cli)
    inline = ((str(page), code) for page in pages() for code in inline_code(page))
    count = 0
    for place, line in [*commands(), *inline]:
        found = WORDS.match(re.split(r"\s(?:[|;&#>]|&&)\s", line)[0])
        if found is None or line in THREADS:
            continue
        words = shlex.split(found["arguments"])
        known, rest = options_and_name(whole, words)
        for word in rest:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in known, f"{place}: {line}"
        count += 1
    assert count > 20


def test_paths_that_are_named_are_there() -> None:
    """Those under ``/v1/``, in the description of the interface."""
    paths = yaml.safe_load((ROOT / "openapi/openapi.yaml").read_text())["paths"]
    shapes = [re.compile(re.sub(r"\\\{[^}]+\\\}", ".+", re.escape(path))) for path in paths]
    for page, text in all_texts():
        for found in PATH.finditer(text):
            path = found[0].rstrip("./…")
            if found[1] or path == "/v1":
                assert any(each.startswith(path) for each in paths), f"{page}: {path}"
            else:
                assert any(shape.fullmatch(path) for shape in shapes), f"{page}: {path}"


def test_problems_that_are_named_are_there() -> None:
    """A name behind a status is a type of problem that has this status."""
    statuses = {kind.slug: kind.status for kind in ProblemType}
    count = 0
    for page, text in all_texts():
        for status, slug in re.findall(r"\b([45]\d\d) `([a-z]+(?:-[a-z]+)*)`", text):
            assert statuses.get(slug) == int(status), f"{page}: {status} {slug}"
            count += 1
    assert count > 40


def test_metrics_that_are_named_are_there() -> None:
    """On the operating page, which is held to what the bridge exposes."""
    listed = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "operating.md").read_text(), re.MULTILINE))
    for page, text in all_texts():
        if page != "docs/operating.md":
            named = set(re.findall(r"`(tidegate_[a-z_]+|process_[a-z_]+)`", text))
            assert named - listed <= FIXTURES, page


def test_targets_that_are_named_are_there() -> None:
    """Those of the Makefile."""
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    inline = ((str(page), code) for page in pages() for code in inline_code(page))
    for place, line in [*commands(), *inline]:
        found = TARGET.match(line)
        assert found is None or found[1] in known, f"{place}: {line}"


def chart_has(name: str) -> bool:
    """Whether the chart's schema knows a value by this dotted name."""
    node = json.loads((ROOT / "deploy/helm/tidegate/values.schema.json").read_text())
    for part in name.split("."):
        properties = node.get("properties", {})
        if part not in properties:
            return not properties and "additionalProperties" in node
        node = properties[part]
    return True


def test_chart_values_of_commands_are_there() -> None:
    """What ``helm --set`` is told."""
    told = [
        (place, name)
        for place, line in commands()
        for name in re.findall(r"--set(?:-string)? '?([\w.]+)=", line)
    ]
    assert told
    for place, name in told:
        assert chart_has(name), f"{place}: {name}"
    assert not chart_has("broker.nowhere")


def values_files() -> list[Block]:
    """The YAML blocks that are values of the chart: they say the broker's."""
    return [block for block in blocks("yaml") if "broker" in (yaml.safe_load(block.text) or {})]


def test_values_files_can_be_rendered() -> None:
    """The chart takes them as they are."""
    found = values_files()
    assert found
    for block in found:
        assert render(yaml.safe_load(block.text)), block.place


def test_external_links_are_whole() -> None:
    """A scheme and a host; nobody is asked whether they answer."""
    for page in pages():
        for link in links(page):
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in {"http", "https", "mailto"}, f"{page}: {link}"
                assert parts.scheme == "mailto" or parts.hostname, f"{page}: {link}"
                assert " " not in link, f"{page}: {link}"
