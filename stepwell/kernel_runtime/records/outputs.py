"""What a step printed and displayed, kept so that a hit can show it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

OutputKind: TypeAlias = Literal["stream", "display_data", "update_display_data", "clear_output", "signature"]


@dataclass(frozen=True, slots=True)
class CapturedOutput:
    """One output in the notebook format's terms."""

    kind: OutputKind
    stream: str = ""
    """``stdout`` or ``stderr`` for a stream."""
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    """The MIME bundle of a display."""
    metadata: dict[str, Any] = field(default_factory=dict)
