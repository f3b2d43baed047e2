"""Chance: the global generators of ``random`` and ``numpy.random`` are seeded before each body, from the step's key.

So an unseeded fit is the same twice, and differs between steps. The state that they had before the run's first body is put back
after the run: saving it costs more than seeding, and between two bodies of a run only the engine works.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_NUMPY = "numpy.random"


class Seeds:
    """Seeds the global generators during one run.

    Parameters
    ----------
    enabled
        False leaves them alone.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._before: tuple[Any, ...] | None = None
        self._numpy_before: Any = None
        self._numpy_was_there = False
        self._watch: _Watch | None = None

    def seed(self, step_key: str) -> None:
        """Seed them for one step; numpy's also if the body imports it first."""
        if not self._enabled:
            return
        if self._before is None:
            self._begin()
        number = int.from_bytes(blake2b(step_key.encode("utf-8", "backslashreplace"), digest_size=4).digest(), "little")
        random.seed(number)
        if self._watch is not None:
            self._watch.number = number
        _seed_numpy(number)

    def restore(self) -> None:
        """Put the generators back as they were before the first step that was seeded."""
        if self._before is None:
            return
        random.setstate(self._before)
        self._before = None
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        module = sys.modules.get(_NUMPY)
        if module is not None:
            # A generator that the body has exchanged takes no such state.
            with suppress(Exception):
                if self._numpy_was_there:
                    module.set_state(self._numpy_before)
                else:
                    module.seed()

    def _begin(self) -> None:
        self._before = random.getstate()
        module = sys.modules.get(_NUMPY)
        self._numpy_was_there = module is not None
        if module is None:
            self._watch = _Watch()
            sys.meta_path.insert(0, self._watch)
            return
        with suppress(Exception):
            self._numpy_before = module.get_state()


def _seed_numpy(number: int) -> None:
    module = sys.modules.get(_NUMPY)
    seed: Callable[[int], None] | None = getattr(module, "seed", None)
    if seed is not None:
        # The user may have put another bit generator behind the functions.
        with suppress(Exception):
            seed(number)


class _Watch:
    """Seeds numpy's generator right after a body has imported it."""

    def __init__(self) -> None:
        self.number = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find ``numpy.random`` as the import system would, and seed it when it is there."""
        if name != _NUMPY:
            return None
        self.end()
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec is not None else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            _seed_numpy(self.number)

        loader.exec_module = executed
        return spec

    def end(self) -> None:
        """Stop watching."""
        with suppress(ValueError):
            sys.meta_path.remove(self)
