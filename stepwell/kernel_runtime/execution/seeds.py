"""State outside of a step's inputs: global random generators, which are seeded before each body, and globals that bodies change.

A step's code version is made before the first step runs, from the globals as they are then. A body that changes one of them makes
it wrong for the steps that follow: these are keyed again before they start, and a notice says so. What a step of a job that is
not memoised has changed is not known, for its code is not walked; what follows it is always keyed again.

The global generators of ``random`` and ``numpy.random`` are seeded from the step's key. So an unseeded fit is the same twice, and differs between steps. The state that they had before the run's first body is put back
after the run: saving it costs more than seeding, and between two bodies of a run only the engine works.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from stepwell.kernel_runtime.planning.build import step_extra
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.reads.readers import seeded
from stepwell.kernel_runtime.versions.walk import CodeWalk, Watched


class HiddenState:
    """Keeps the code versions of one run true.

    Parameters
    ----------
    walk
        The walk that the plan's code versions come from.
    new_walk
        Makes another one, which digests everything that can change anew.
    """

    def __init__(self, walk: CodeWalk, new_walk: Callable[[], CodeWalk]) -> None:
        self.walk = walk
        self._new_walk = new_walk
        self._changes = 0
        self._settled: dict[str, int] = {}

    def is_settled(self, step: PlanStep) -> bool:
        """Return True for a step that has its code version of now."""
        return not self._changes or step.code is None or self._settled.get(step.key) == self._changes

    def settle(self, step: PlanStep) -> bool:
        """Give a step that is about to be decided its code version of now; tell whether it is another one."""
        if step.code is None or self.is_settled(step):
            return False
        self._settled[step.key] = self._changes
        before = step.code.digest
        step.code = self.walk.of(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        return step.code.digest != before

    def changed(self) -> None:
        """Have the steps that follow keyed again: a cell has changed the notebook."""
        self._changes += 1
        self.walk = self._new_walk()

    def before(self, step: PlanStep) -> Watched | None:
        """Take down what a step could change; None if it reaches nothing of that kind."""
        if step.code is None:
            return None
        return self.walk.watched(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)

    def after(self, step: PlanStep, watched: Watched | None) -> tuple[str, ...]:
        """Return the names of what a step has changed, as its code reaches them: ``CACHE``, ``helper(seen=)``."""
        if step.code is None:
            self._changes += 1
            self.walk = self._new_walk()
            return ()
        if watched is None:
            return ()
        walk = self._new_walk()
        roots = walk.roots(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
        paths = watched.changed(roots)
        if not paths:
            return ()
        self._changes += 1
        self.walk = walk
        return tuple(dict.fromkeys(path.rpartition(" -> ")[2] for path in paths))


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
        self._saved: dict[str, Any] = {}
        """By stream, the user's state of it; None for numpy where it was not imported."""
        self._watch: _Watch | None = None

    def seed(self, step_key: str, *, live: bool = False) -> None:
        """Seed the generators for one step; numpy's also if the body imports it first.

        Parameters
        ----------
        live
            Whether the step is a cell that runs as in the plain notebook: streams that the user seeded are left to it.
        """
        number = int.from_bytes(blake2b(step_key.encode("utf-8", "backslashreplace"), digest_size=4).digest(), "little")
        for stream in ("random", "numpy"):
            if live and stream in seeded:
                self._give_back(stream)
            elif self._enabled:
                self._save(stream)
                if stream == "random":
                    _RANDOM_SEED(number)
                else:
                    if self._watch is not None:
                        self._watch.number = number
                    _seed_numpy(number)

    def leave(self, stream: str) -> None:
        """Stop restoring a stream at the end of the run: a cell has seeded it, or a reuse has set it."""
        self._saved.pop(stream, None)
        if stream == "numpy" and self._watch is not None:
            self._watch.end()
            self._watch = None

    def restore(self) -> None:
        """Put the generators back as they were before the first step that was seeded."""
        for stream in tuple(self._saved):
            self._give_back(stream)

    def _save(self, stream: str) -> None:
        if stream in self._saved:
            return
        if stream == "random":
            self._saved[stream] = random.getstate()
            return
        self._saved[stream] = None
        module = sys.modules.get(_NUMPY)
        if module is None:
            self._watch = _Watch()
            sys.meta_path.insert(0, self._watch)
            return
        with suppress(Exception):
            self._saved[stream] = module.get_state()

    def _give_back(self, stream: str) -> None:
        if stream not in self._saved:
            return
        state = self._saved.pop(stream)
        if stream == "random":
            _RANDOM_SETSTATE(state)
            return
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        module = sys.modules.get(_NUMPY)
        if module is not None:
            # A generator that the body has exchanged takes no such state.
            with suppress(Exception):
                if state is not None:
                    _plain(module.set_state)(state)
                else:
                    _plain(module.seed)()


def _seed_numpy(number: int) -> None:
    module = sys.modules.get(_NUMPY)
    seed: Callable[[int], None] | None = getattr(module, "seed", None)
    if seed is not None:
        # The user may have put another bit generator behind the functions.
        with suppress(Exception):
            _plain(seed)(number)


_RANDOM_SEED = random._inst.seed  # noqa: SLF001 - the functions of the module may be wrapped
_RANDOM_SETSTATE = random._inst.setstate  # noqa: SLF001 - as above


def _plain(function: Any) -> Any:
    """Return the library's own function: ours does not count as the user's seeding."""
    return getattr(function, "__wrapped__", function)


def stream_states() -> dict[str, Any]:
    """Return the states of the random streams that the user has seeded."""
    found: dict[str, Any] = {}
    if "random" in seeded:
        found["random"] = random.getstate()
    if "numpy" in seeded and (module := sys.modules.get(_NUMPY)) is not None:
        with suppress(Exception):
            found["numpy"] = module.get_state()
    if "torch" in seeded and (torch := sys.modules.get("torch")) is not None:
        with suppress(Exception):
            found["torch"] = torch.get_rng_state().numpy().tobytes()
    return found


def set_stream(name: str, state: Any) -> None:
    """Set a random stream to a state; raises whatever the library, or its import, raises."""
    if name == "random":
        _RANDOM_SETSTATE(state)
    elif name == "numpy":
        # numpy imports the module of random numbers when it is asked for.
        _plain(import_module(_NUMPY).set_state)(state)
    else:
        torch = import_module("torch")
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


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
        # By the other finders: one of them notes that the user seeds it.
        others = [each for each in sys.meta_path if each is not self and hasattr(each, "find_spec")]
        spec: ModuleSpec | None = next(
            (found for each in others if (found := each.find_spec(name, path, target))), None
        )
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
