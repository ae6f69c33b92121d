"""Makes the chart's ``files/settings.yaml``: which settings the bridge has, and what each may be.

Helm reads no Python, so what ``Settings`` says is written down for it. The chart refuses with that what the
bridge would refuse once it is started.
"""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings
from app.settings.errors import allowed
from app.settings.limits import check_rate
from app.settings.sources import variable

_HEAD: Final = "# Made by make manifests from app/settings; not to be edited.\n"

_PATTERNS: Final[dict[Any, str]] = {
    bool: "(?i)^(true|false|1|0|yes|no|on|off|t|f|y|n)$",
    int: "^[0-9]+$",
    float: "^[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$",
}
_RATE: Final = "(?i)^[0-9]+ ?(/|per )"
_BOUNDS: Final = {"ge": "least", "gt": "above", "le": "most"}


def render_settings() -> str:
    """The whole file, in the order of the class."""
    known = {variable(name): _described(field) for name, field in Settings.model_fields.items()}
    return _HEAD + yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=110)


def _described(field: FieldInfo) -> dict[str, Any]:
    """What may be written, in words and for a machine.

    A value that the bridge looks at more closely, such as a URL, is text here.
    """
    found: dict[str, Any] = {"words": allowed(field)}
    if any(isinstance(each, AfterValidator) and each.func is check_rate for each in field.metadata):
        return found | {"pattern": _RATE}
    kind: Any = field.annotation
    if get_origin(kind) in {Union, UnionType}:
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if kind is SecretStr:
        return found | {"secret": True}
    if get_origin(kind) is Literal:
        takes_any_case = any(isinstance(each, BeforeValidator) for each in field.metadata)
        choices = "|".join(re.escape(each) for each in get_args(kind))
        return found | {"pattern": f"{'(?i)' if takes_any_case else ''}^({choices})$"}
    if kind not in _PATTERNS:
        return found
    bounds = {
        name: getattr(each, bound)
        for each in field.metadata
        for bound, name in _BOUNDS.items()
        if hasattr(each, bound)
    }
    return found | {"pattern": _PATTERNS[kind]} | bounds
