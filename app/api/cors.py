"""Which web pages may read the answers (CORS, the Fetch standard §3.2).

It stands in front of the guard: a browser asks beforehand without showing who makes the request, and a page
has to be able to read why it was refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app.api.input import headers, idempotency_key
from app.api.input.cloud_event import EVENT_HEADERS
from app.publishing.trace_context import NAMES

ALLOWED_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    idempotency_key.IDEMPOTENCY_KEY,
    *headers.REQUEST_HEADERS,
    *EVENT_HEADERS,
    *NAMES,
)
EXPOSED_HEADERS: Final = (
    "Last-Event-ID",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    idempotency_key.IDEMPOTENCY_REPLAYED,
    *headers.ANSWER_HEADERS,
    *EVENT_HEADERS,
    *NAMES,
)


def add_cors(app: FastAPI, origins: Sequence[str], *, allow_credentials: bool) -> None:
    """Let pages of these origins read answers.

    Args:
        app: the application.
        origins: each by name; there is no wildcard.
        allow_credentials: the pages' requests may carry cookies.
    """
    if not origins:
        return
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["DELETE", "GET", "POST", "PUT"],
        allow_headers=ALLOWED_HEADERS,
        allow_credentials=allow_credentials,
        expose_headers=EXPOSED_HEADERS,
    )
