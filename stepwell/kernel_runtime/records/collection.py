"""Work that makes thousands of small records, without the garbage collector walking them again and again.

The collector looks at young objects whenever some hundred more were made, and at all of them now and then: while ten thousand records
are read or planned that costs as much as making them, and frees nothing. Not for blocks in which steps run.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector off while the block runs."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
