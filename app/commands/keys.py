"""``tidegate key``: API keys are made, listed, revoked and replaced."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from app.commands.terminal import FAILED, WRONG_SETTINGS, duration, fail, moment, read_settings
from app.security.grant_lists import read_known_scopes
from app.security.grants import Grant
from app.security.key_records import (
    KeyRecord,
    find_keys,
    make_key,
    now,
    read_keys,
    rewritten_keys,
    written_time,
)

commands = typer.Typer(
    help="Make, list, revoke and replace API keys.", no_args_is_help=True, rich_markup_mode=None
)

File = Annotated[
    Path | None,
    typer.Option(help="The file of API keys. [env: TIDEGATE_API_KEYS_FILE]", show_default=False),
]
IdOrName = Annotated[str, typer.Argument(help="The key's id, or its name.", show_default=False)]
Expires = Annotated[
    str | None,
    typer.Option(help="For how long it holds (90d, 12h), or until when. [default: for ever]"),
]


@commands.command(epilog="Example: tidegate key create line-4 --publish 'plant-7/line-4/#' --expires 90d")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; what {sub} in a filter stands for.")],
    publish: Annotated[list[str] | None, typer.Option(help="A filter of topics to publish to.")] = None,
    subscribe: Annotated[list[str] | None, typer.Option(help="A filter to follow.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="What else: status:read, metrics:read, …")] = None,
    max_qos: Annotated[int, typer.Option(min=0, max=2, help="The highest QoS.")] = 2,
    retain: Annotated[bool, typer.Option("--retain/--no-retain", help="Allow retained messages.")] = True,
    expires: Expires = None,
    comment: Annotated[str, typer.Option(help="A note for people.", show_default=False)] = "",
    file: File = None,
) -> None:
    """Make an API key, and show it this once.

    The key goes to stdout, what is said about it to stderr. The file keeps its hash alone; a running bridge
    takes the key within two seconds.
    """
    with _changed(file) as (records, path):
        if any(each.name == name for each in find_keys(records, name)):
            raise ValueError(f"there is a key of the name {name!r}; 'tidegate key rotate {name}' replaces it")
        text, record = _made(
            name,
            _grants("--publish", publish, max_qos, may_retain=retain),
            _grants("--subscribe", subscribe, max_qos),
            read_known_scopes(scope or []),
            None if expires is None else moment(expires),
            comment,
        )
        records.append(record)
    _show(text, record, path)
    if not (publish or subscribe or scope):
        typer.echo("It allows nothing: give a new one --publish, --subscribe or --scope.", err=True)


@commands.command("list", epilog="Example: tidegate key list")
def show(file: File = None) -> None:
    """List the API keys, without their secrets."""
    path = _path(file)
    try:
        records = read_keys(path.read_bytes(), path)
    except ValueError as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", FAILED)
    for each in records:
        typer.echo(f"{each.id}  {each.name}  {_state(each)}")
        for verb, grants in (("publish", each.publish), ("subscribe", each.subscribe)):
            for grant in grants:
                limits = f" up to QoS {grant.max_qos}" if grant.max_qos < 2 else ""
                limits += "" if grant.may_retain else ", not retained"
                typer.echo(f"    {verb} {grant.topic_filter}{limits}")
        if each.scopes:
            typer.echo(f"    scopes {' '.join(sorted(each.scopes))}")
        if each.comment:
            typer.echo(f"    {each.comment}")


@commands.command(epilog="Example: tidegate key revoke line-4")
def revoke(key: IdOrName, file: File = None) -> None:
    """Revoke an API key, or all of a name.

    A running bridge refuses it within two seconds, and ends its streams.
    """
    with _changed(file) as (records, _):
        found = _found(records, key)
        for each in found:
            records[records.index(each)] = each.model_copy(update={"revoked_at": now()})
    for each in found:
        typer.echo(f"revoked {each.id} ({each.name})")


@commands.command(epilog="Example: tidegate key rotate line-4 --overlap 1d")
def rotate(
    key: IdOrName,
    overlap: Annotated[
        str | None,
        typer.Option(help="For how long the old key goes on to hold. [default: it is revoked]"),
    ] = None,
    expires: Expires = None,
    file: File = None,
) -> None:
    """Make a new API key that may do what an old one may, and show it this once.

    It holds for as long as the old one did from its making, where --expires does not say otherwise.
    """
    with _changed(file) as (records, path):
        found = _found(records, key)
        if len(found) > 1:
            ids = ", ".join(each.id for each in found)
            raise ValueError(f"there are several keys of the name {key!r}; name one by its id: {ids}")
        (old,) = found
        text, record = _made(
            old.name, old.publish, old.subscribe, old.scopes, _renewed(old, expires), old.comment
        )
        end = {"revoked_at": now()}
        if overlap is not None:
            until = now() + duration(overlap)
            end = {"expires_at": until if old.expires_at is None else min(until, old.expires_at)}
        records[records.index(old)] = old.model_copy(update=end)
        records.append(record)
    _show(text, record, path)


def _grants(
    option: str, filters: list[str] | None, max_qos: int, *, may_retain: bool = True
) -> tuple[Grant, ...]:
    """The grants that an option names; raises ValueError where one is none."""
    try:
        return tuple(Grant(each, max_qos, may_retain) for each in filters or ())
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _made(
    name: str,
    publish: tuple[Grant, ...],
    subscribe: tuple[Grant, ...],
    scopes: frozenset[str],
    expires_at: datetime | None,
    comment: str,
) -> tuple[str, KeyRecord]:
    """A new key and its record; raises ValueError where the name is none."""
    text, key_id, digest = make_key()
    try:
        record = KeyRecord(id=key_id, name=name, hash=digest, created_at=now(), comment=comment)
    except ValidationError:
        raise ValueError("a name has 1 to 256 characters, and no control characters") from None
    update = {"publish": publish, "subscribe": subscribe, "scopes": scopes, "expires_at": expires_at}
    return text, record.model_copy(update=update)


def _renewed(old: KeyRecord, expires: str | None) -> datetime | None:
    if expires is not None:
        return moment(expires)
    if old.expires_at is None or old.created_at is None:
        return None if old.expires_at is None else old.expires_at
    return now() + (old.expires_at - old.created_at)


def _found(records: list[KeyRecord], wanted: str) -> list[KeyRecord]:
    found = find_keys(records, wanted)
    if not found:
        names = {each.name for each in records if each.revoked_at is None}
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "'tidegate key list' shows all"
        raise ValueError(f"there is no key {wanted!r} that holds; {hint}")
    return found


def _state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {written_time(record.revoked_at)}"
    if record.expires_at is None:
        return "holds for ever"
    return f"{'expired' if record.expires_at <= now() else 'holds until'} {written_time(record.expires_at)}"


def _show(text: str, record: KeyRecord, path: Path) -> None:
    typer.echo(f"API key {record.id} of {record.name}, {_state(record)}; kept in {path} as a hash.", err=True)
    typer.echo("This is the only time that it is shown:", err=True)
    typer.echo(text)


def _path(file: Path | None) -> Path:
    path = read_settings(api_keys_file=file).api_keys_file
    if path is None:
        fail("there is no file of API keys; set TIDEGATE_API_KEYS_FILE, or give --file", WRONG_SETTINGS)
    return path


@contextmanager
def _changed(file: Path | None) -> Iterator[tuple[list[KeyRecord], Path]]:
    """The keys, to be changed; what is wrong is the end of the command."""
    path = _path(file)
    try:
        with rewritten_keys(path) as records:
            yield records, path
    except ValueError as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"{path} cannot be changed: {error.strerror}", FAILED)
