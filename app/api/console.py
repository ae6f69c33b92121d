"""``/console``: the page, its script and its style, with nothing from another host."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse

from app import console

STATIC: Final = Path(console.__file__).parent / "static"
MEDIA_TYPES: Final = {
    "console.css": "text/css",
    **dict.fromkeys(
        (
            "access.js",
            "account.js",
            "advice.js",
            "details.js",
            "events.js",
            "feed.js",
            "format.js",
            "main.js",
            "publish.js",
            "topics.js",
            "tree.js",
        ),
        "text/javascript",
    ),
    "icon.svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
)
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(POLICY),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/console")
async def get_console() -> FileResponse:
    """The page."""
    return FileResponse(STATIC / "index.html", media_type="text/html", headers=HEADERS)


def _add(name: str, media_type: str) -> None:
    async def get_file() -> FileResponse:
        return FileResponse(STATIC / name, media_type=media_type, headers=HEADERS)

    router.add_api_route(f"/console/{name}", get_file, name=name)


for _name, _media_type in MEDIA_TYPES.items():
    _add(_name, _media_type)
