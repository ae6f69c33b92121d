"""The body of a credential's upload: parts as JSON, or a file of any form."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from pydantic import ValidationError

from app.api.credential_models import CredentialParts
from app.api.input.body import BodyReader, read_whole
from app.credentials.intake import Intake, Taken
from app.problems import ProblemError, ProblemType, json_pointer
from tidegate.bundles import Validity
from tidegate.errors import TLSError

MAX_BYTES: Final = 1024 * 1024
PASSPHRASE: Final = "Credential-Passphrase"  # noqa: S105 - the name of a header

JSON: Final = "application/json"
FILES: Final = (
    "application/octet-stream",
    "application/pem-certificate-chain",
    "application/pkcs12",
    "application/x-pem-file",
    "application/x-pkcs12",
    "application/x-x509-ca-cert",
    "application/zip",
)
"""Content types of files; what is in one is told by its bytes."""


async def read_credential(
    request: Request, name: str, bodies: BodyReader, intake: Intake, validity: Validity
) -> Taken:
    """Read and check what was uploaded.

    Raises:
        ProblemError: UNSUPPORTED_MEDIA_TYPE, MALFORMED_BODY, INVALID_BODY, INVALID_CREDENTIAL, BODY_TOO_LARGE
            or BODY_TIMEOUT.
    """
    told = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if told != JSON and told not in FILES:
        raise ProblemError(
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            f"a credential does not come as {told or 'a body without Content-Type'}",
            field="Content-Type",
            hint=f"send {JSON} with ca, certificate and private_key, or a file as {', '.join(FILES)}",
        )
    body = await read_whole(bodies, request)
    if not body:
        raise ProblemError(ProblemType.INVALID_CREDENTIAL, "the body is empty: there is no credential in it")
    parts = _read_parts(body) if told == JSON else None
    try:
        if parts is None:
            passphrase = request.headers.get(PASSPHRASE, "").encode("latin-1").decode("utf-8", "replace")
            return await intake.take_content(
                body, name=name, passphrase=passphrase, key_setting=PASSPHRASE, validity=validity
            )
        return await intake.take_parts(
            ca=parts.ca,
            certificate=parts.certificate,
            private_key=parts.private_key,
            passphrase=parts.passphrase or "",
            validity=validity,
        )
    except TLSError as error:
        is_part = parts is not None and error.file in CredentialParts.model_fields
        raise ProblemError(
            ProblemType.INVALID_CREDENTIAL, str(error), field=f"/{error.file}" if is_part else None
        ) from None


def _read_parts(body: bytes) -> CredentialParts | None:
    """The parts; None for another JSON document, which may have PEM in it."""
    try:
        return CredentialParts.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        if faults[0]["type"] == "json_invalid":
            raise ProblemError(ProblemType.MALFORMED_BODY, "the body is not JSON") from None
        if any(_is_member(body, name) for name in CredentialParts.model_fields):
            pointer = json_pointer(faults[0]["loc"])
            known = ", ".join(CredentialParts.model_fields)
            raise ProblemError(
                ProblemType.INVALID_BODY,
                f"{pointer or 'the body'}: {faults[0]['msg']}",
                field=pointer,
                hint=f"members are {known}, each a text",
            ) from None
        return None


def _is_member(body: bytes, name: str) -> bool:
    return f'"{name}"'.encode() in body
