"""Secrets that no record of the log shows, wherever the text with them came from.

The code logs no secret on purpose. This is the net beneath it: for an exception's text, or a URL that some
library quotes.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

_REDACTIONS: Final = (
    # Authorization: Bearer …, in whatever quotes
    (re.compile(r"""(?i)(authorization["']?\s*[:=,]\s*b?["']?(?:[a-z]+ +)?)[^\s"',;]+"""), r"\1" + HIDDEN),
    (re.compile(r"(?i)\b(bearer +)[\w.~+/-]+=*"), r"\1" + HIDDEN),
    # ?ticket=…, access_token=…, TIDEGATE_BROKER_PASSWORD=…
    (
        re.compile(r"""(?i)((?:ticket|token|password|passphrase|secret|api_?key)=)[^&\s"'#,;]+"""),
        r"\1" + HIDDEN,
    ),
    # mqtt://user:password@host; a password may hold an @ itself
    (re.compile(r"""(://[^\s/"'@:]*:)[^\s/"']*@"""), r"\1" + HIDDEN + "@"),
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}KEY-----|\Z)", re.DOTALL
        ),
        "[private key]",
    ),
)
"""What is looked for, and what takes its place; each looks at a text once, from one end to the other."""


def redact(text: str) -> str:
    """A text without credentials: tokens, passwords in URLs and queries, and private keys."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return text
