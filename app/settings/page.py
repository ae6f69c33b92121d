"""Makes docs/configuration.md from the settings.

python -m app.settings.page > docs/configuration.md
"""

from __future__ import annotations

import sys
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings
from app.settings.errors import allowed
from app.settings.sources import variable

_HEAD: Final = """\
# Configuration

Everything is set by environment variables, and read once, at the start. This page is made from
`app/settings/` by `python -m app.settings.page`; a test holds the two together.

- An option of `tidegate serve` wins over its variable. A variable wins over a file of the same name in the
  directory that `TIDEGATE_SECRETS_DIR` names, which is how mounted secrets are read.
- An empty variable counts as one that is not there. Upper and lower case are the same in names.
- A name that begins with `TIDEGATE_` and stands nowhere below is refused, with the nearest that does. Those
  that the SDK reads are let be: `TIDEGATE_URL`, `TIDEGATE_TOKEN`, `TIDEGATE_TLS`, `TIDEGATE_TLS_PASSPHRASE`.
- A value that cannot be used stops the start with status 2 and one line that names the variable and what it
  may be.
- Durations are in seconds, sizes in bytes; the names say so.

"""

_SECTIONS: Final[tuple[tuple[str, str], ...]] = (
    ("The broker", "broker_url"),
    ("TLS credentials", "credentials_dir"),
    ("Publishing", "max_body_bytes"),
    ("Several replicas", "redis_url"),
    ("Schemas and events", "schemas_file"),
    ("Requests", "reply_topic_prefix"),
    ("Streams", "heartbeat_seconds"),
    ("Retained messages", "retained_timeout_seconds"),
    ("API keys", "api_keys_file"),
    ("Tokens", "jwt_key"),
    ("Client certificates behind a proxy", "proxy_subject_header"),
    ("Connections and WebSockets", "max_connections"),
    ("Rates", "rate_limit_requests"),
    ("The HTTP server", "host"),
    ("Stopping", "drain_seconds"),
    ("Access", "cors_origins"),
    ("Logs and secrets", "log_level"),
    ("The audit log", "audit_publish_sample"),
)
"""Each section and the field that it begins with, in the order of the class."""


def render() -> str:
    """The whole page."""
    titles = {first: title for title, first in _SECTIONS}
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in titles:
            lines += [*([""] if lines else []), f"## {titles[name]}", ""]
            lines += [
                "| variable | meaning | may be | default | example |",
                "| --- | --- | --- | --- | --- |",
            ]
        lines.append(_row(name, field))
    return _HEAD + "\n".join(lines) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    assert field.description is not None
    example = field.examples[0] if field.examples else ""
    cells = (
        f"`{variable(name)}`",
        field.description,
        allowed(field),
        shown(field.default),
        f"`{variable(name)}={example}`",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def shown(value: Any) -> str:
    """A default as the page shows it."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(render())
