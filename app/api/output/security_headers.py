"""The headers that hold a browser back, on every answer.

The server writes them itself, so that no answer can lack them and none costs more for them.
``Strict-Transport-Security`` belongs to whoever ends TLS.
"""

from __future__ import annotations

from typing import Final

SECURITY_HEADERS: Final = (
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
