"""``/docs``: the API's description as a page that loads nothing from another host; ``/asyncapi.json``."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

PATH: Final = "/docs"
OPENAPI: Final = "/openapi.json"
ASYNCAPI: Final = "/asyncapi.json"
FILES: Final = "/static-offline-docs"
"""Where fastapi-offline serves the page's own files."""

_scripts: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL).findall
_POLICY: Final = (
    "default-src 'none'",
    "style-src 'self' 'unsafe-inline'",  # the page sets styles of elements; there is no other way to allow it
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)

router = APIRouter(include_in_schema=False)


@router.get(ASYNCAPI)
async def get_asyncapi(request: Request) -> Response:
    """What streams and the WebSocket carry (AsyncAPI 3); made once and kept with the application."""
    state = request.app.state
    if not hasattr(state, "described_streams"):
        state.described_streams = orjson.dumps(state.describe_streams())
    return Response(state.described_streams, media_type="application/json")


@router.get(PATH)
async def get_docs(request: Request) -> HTMLResponse:
    """The page. Its one inline script is allowed by its hash, and none that anybody put in could run."""
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}{OPENAPI}",
        title="Tidegate",
        swagger_js_url=f"{root}{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{root}{FILES}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    hashes = [base64.b64encode(sha256(each).digest()).decode() for each in _scripts(bytes(page.body))]
    scripts = " ".join(["script-src 'self'", *(f"'sha256-{each}'" for each in hashes)])
    page.headers["Content-Security-Policy"] = "; ".join([*_POLICY, scripts])
    page.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    page.headers["Cache-Control"] = "no-cache"
    return page
