"""What is wrong with the settings, in words: the variable, its value, and what it may be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, DirectoryPath, FilePath, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from app.settings import Settings
from app.settings.limits import check_rate
from app.settings.sources import PREFIX, variable

_SECRETS: Final = frozenset(
    {
        "broker_url",
        "broker_password",
        "credentials_key",
        "credentials_passphrase",
        "jwt_key",
        "redis_url",
    }
)
_SERVICE_LINKS: Final = (
    "Kubernetes sets it for a Service named 'tidegate'; set enableServiceLinks: false in the pod"
)


def describe_errors(error: ValidationError) -> str:
    """One line for each fault; the value of a secret is left out.

    Args:
        error: what ``Settings`` raised.
    """
    return "\n".join(_describe(each) for each in error.errors(include_url=False))


def allowed(field: FieldInfo) -> str:
    """What a setting may be, in words that end a sentence: ``a whole number from 0 to 65535``."""
    if any(isinstance(each, AfterValidator) and each.func is check_rate for each in field.metadata):
        return "a rate, as in `100/second` or `1000 per 5 minutes`"
    kind: Any = field.annotation
    if get_origin(kind) in {Union, UnionType}:
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "a list with commas"
    if kind in (FilePath, Path):
        return "the path of a file"
    if kind == DirectoryPath:
        return "the path of a directory"
    if kind is Path:
        return "a path"
    if kind is bool:
        return "true or false, 1 or 0"
    if kind is int:
        return "a whole number" + _bounds(field)
    if kind is float:
        return "a number" + _bounds(field)
    return "text"


def _bounds(field: FieldInfo) -> str:
    found = {
        name: getattr(each, name)
        for each in field.metadata
        for name in ("ge", "gt", "le")
        if hasattr(each, name)
    }
    low, above, high = found.get("ge"), found.get("gt"), found.get("le")
    if above is not None:
        return f" above {above}" + ("" if high is None else f", up to {high}")
    if low is not None:
        return f" from {low}" + (" up" if high is None else f" to {high}")
    return ""


def _describe(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return message
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return _describe_unknown(name)
    field = Settings.model_fields[name]
    if fault["type"] == "value_error":
        return f"{variable(name)}: {message}"
    given = fault["input"]
    if isinstance(given, SecretStr) or name in _SECRETS:
        return f"{variable(name)} is not allowed; write {allowed(field)}"
    if fault["type"] in {"path_not_file", "path_not_directory"}:
        what = "file" if fault["type"] == "path_not_file" else "directory"
        return f"{variable(name)}={str(given)!r}: there is no {what} at this path"
    hint = f"; {_SERVICE_LINKS}" if str(given).startswith("tcp://") else ""
    return f"{variable(name)}={given!r} is not allowed; write {allowed(field)}{hint}"


def _describe_unknown(name: str) -> str:
    upper = name.upper()
    if upper.startswith(("TIDEGATE_SERVICE_", "TIDEGATE_PORT_")):
        return f"{name} is no setting; {_SERVICE_LINKS}"
    # Without the prefix, which would make all names look alike.
    near = difflib.get_close_matches(upper.removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
    hint = f"did you mean {variable(near[0])}?" if near else "docs/configuration.md lists all of them"
    return f"{name} is no setting; {hint}"
