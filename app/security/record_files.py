"""Files of records about who may do what: a YAML or JSON object with one member, a list.

Rules:

1. A file that a person has to look at is text that a person can read: YAML, or JSON where the name ends in
   ``.json``.
2. A command changes it under a lock, and puts a whole new file in the place of the old one: nobody reads half
   of it, and of two commands at once neither loses what the other wrote.
3. It is for its owner's eyes alone (0600); a group that could read it before still can.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from app.problems import did_you_mean


class Record(BaseModel):
    """One entry of a file; what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


R = TypeVar("R", bound=Record)


def read_records(text: bytes, file: Path, model: type[R], member: str) -> list[R]:
    """The records of a file.

    Args:
        text: what is in it.
        file: its name, for how it is written and for errors.
        model: what a record is.
        member: the member of the object that has them.

    Raises:
        ValueError: it cannot be used; the text has the file, the entry and the reason.
    """
    content = _document(text, file)
    if not isinstance(content, dict) or list(content) != [member]:
        raise ValueError(f"{file}: it is an object with one member, {member!r}, a list of entries")
    listed = content[member]
    if listed is not None and not isinstance(listed, list):
        raise ValueError(f"{file}: {member!r} is a list")
    records = []
    for number, each in enumerate(listed or [], 1):
        try:
            records.append(model.model_validate(each))
        except ValidationError as error:
            raise ValueError(f"{file}: entry {number}: {_describe(error, model)}") from None
    return records


@contextlib.contextmanager
def rewritten(
    file: Path, model: type[R], member: str, write: Callable[[R], dict[str, Any]]
) -> Iterator[list[R]]:
    """The records of a file, to be changed; written when the block ends without an error.

    A file that is not there is made.

    Raises:
        ValueError: what is in the file cannot be used.
        OSError: it cannot be read or written.
    """
    file = Path(os.path.realpath(file))
    with _locked(file):
        try:
            records = read_records(file.read_bytes(), file, model, member)
        except FileNotFoundError:
            records = []
        before = list(records)
        yield records
        if records != before or not file.exists():
            document = {member: [write(each) for each in records]}
            _replace(file, _written(document, file))


def _document(text: bytes, file: Path) -> Any:
    try:
        decoded = text.decode("utf-8")
        return json.loads(decoded) if file.suffix == ".json" else yaml.load(decoded, yaml.CSafeLoader)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error.reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise ValueError(f"{file} is not YAML: {getattr(error, 'problem', 'it is broken')}{where}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{file} is nested too deep") from None


def _written(document: dict[str, Any], file: Path) -> str:
    if file.suffix == ".json":
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Wait until no other command changes the file."""
    descriptor = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    made = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileNotFoundError):
            old = file.stat()
            with contextlib.suppress(PermissionError):
                os.chown(made, old.st_uid, old.st_gid)
            made.chmod(0o600 | (old.st_mode & 0o060))
        made.replace(file)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _describe(error: ValidationError, model: type[Record]) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    names = list(model.model_fields)
    if not fault["loc"]:
        if fault["type"] == "value_error":
            return str(fault["msg"]).removeprefix("Value error, ")
        return f"an entry is an object with the members {', '.join(names)}"
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"there is no member {name!r}; {did_you_mean(name, names)}"
    if fault["type"] == "missing":
        return f"the member {name!r} is missing"
    return f"{name}: {str(fault['msg']).removeprefix('Value error, ')}"
