"""Work that makes thousands of small records, without the garbage collector walking them again and again.

The collector looks at young objects whenever some hundred more were made, and at all of them now and then: while ten thousand records
are read or planned that costs as much as making them, and frees nothing.
"""

from __future__ import annotations

import gc
from typing import Self


class no_collection:  # noqa: N801 - used as a function
    """Keep the garbage collector off while the block runs, except where it is let work: while the user's code runs."""

    __slots__ = ("was_on",)

    def __enter__(self) -> Self:
        self.was_on = gc.isenabled()
        gc.disable()
        _holding.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.let()
        _holding.remove(self)

    def let(self) -> None:
        """Let the collector be as it was."""
        if self.was_on:
            gc.enable()

    def hold(self) -> None:
        """Keep it off again; if the user's code has turned it on or off meanwhile, that is how it is left."""
        self.was_on = gc.isenabled()
        gc.disable()


_holding: list[no_collection] = []


def is_on() -> bool:
    """Return True if the user has the collector on, whatever a block does meanwhile."""
    return gc.isenabled() or any(each.was_on for each in _holding)
