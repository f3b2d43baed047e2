"""Work that makes thousands of small records, without the garbage collector walking them again and again.

The collector looks at young objects whenever some hundred more were made, and at all of them now and then: while ten thousand records
are read or planned that costs as much as making them, and frees nothing.
"""

from __future__ import annotations

import gc
from typing import Self


class no_collection:  # noqa: N801 - used as a function
    """Keep the garbage collector off while the block runs, except where it is let work: while the user's code runs."""

    __slots__ = ("_on",)

    def __enter__(self) -> Self:
        self._on = gc.isenabled()
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        self.let()

    def let(self) -> None:
        """Let the collector be as it was."""
        if self._on:
            gc.enable()

    def hold(self) -> None:
        """Keep it off again; if the user's code has turned it on or off meanwhile, that is how it is left."""
        self._on = gc.isenabled()
        gc.disable()
