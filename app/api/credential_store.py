"""The store of TLS credentials as calls see it: there or not, and its errors as problems."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from fastapi import Path, Response

from app.credentials.in_use import CredentialInUse
from app.credentials.store import (
    CredentialActiveError,
    CredentialNotFoundError,
    CredentialStore,
    CredentialStoreError,
    CredentialUnreadableError,
    ReadOnlyStoreError,
)
from app.problems import ProblemError, ProblemType

STORE_PROBLEMS: Final = (
    ProblemType.UNKNOWN_PARAMETER,
    ProblemType.NO_CREDENTIAL_STORE,
    ProblemType.CREDENTIAL_STORE_UNAVAILABLE,
    ProblemType.INTERNAL_ERROR,
)
"""What any call may end in."""

Name = Annotated[
    str,
    Path(
        description="A name: 1 to 63 lower-case letters, digits and hyphens.",
        openapi_examples={"name": {"value": "plant-7"}},
    ),
]

_ERRORS: Final[tuple[tuple[type[CredentialStoreError], ProblemType], ...]] = (
    (CredentialNotFoundError, ProblemType.NO_CREDENTIAL),
    (CredentialActiveError, ProblemType.CREDENTIAL_ACTIVE),
    (ReadOnlyStoreError, ProblemType.CREDENTIALS_READ_ONLY),
    (CredentialUnreadableError, ProblemType.CREDENTIAL_UNREADABLE),
    (CredentialStoreError, ProblemType.CREDENTIAL_STORE_UNAVAILABLE),
)


@asynccontextmanager
async def opened(in_use: CredentialInUse, response: Response) -> AsyncIterator[CredentialStore]:
    """The store, for an answer that nobody may keep.

    Raises:
        ProblemError: there is none, or it fails.
    """
    response.headers["Cache-Control"] = "no-store"
    if in_use.store is None:
        raise ProblemError(
            ProblemType.NO_CREDENTIAL_STORE,
            "this bridge keeps no credentials",
            hint="set TIDEGATE_CREDENTIALS_DIR and TIDEGATE_CREDENTIALS_KEY, or TIDEGATE_CREDENTIALS_MOUNT",
        )
    try:
        yield in_use.store
    except CredentialStoreError as error:
        kind = next(kind for error_type, kind in _ERRORS if isinstance(error, error_type))
        raise ProblemError(kind, str(error)) from error
