"""The operations of the routes that are read by hand, as the OpenAPI document has them.

Their parameters and bodies come from the models that read them, their errors from the table of problems.
"""

from __future__ import annotations

from typing import Any

from app.api.operations import publishing, requests, subscribing, tickets


def paths() -> dict[str, Any]:
    """Each path with its operations."""
    return {**publishing.paths(), **requests.paths(), **subscribing.paths(), **tickets.paths()}
