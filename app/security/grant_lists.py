"""Reading grants and scopes from JSON or YAML: of an API key, a token's claims, a certificate's subject.

    ["plant-7/#", {"filter": "devices/{sub}/state", "qos": 1, "retain": false}]

What is malformed is an error in words. Nothing of it is dropped, and nothing taken for more than it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.problems import did_you_mean
from app.security.grants import Grant
from app.security.principal import Permission

_MEMBERS: Final = ("filter", "qos", "retain")
_is_scope: Final = re.compile(r"[!#-\[\]-~]+").fullmatch
"""One scope (RFC 6749 §3.3)."""


def read_grants(value: Any) -> tuple[Grant, ...]:
    """A list of grants.

    Raises:
        ValueError: it is none; the text says which entry is wrong, and why.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError("it is a list of topic filters")  # noqa: TRY004 - a fault of what was read
    grants = []
    for number, each in enumerate(value, 1):
        try:
            grants.append(_read_grant(each))
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}") from None
    return tuple(grants)


def read_scopes(value: Any) -> frozenset[str]:
    """Scopes, as a list or with spaces between them (RFC 6749 §3.3); those that mean nothing here included.

    Raises:
        ValueError: it is neither.
    """
    names = value.split(" ") if isinstance(value, str) else value
    if not isinstance(names, Sequence):
        raise ValueError("it is a text with spaces between the scopes, or a list")  # noqa: TRY004 - as above
    names = [each for each in names if each != ""]
    for each in names:
        if not isinstance(each, str) or not _is_scope(each):
            raise ValueError(f"{each!r} is no scope")
    return frozenset(names)


def read_known_scopes(value: Any) -> frozenset[str]:
    """Scopes that mean something here.

    Raises:
        ValueError: one does not; the text has the nearest that does.
    """
    known = [each.value for each in Permission]
    scopes = read_scopes(value)
    for each in sorted(scopes):
        if each not in known:
            raise ValueError(f"there is no scope {each!r}; {did_you_mean(each, known)}")
    return scopes


def written_grants(grants: Iterable[Grant]) -> list[Any]:
    """Grants as ``read_grants`` reads them: a text where nothing but the filter is said."""
    return [_written(each) for each in grants]


def _read_grant(value: Any) -> Grant:
    if isinstance(value, str):
        return Grant(value)
    if not isinstance(value, dict):
        raise ValueError("a grant is a topic filter, or an object with filter, qos and retain")  # noqa: TRY004
    for name in value:
        if name not in _MEMBERS:
            raise ValueError(f"there is no member {name!r}; {did_you_mean(str(name), _MEMBERS)}")
    topic_filter, qos, may_retain = value.get("filter"), value.get("qos", 2), value.get("retain", True)
    if not isinstance(topic_filter, str):
        raise ValueError("the member 'filter' is a topic filter, and has to be there")  # noqa: TRY004
    if type(qos) is not int or qos not in (0, 1, 2):
        raise ValueError("'qos' is 0, 1 or 2, the highest that is granted")
    if not isinstance(may_retain, bool):
        raise ValueError("'retain' is true or false")  # noqa: TRY004
    return Grant(topic_filter, qos, may_retain)


def _written(grant: Grant) -> Any:
    if grant.max_qos == 2 and grant.may_retain:
        return grant.topic_filter
    return {"filter": grant.topic_filter, "qos": grant.max_qos, "retain": grant.may_retain}
