"""``/v1/credentials/{name}/…``: TLS credentials, tried at a broker and taken into use."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.types import Scope

from app.api.credential_models import (
    ActivationAnswer,
    ActivationsAnswer,
    CredentialAnswer,
    TestAnswer,
    TestTarget,
)
from app.api.credential_store import STORE_PROBLEMS, Name, opened
from app.api.input.body import BodyReader, read_whole, require_json
from app.api.input.credential_body import JSON, MAX_BYTES
from app.credentials.in_use import CredentialInUse
from app.credentials.store import Credential
from app.credentials.targets import ForbiddenTargetError, Targets
from app.diagnosis.credential import examine_credential
from app.problems import ProblemError, ProblemType, documented, json_pointer
from tidegate.connection import ConnectOptions
from tidegate.errors import ConfigurationError, MQTTError, TLSError

ALL: Final = "-"
"""In place of a name: all of them. No credential can be called so."""


def create_router(in_use: CredentialInUse, targets: Targets, *, body_timeout_seconds: float) -> APIRouter:
    """The calls.

    Args:
        in_use: what the bridge connects with, and its store.
        targets: the brokers that credentials may be tried at.
        body_timeout_seconds: how long a body may take.
    """
    router = APIRouter(tags=["credentials"])
    bodies = BodyReader(max_bytes=MAX_BYTES, timeout_seconds=body_timeout_seconds)

    @router.post(
        "/v1/credentials/{name}/test",
        operation_id="test_credential",
        summary="Try a TLS credential at a broker.",
        responses=documented(
            *STORE_PROBLEMS,
            ProblemType.INVALID_PARAMETER,
            ProblemType.MALFORMED_BODY,
            ProblemType.FORBIDDEN_TARGET,
            ProblemType.NO_CREDENTIAL,
            ProblemType.BODY_TIMEOUT,
            ProblemType.BODY_TOO_LARGE,
            ProblemType.UNSUPPORTED_MEDIA_TYPE,
            ProblemType.INVALID_BODY,
            ProblemType.INVALID_CREDENTIAL,
            ProblemType.CREDENTIAL_UNREADABLE,
        ),
        openapi_extra={
            "requestBody": {
                "required": False,
                "content": {JSON: {"schema": TestTarget.model_json_schema(), "example": {}}},
            }
        },
    )
    async def test_credential(name: Name, request: Request, response: Response) -> TestAnswer:
        """Looks the name up, connects, shakes hands, says CONNECT and leaves; nothing is changed.

        200 also where a step failed: `ok` and `steps` tell which, why, and what to do. Needs the scope
        `credentials:write`.
        """
        async with opened(in_use, response) as store:
            credential = await store.read(name)
            body = await read_whole(bodies, request)
            options = _target(body, request, in_use, targets, credential)
            is_configured = targets.is_configured_address(options)
            report = await examine_credential(
                credential.bundle, options, may_reach=None if is_configured else targets.may_reach
            )
            return TestAnswer.of(credential, f"{options.host}:{options.port}", report)

    @router.post(
        "/v1/credentials/{name}/activate",
        operation_id="activate_credential",
        summary="Take a TLS credential into use.",
        responses=documented(
            *STORE_PROBLEMS,
            ProblemType.NO_CREDENTIAL,
            ProblemType.CREDENTIAL_UNREADABLE,
            ProblemType.ACTIVATION_FAILED,
        ),
    )
    async def activate_credential(name: Name, request: Request, response: Response) -> CredentialAnswer:
        """Connects with it, goes over to that connection, and leaves the one before; no stream notices.

        Where that fails everything stays as it was. Needs the scope `credentials:write`.
        """
        async with opened(in_use, response):
            try:
                credential = await in_use.activate(name, by=subject_of(request.scope))
            except MQTTError as error:
                raise ProblemError(
                    ProblemType.ACTIVATION_FAILED,
                    f"{error}; what was in use before stays",
                    hint=f"POST /v1/credentials/{name}/test tells the step that fails, and what to do",
                ) from error
            return CredentialAnswer.of(credential, in_use.credential)

    @router.get(
        "/v1/credentials/{name}/activations",
        operation_id="list_activations",
        summary="When was a TLS credential taken into use?",
        responses=documented(*STORE_PROBLEMS),
    )
    async def list_activations(name: Name, response: Response) -> ActivationsAnswer:
        """Of one credential, or of all where the name is `-`; needs the scope `credentials:read`."""
        async with opened(in_use, response) as store:
            return ActivationsAnswer(
                activations=[
                    ActivationAnswer.of(each) for each in await store.history() if name in {ALL, each.name}
                ]
            )

    return router


def subject_of(scope: Scope) -> str:
    """Who makes a request."""
    principal = scope.get("tidegate.principal")
    return "anonymous" if principal is None else str(principal.subject)


def _target(
    body: bytes, request: Request, in_use: CredentialInUse, targets: Targets, credential: Credential
) -> ConnectOptions:
    """Where to try a credential, and how.

    Raises:
        ProblemError: the body, or the broker that it names, cannot be used.
    """
    wanted = TestTarget(url=None)
    if body:
        require_json(_content_type(request), 'send {"url": "mqtts://broker.example:8883"}, or no body')
        try:
            wanted = TestTarget.model_validate_json(body)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
            if fault["type"] == "json_invalid":
                raise ProblemError(ProblemType.MALFORMED_BODY, "the body is not JSON") from None
            pointer = json_pointer(fault["loc"])
            raise ProblemError(
                ProblemType.INVALID_BODY, f"{pointer or 'the body'}: {fault['msg']}", field=pointer
            ) from None
    try:
        options = in_use.options if wanted.url is None else targets.options_for(wanted.url)
    except ForbiddenTargetError as error:
        raise ProblemError(ProblemType.FORBIDDEN_TARGET, str(error), field="/url") from None
    except ConfigurationError as error:
        raise ProblemError(ProblemType.INVALID_BODY, str(error), field="/url") from None
    if options.tls is None:
        raise ProblemError(
            ProblemType.INVALID_BODY,
            "the configured broker has no TLS: name one that has",
            field="/url",
            hint="begin TIDEGATE_BROKER_URL with mqtts or wss",
        )
    try:
        return replace(options, tls=credential.bundle.context())
    except TLSError as error:
        raise ProblemError(ProblemType.INVALID_CREDENTIAL, str(error)) from error


def _content_type(request: Request) -> bytes | None:
    found = request.headers.get("content-type")
    return None if found is None else found.encode("latin-1")
