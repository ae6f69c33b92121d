"""What ``tidegate dev`` says once it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final

from app.settings import Settings

_PAYLOAD: Final = '{"hello": "from curl"}'
_GRANTS: Final = "--publish 'demo/#' --subscribe 'demo/#'"
_SDK_LINE: Final = 'from tidegate import publish; publish("demo/hello")(lambda: {"hello": "from Python"})()'


def commands(bridge_url: str, *, with_key: bool) -> tuple[str, str, str]:
    """Three commands to try, for a POSIX shell: publish, subscribe, and publish with the SDK.

    Args:
        bridge_url: where the bridge is.
        with_key: they send what is in the shell's variable ``KEY``.
    """
    stream = f"{bridge_url}/v1/subscribe?topic=demo/%23"
    curl = 'curl --header "Authorization: Bearer $KEY"' if with_key else "curl"
    token = 'TIDEGATE_TOKEN="$KEY" ' if with_key else ""
    return (
        f"{curl} --data {shlex.quote(_PAYLOAD)} {bridge_url}/v1/topics/demo/hello",
        f"{curl} --no-buffer {shlex.quote(stream)}",
        f"{token}TIDEGATE_URL={bridge_url} {shlex.quote(_typed(sys.executable))} -c {shlex.quote(_SDK_LINE)}",
    )


def key_needed(settings: Settings) -> str:
    """What a caller has to do before the commands, as comments and a command; empty where nothing is.

    A secret stands in none of it.

    Args:
        settings: those of the bridge.
    """
    program = shlex.quote(_typed(Path(sys.executable).with_name("tidegate")))
    if settings.api_keys_file is not None:
        file = shlex.quote(str(settings.api_keys_file.absolute()))
        return (
            "# callers need an API key: make one, or set KEY to yours; the console asks for it (echo $KEY)\n"
            f"  KEY=$({program} key create demo {_GRANTS} --file {file})"
        )
    if settings.jwt_key.get_secret_value() or settings.jwt_key_file is not None:
        return (
            "# callers need a token: set KEY to yours; the console asks for it (echo $KEY)\n"
            "  # with a secret, and the settings TIDEGATE_JWT_… of this terminal, one is made:\n"
            f"  KEY=$({program} token create --sub demo {_GRANTS})"
        )
    if settings.has_tokens:
        return "# callers need a token of your issuer; the console asks for it\n  KEY=…"
    if settings.has_authentication:
        return "# callers need a client certificate: send these through the proxy that asks for it"
    return ""


def banner(bridge_url: str, broker: str, settings: Settings) -> str:
    """The whole text.

    Args:
        bridge_url: where the bridge is.
        broker: the broker in words, without a password.
        settings: those of the bridge, which say whether callers need a key.
    """
    publish, subscribe, program = commands(
        bridge_url, with_key=settings.api_keys_file is not None or settings.has_tokens
    )
    key = key_needed(settings)
    first = f"  {key}\n\n" if key else ""
    return f"""
Tidegate runs; Ctrl-C stops it.

  console  {bridge_url}/console?topic=demo/%23
  docs     {bridge_url}/docs
  broker   {broker}

Try in another terminal:

{first}  # publish a message
  {publish}

  # follow topics, made-up sensors among them
  {subscribe}

  # publish from Python
  {program}
"""


def _typed(program: str | Path) -> str:
    """A program, as it would be typed here."""
    program = Path(program)
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)
