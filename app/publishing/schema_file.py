"""Reading ``TIDEGATE_SCHEMAS_FILE``: which JSON Schemas hold for which topics.

    schemas:
      - topics: [sensors/+/temperature]
        schema: temperature.json
        invalid_from_broker: drop

YAML or JSON. A schema stands in the entry itself, or in a file that is named relative to this one; a ``$ref``
leads within it or to another file. Nothing is ever fetched over a network. Only this module knows the library
that validates, and it is loaded only where the setting is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import jsonschema_rs
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.problems import did_you_mean, json_pointer
from app.publishing.schemas import Entry, Schemas
from tidegate.errors import ConfigurationError, TopicError
from tidegate.topics import split_share, validate_filter


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    topics: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    document: dict[str, Any] | bool | str = Field(alias="schema")
    invalid_from_broker: Literal["deliver", "drop"] = "deliver"


_NAMES: Final = ("topics", "schema", "invalid_from_broker")


def load_schemas(file: Path) -> Schemas:
    """Read the file and all schemas that it names.

    Raises:
        ConfigurationError: something in it cannot be used; the text has the file, the entry and the reason.
    """
    try:
        content = _read(file)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if not isinstance(content, dict) or list(content) != ["schemas"]:
        raise ConfigurationError(f"{file}: it has one member, 'schemas', a list of entries")
    listed = content["schemas"]
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError(f"{file}: 'schemas' is a list with at least one entry")
    return Schemas(_entry(file, number, each) for number, each in enumerate(listed, 1))


def _entry(file: Path, number: int, content: Any) -> Entry:
    try:
        read = _Entry.model_validate(content)
        for topic_filter in read.topics:
            _check_filter(topic_filter)
        source, document = file.absolute(), read.document
        if isinstance(document, str):
            source = source.parent / document
            document = _read(source)
        validator = _validator(document, source)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: entry {number}: {_describe(error)}") from error
    except (TopicError, ValueError) as error:
        raise ConfigurationError(f"{file}: entry {number}: {error}") from error
    return Entry(number, tuple(read.topics), validator, read.invalid_from_broker == "drop")


def _check_filter(topic_filter: str) -> None:
    validate_filter(topic_filter)
    if split_share(topic_filter)[0] is not None:
        raise ValueError(f"{topic_filter!r} is a shared subscription; name the filter behind it")


def _validator(document: Any, source: Path) -> jsonschema_rs.Validator:
    """A schema, ready to validate; raises ValueError where it is none."""
    if not isinstance(document, dict | bool):
        raise ValueError(f"{source}: a schema is an object, or true or false")  # noqa: TRY004 - a fault of the file
    try:
        return jsonschema_rs.validator_for(
            document, base_uri=source.as_uri(), retriever=_retrieve, validate_formats=True
        )
    except jsonschema_rs.ValidationError as error:
        where = json_pointer(error.instance_path)
        raise ValueError(
            f"the schema cannot be used: {where + ': ' if where else ''}{error.message}"
        ) from error
    except ValueError as error:
        raise ValueError(f"the schema cannot be used: {error}") from error


def _retrieve(uri: str, /) -> Any:
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise ValueError(f"{uri} is not a file, and nothing is fetched")
    return _read(Path(url2pathname(parts.path)))


def _read(file: Path) -> Any:
    """A file as JSON or YAML; raises ValueError with the reason where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error.reason}") from error
    try:
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deep") from error


def _describe(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    if not fault["loc"]:
        return f"an entry is an object with the members {', '.join(_NAMES)}"
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"there is no member {name!r}; {did_you_mean(name, _NAMES)}"
    if fault["type"] == "missing":
        return f"the member {name!r} is missing"
    if name == "schema":
        return "'schema' is a schema, or the name of a file that holds one"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}"
