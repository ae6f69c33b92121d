"""The file of schemas: what it may hold, and what is said of what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.commands.doctor import examine_broker
from app.publishing.schema_file import load_schemas
from app.publishing.schemas import Schemas
from tests.support.command import run_command
from tests.support.mosquitto import Mosquitto
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError
from tidegate.message import Message


def write(directory: Path, content: Any, name: str = "schemas.yaml") -> Path:
    """A file with this text, or with this written as JSON, which is YAML too."""
    file = directory / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def entry(schema: Any, **more: Any) -> dict[str, Any]:
    """A file with one entry."""
    return {"schemas": [{"topics": ["a"], "schema": schema, **more}]}


def takes(schemas: Schemas, payload: bytes) -> bool:
    """Whether a message to the topic ``a`` matches."""
    return schemas.judge(Message("a", payload)) is None


def test_yaml_with_the_schema_inline(tmp_path: Path) -> None:
    """Written as people write it."""
    text = "schemas:\n  - topics: a\n    schema:\n      type: object\n      required: [celsius]\n"
    schemas = load_schemas(write(tmp_path, text))
    assert (1, True, False) == (len(schemas), takes(schemas, b'{"celsius":1}'), takes(schemas, b"{}"))


@pytest.mark.parametrize("name", ["common.json", "common.yaml", "parts/common.json"])
def test_a_schema_in_a_file_beside_it(tmp_path: Path, name: str) -> None:
    """A name is relative to the file of schemas, whatever the working directory."""
    write(tmp_path, {"type": "string"}, name)
    schemas = load_schemas(write(tmp_path, entry(name)))
    assert (True, False) == (takes(schemas, b'"x"'), takes(schemas, b"1"))


def test_a_reference_leads_to_another_file(tmp_path: Path) -> None:
    """It is relative to the file that it stands in, and may point into the other."""
    write(tmp_path, {"$defs": {"word": {"type": "string"}}}, "parts/words.json")
    write(tmp_path, {"items": {"$ref": "words.json#/$defs/word"}}, "parts/list.json")
    schemas = load_schemas(write(tmp_path, entry("parts/list.json")))
    assert (True, False) == (takes(schemas, b'["x"]'), takes(schemas, b"[1]"))
    inline = load_schemas(write(tmp_path, entry({"$ref": "parts/words.json#/$defs/word"}), "inline.json"))
    assert (True, False) == (takes(inline, b'"x"'), takes(inline, b"1"))


@pytest.mark.parametrize(
    ("draft", "keyword"),
    [
        ("http://json-schema.org/draft-07/schema#", "definitions"),
        ("https://json-schema.org/draft/2020-12/schema", "$defs"),
    ],
)
def test_the_draft_is_that_of_the_schema(tmp_path: Path, draft: str, keyword: str) -> None:
    """Meta-schemas are there without being fetched."""
    schema = {"$schema": draft, keyword: {"x": {"const": 1}}, "$ref": f"#/{keyword}/x"}
    schemas = load_schemas(write(tmp_path, entry(schema)))
    assert (True, False) == (takes(schemas, b"1"), takes(schemas, b"2"))


@pytest.mark.parametrize(("schema", "is_taken"), [(True, True), (False, False)])
def test_a_schema_may_be_true_or_false(tmp_path: Path, schema: bool, is_taken: bool) -> None:
    """True asks for JSON alone."""
    schemas = load_schemas(write(tmp_path, entry(schema)))
    assert (is_taken, False) == (takes(schemas, b"1"), takes(schemas, b"no JSON"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("schemas: [", "is not YAML"),
        ("[]", "it has one member, 'schemas'"),
        ({"schema": []}, "it has one member, 'schemas'"),
        ({"schemas": []}, "at least one entry"),
        ({"schemas": ["a"]}, "entry 1: an entry is an object with the members topics, schema"),
        ({"schemas": [{"schema": True}]}, "entry 1: the member 'topics' is missing"),
        ({"schemas": [{"topics": ["a"]}]}, "entry 1: the member 'schema' is missing"),
        ({"schemas": [{"topics": [], "schema": True}]}, "entry 1: topics: "),
        ({"schemas": [{"topics": [1], "schema": True}]}, "entry 1: topics: "),
        (
            {"schemas": [{"topics": ["a"], "schema": True}, {"topics": ["a/#/b"], "schema": True}]},
            "entry 2: ",
        ),
        ({"schemas": [{"topics": ["$share/x/a"], "schema": True}]}, "name the filter behind it"),
        (entry(True, topic="a"), "entry 1: there is no member 'topic'; did you mean 'topics'?"),
        (entry(True, invalid_from_broker="ignore"), "entry 1: invalid_from_broker: "),
        (entry(7), "entry 1: 'schema' is a schema, or the name of a file"),
        (entry("absent.json"), "absent.json cannot be read: No such file or directory"),
        (entry({"type": "nope"}), 'the schema cannot be used: /type: "nope" is not valid'),
        (entry({"pattern": "("}), "the schema cannot be used: /pattern: "),
        (entry({"$ref": "#/nope"}), "Pointer '/nope' does not exist"),
        (entry({"$ref": "absent.json"}), "absent.json cannot be read"),
        (entry({"$schema": "https://nowhere.invalid/draft"}), "Unknown meta-schema"),
        ("schemas:\n - topics: a\n   schema: {const: 2026-01-31}\n", "Unsupported type: 'date'"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, content: Any, says: str) -> None:
    """The file, the entry and the reason."""
    file = write(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        load_schemas(file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/x.json"},
        {"$ref": "https://nowhere.invalid/x.json"},
        {"$id": "https://nowhere.invalid/a.json", "$ref": "b.json"},
    ],
)
def test_nothing_is_fetched(tmp_path: Path, schema: dict[str, str]) -> None:
    """A reference to another host is refused as one, and no connection is tried."""
    with pytest.raises(ConfigurationError, match="is not a file, and nothing is fetched"):
        load_schemas(write(tmp_path, entry(schema)))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes are told from text."""
    file = tmp_path / "schemas.yaml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        load_schemas(file)


@pytest.mark.parametrize("command", [("serve",), ("doctor",)])
def test_the_command_does_not_start(tmp_path: Path, command: tuple[str, ...]) -> None:
    """It ends with the reason, and without a stack trace."""
    file = write(tmp_path, entry({"type": "nope"}))
    settings = {"TIDEGATE_SCHEMAS_FILE": str(file), "TIDEGATE_BROKER_URL": "mqtt://127.0.0.1:9"}
    done = run_command(*command, settings=settings)
    assert done.returncode in (1, 2)
    told = done.stdout + done.stderr
    assert f"{file}: entry 1: the schema cannot be used: /type" in told
    assert "Traceback" not in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is told like any other setting that names a file."""
    done = run_command("serve", settings={"TIDEGATE_SCHEMAS_FILE": str(tmp_path / "absent.yaml")})
    assert 2 == done.returncode
    assert "TIDEGATE_SCHEMAS_FILE=" in done.stderr
    assert "there is no file at this path" in done.stderr


async def test_the_doctor_counts_schemas(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """With a file that can be used the first step says so, and the way to the broker follows."""
    file = write(tmp_path, entry(True))
    options = ConnectOptions(host=mosquitto.host, port=mosquitto.port)
    report = await examine_broker(options, schemas_file=file)
    assert report.is_ok
    assert ("schemas", f"1 in {file}") == (report.steps[0].name, report.steps[0].detail)
    assert "URL" == report.steps[1].name
