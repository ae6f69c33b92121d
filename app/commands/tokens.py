"""``tidegate token``: tokens to try things with, and the end of those that are out."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.terminal import FAILED, WRONG_SETTINGS, duration, fail, read_settings
from app.security.grant_lists import read_grants, read_scopes
from tidegate.errors import ConfigurationError

commands = typer.Typer(
    help="Make tokens to try, and revoke tokens.", no_args_is_help=True, rich_markup_mode=None
)


@commands.command(
    epilog="Example: tidegate token create --sub line-4 --publish 'plant-7/{sub}/#' --expires 1h"
)
def create(
    sub: Annotated[str, typer.Option(help="Whose token it is.", show_default=False)],
    publish: Annotated[list[str] | None, typer.Option(help="A filter of topics to publish to.")] = None,
    subscribe: Annotated[list[str] | None, typer.Option(help="A filter to follow.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="What else: status:read, metrics:read, …")] = None,
    expires: Annotated[str, typer.Option(help="For how long it holds.")] = "1h",
) -> None:
    """Sign a token with the secret in TIDEGATE_JWT_KEY or TIDEGATE_JWT_KEY_FILE.

    For trying things and for tests; elsewhere an identity provider issues tokens. Issuer and audience are
    those that the bridge asks for.
    """
    import jwt  # noqa: PLC0415 - loaded where it is used

    from app.security.configured import verification_key_of  # noqa: PLC0415

    settings = read_settings()
    if not settings.jwt_key.get_secret_value() and settings.jwt_key_file is None:
        fail("there is no secret to sign with; set TIDEGATE_JWT_KEY or TIDEGATE_JWT_KEY_FILE", WRONG_SETTINGS)
    try:
        key = verification_key_of(settings)
    except ConfigurationError as error:
        fail(str(error), WRONG_SETTINGS)
    if not isinstance(key.key, bytes):
        fail("the configured key is public: it verifies tokens, and signs none", WRONG_SETTINGS)
    seconds = int(time.time())
    try:
        read_grants(publish or [])
        read_grants(subscribe or [])
        read_scopes(scope or [])
        claims: dict[str, Any] = {
            "sub": sub,
            "iat": seconds,
            "exp": seconds + int(duration(expires).total_seconds()),
            "jti": uuid.uuid4().hex,
            "mqtt": {"publish": publish or [], "subscribe": subscribe or []},
        }
    except ValueError as error:
        fail(str(error), FAILED)
    if scope:
        claims["scope"] = " ".join(scope)
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience[0]
    typer.echo(jwt.encode(claims, key.key, algorithm=min(key.algorithms)))


@commands.command(epilog="Example: tidegate token revoke --sub line-4")
def revoke(
    jti: Annotated[str | None, typer.Option(help="The id of one token.", show_default=False)] = None,
    sub: Annotated[
        str | None, typer.Option(help="Whose tokens: all that were issued until now.", show_default=False)
    ] = None,
    comment: Annotated[str, typer.Option(help="A note for people.", show_default=False)] = "",
    file: Annotated[
        Path | None,
        typer.Option(help="The file. [env: TIDEGATE_REVOKED_TOKENS_FILE]", show_default=False),
    ] = None,
) -> None:
    """Revoke a token by its id (jti), or all tokens of a subject (sub).

    A running bridge refuses them within two seconds, and ends their streams.
    """
    from app.security.key_records import now  # noqa: PLC0415 - loaded where it is used
    from app.security.revoked_tokens import Revocation, rewritten_revocations  # noqa: PLC0415

    if (jti is None) == (sub is None):
        fail("give either --jti or --sub", WRONG_SETTINGS)
    path = file or read_settings().revoked_tokens_file
    if path is None:
        fail(
            "there is no file of revoked tokens; set TIDEGATE_REVOKED_TOKENS_FILE, or give --file",
            WRONG_SETTINGS,
        )
    # Times in tokens are whole seconds: the one that runs counts too.
    before = None if sub is None else now() + timedelta(seconds=1)
    try:
        with rewritten_revocations(path) as records:
            records.append(Revocation(jti=jti, sub=sub, before=before, revoked_at=now(), comment=comment))
    except ValueError as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"{path} cannot be changed: {error.strerror}", FAILED)
    typer.echo(f"revoked {'the token ' + jti if jti is not None else f'all tokens of {sub} until now'}")
