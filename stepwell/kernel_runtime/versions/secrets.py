"""Which names are those of secrets: their values are never kept or shown as text."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"token|secret|passw|passphrase|credential|api_?key|apikey|private_?key|access_?key|auth|bearer|cookie|(?:^|_)pwd(?:_|$)",
    re.IGNORECASE,
)
_IN_TEXT = re.compile(r"(?i)(?:^|[\"'\s{,(])[\w-]*(?:token|secret|passw|api_?key|private_?key|access_?key|credential)[\w-]*[\"']?\s*[:=]|://[^/\s:@]+:[^/\s@]+@|\b(?:sk|ghp|gho|xox[abp])[-_][\w-]{10,}")


def looks_secret(name: str, text: str = "") -> bool:
    """Whether a value must not be shown: by its name, or because its text itself names or looks like a secret."""
    return bool(_SECRET.search(name)) or bool(text and _IN_TEXT.search(text))
