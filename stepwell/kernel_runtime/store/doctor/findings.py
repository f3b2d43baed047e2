"""What the doctor finds: plain data, one line and a remedy each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from stepwell.kernel_runtime.text import printable

Status: TypeAlias = Literal["ok", "warning", "problem", "unusable"]
SIGNS: dict[Status, str] = {"ok": "✓", "warning": "!", "problem": "✗", "unusable": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    """What: ``locks``, ``mount``, ``permissions``, ``key``, ``disk``, ``versions``, ``catalog``, ``values``, ``missing``, ``orphans``, ``leftovers``, ..."""
    status: Status
    """``warning``: good to know; ``problem``: to be mended; ``unusable``: the store cannot be used as it is."""
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for machines: counts, bytes, names."""

    def __str__(self) -> str:
        return printable(
            f"{SIGNS[self.status]} {self.about}: {self.text}" + (f"\n  {self.remedy}" if self.remedy else "")
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def worst(findings: Iterable[Finding]) -> Status:
    """Return the gravest status of some findings."""
    order: tuple[Status, ...] = ("ok", "warning", "problem", "unusable")
    return max((each.status for each in findings), key=order.index, default="ok")


def counted(number: int, thing: str) -> str:
    """Return a number of things: ``1 file``, ``3 files``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
