"""What the audit log records."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class AuditSettings(BaseSettings):
    """The settings of the audit log."""

    audit_publish_sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description="The share of allowed publishes that the audit log records; refusals always are.",
        examples=[1.0],
    )
    audit_max_refusals_per_second: int = Field(
        50,
        ge=1,
        description="Refusals that the audit log records a second; more are counted, and the count recorded.",
        examples=[10],
    )
