"""What would be trusted, as lines for a reader or as JSON; every text in it is somebody else's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stepwell.kernel_runtime.records.sharing import Offer
from stepwell.kernel_runtime.records.text import in_one_line

_MOST = 20


def lines(offer: Offer) -> list[str]:
    """Return who made it, what is in it, and what loading it can do."""
    head = f"{offer.source}: {values(offer)}, {size(offer.size)}, signed with the key {offer.signer or 'of nobody'}"
    rows = [(value.key, value.type_name, value.summary, size(value.size)) for value in offer.values[:_MOST]]
    shown = [tuple(map(in_one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    table = [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in shown
    ]
    rest = len(offer.values) - _MOST
    return [
        in_one_line(head),
        *table,
        *([f"  and {rest} more"] if rest > 0 else []),
        f"loading {offer.executing} of them can run code that was stored with them",
    ]


def as_json(offer: Offer) -> dict[str, Any]:
    """Return ``{"source", "signer", "own", "bytes", "values": [{"key", "type_name", "size", "executes", ...}]}``."""
    return {
        "source": offer.source,
        "signer": offer.signer,
        "own": offer.own,
        "bytes": offer.size,
        "values": [asdict(value) for value in offer.values],
    }


def values(offer: Offer) -> str:
    """Return how many values there are."""
    return f"{len(offer.values)} value{'' if len(offer.values) == 1 else 's'}"


def size(count: int) -> str:
    """Return a number of bytes for a reader."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
