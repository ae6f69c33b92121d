"""What ``tidegate dev`` says once it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final

_PAYLOAD: Final = '{"hello": "from curl"}'
_SDK_LINE: Final = 'from tidegate import publish; publish("demo/hello")(lambda: {"hello": "from Python"})()'


def commands(bridge_url: str) -> tuple[str, str, str]:
    """Three commands to try, for a POSIX shell: publish, subscribe, and publish with the SDK.

    Args:
        bridge_url: where the bridge is.
    """
    stream = f"{bridge_url}/v1/subscribe?topic=demo/%23"
    return (
        f"curl --data {shlex.quote(_PAYLOAD)} {bridge_url}/v1/topics/demo/hello",
        f"curl --no-buffer {shlex.quote(stream)}",
        f"TIDEGATE_URL={bridge_url} {shlex.quote(_python())} -c {shlex.quote(_SDK_LINE)}",
    )


def banner(bridge_url: str, broker: str) -> str:
    """The whole text.

    Args:
        bridge_url: where the bridge is.
        broker: the broker in words, without a password.
    """
    publish, subscribe, program = commands(bridge_url)
    return f"""
Tidegate runs; Ctrl-C stops it.

  console  {bridge_url}/console?topic=demo/%23
  docs     {bridge_url}/docs
  broker   {broker}

Try in another terminal:

  # publish a message
  {publish}

  # follow topics, made-up sensors among them
  {subscribe}

  # publish from Python
  {program}
"""


def _python() -> str:
    """The Python that runs this, as it would be typed here."""
    program = Path(sys.executable)
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)
