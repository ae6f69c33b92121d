"""``/v1/credentials``: TLS credentials, kept, shown and deleted. No answer has a private key."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from app.api.credential_models import (
    CredentialAnswer,
    CredentialParts,
    CredentialsAnswer,
    UnreadableCredential,
)
from app.api.credential_store import STORE_PROBLEMS, Name, opened
from app.api.input.body import BodyReader
from app.api.input.credential_body import FILES, JSON, MAX_BYTES, PASSPHRASE, read_credential
from app.credentials.in_use import CredentialInUse
from app.credentials.intake import Intake
from app.credentials.store import (
    CredentialNotFoundError,
    CredentialUnreadableError,
    ReadOnlyStoreError,
    check_credential_name,
)
from app.problems import ProblemError, ProblemType, documented
from tidegate.bundles import Validity

Expired = Annotated[
    Validity,
    Query(
        description="`warn` takes certificates that have expired, or are not valid yet, with a warning.",
        openapi_examples={"warn": {"value": "warn"}},
    ),
]

_PARTS: Final = {
    "ca": "-----BEGIN CERTIFICATE-----\n…",
    "certificate": "-----BEGIN CERTIFICATE-----\n…",
    "private_key": "-----BEGIN PRIVATE KEY-----\n…",
}


def create_router(in_use: CredentialInUse, *, body_timeout_seconds: float) -> APIRouter:
    """The calls.

    Args:
        in_use: what the bridge connects with, and its store.
        body_timeout_seconds: how long a body may take.
    """
    router = APIRouter(tags=["credentials"])
    bodies = BodyReader(max_bytes=MAX_BYTES, timeout_seconds=body_timeout_seconds)
    intake = Intake()

    @router.get(
        "/v1/credentials",
        operation_id="list_credentials",
        summary="List the TLS credentials.",
        responses=documented(*STORE_PROBLEMS),
    )
    async def list_credentials(response: Response) -> CredentialsAnswer:
        """Names, validity and fingerprints; needs the scope `credentials:read`."""
        found: list[CredentialAnswer] = []
        unreadable: list[UnreadableCredential] = []
        async with opened(in_use, response) as store:
            for name in await store.names():
                try:
                    found.append(CredentialAnswer.of(await store.read(name), in_use.credential))
                except CredentialNotFoundError:
                    continue  # deleted meanwhile
                except CredentialUnreadableError as error:
                    unreadable.append(UnreadableCredential(name=name, reason=str(error)))
        return CredentialsAnswer(credentials=found, unreadable=unreadable)

    @router.get(
        "/v1/credentials/{name}",
        operation_id="get_credential",
        summary="Show a TLS credential.",
        responses=documented(*STORE_PROBLEMS, ProblemType.NO_CREDENTIAL, ProblemType.CREDENTIAL_UNREADABLE),
    )
    async def get_credential(name: Name, response: Response) -> CredentialAnswer:
        """What it consists of, without the key; needs the scope `credentials:read`."""
        async with opened(in_use, response) as store:
            return CredentialAnswer.of(await store.read(name), in_use.credential)

    @router.put(
        "/v1/credentials/{name}",
        operation_id="put_credential",
        summary="Keep a TLS credential.",
        responses={
            200: {"description": "It took the place of the version before."},
            201: {"description": "It is new.", "model": CredentialAnswer},
            **documented(
                *STORE_PROBLEMS,
                ProblemType.INVALID_PARAMETER,
                ProblemType.REPEATED_PARAMETER,
                ProblemType.MALFORMED_BODY,
                ProblemType.BODY_TIMEOUT,
                ProblemType.CREDENTIALS_READ_ONLY,
                ProblemType.BODY_TOO_LARGE,
                ProblemType.UNSUPPORTED_MEDIA_TYPE,
                ProblemType.INVALID_BODY,
                ProblemType.INVALID_CREDENTIAL,
            ),
        },
        openapi_extra=_upload(),
    )
    async def put_credential(
        name: Name, request: Request, response: Response, expired: Expired = "refuse"
    ) -> CredentialAnswer:
        """Checks it and keeps it, encrypted: JSON with its parts, or a file (ZIP, PEM, PKCS#12, DER).

        The parts of a file are known by what they hold. A new version of the credential in use is taken into
        use by itself. Needs the scope `credentials:write`.
        """
        async with opened(in_use, response) as store:
            if not store.is_writable:
                raise ReadOnlyStoreError("credentials come from a mounted Secret: change the Secret")
            try:
                check_credential_name(name)
            except ValueError as error:
                raise ProblemError(ProblemType.INVALID_PARAMETER, str(error), field="name") from None
            taken = await read_credential(request, name, bodies, intake, expired)
            if not (taken.bundle.certificate or taken.bundle.authorities):
                raise ProblemError(ProblemType.INVALID_CREDENTIAL, "there is nothing in it to keep")
            is_new = name not in await store.names()
            credential = await store.write(name, taken.bundle)
            response.status_code = 201 if is_new else 200
            return CredentialAnswer.of(credential, in_use.credential, taken.warnings)

    @router.delete(
        "/v1/credentials/{name}",
        operation_id="delete_credential",
        summary="Delete a TLS credential.",
        status_code=204,
        responses=documented(
            *STORE_PROBLEMS,
            ProblemType.NO_CREDENTIAL,
            ProblemType.CREDENTIAL_ACTIVE,
            ProblemType.CREDENTIALS_READ_ONLY,
        ),
    )
    async def delete_credential(name: Name, response: Response) -> None:
        """One that is in use stays; needs the scope `credentials:write`."""
        async with opened(in_use, response) as store:
            await store.delete(name)

    return router


def _upload() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}, "example": "the bytes of the file"}
    return {
        "parameters": [
            {
                "name": PASSPHRASE,
                "in": "header",
                "required": False,
                "description": "What opens an encrypted key in a file; JSON has a member for it.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": CredentialParts.model_json_schema(), "example": _PARTS},
                **dict.fromkeys(FILES, binary),
            },
        },
    }
