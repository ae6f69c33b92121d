"""Everything that can be set: one class, put together from one module a subject."""

from app.settings.server import is_loopback
from app.settings.settings import Settings

__all__ = ["Settings", "is_loopback"]
