"""The loading of what `code_copies` stored: each number of a pickle becomes what the notebook has, or the copy.

Copies are made in two steps, as cloudpickle writes them: an empty class or function, then what it holds, so that copies can refer to each other. Both
steps pass through here, and leave alone what the notebook has.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from stepwell.kernel_runtime.errors import ValueUnavailableError
from stepwell.kernel_runtime.records.protocols import Link
from stepwell.kernel_runtime.store.values import code_copies, structure
from stepwell.kernel_runtime.store.values.code_copies import PYTHON, UNKNOWN, CodeReader, Named, at_name

_classes: weakref.WeakValueDictionary[Named, type] = weakref.WeakValueDictionary()
"""Copies of classes, so that two loads of a value give instances of one class."""
_loading = threading.RLock()


def _after_fork_in_child() -> None:
    global _loading  # noqa: PLW0603 - another thread of the parent may have held it
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Resolver:
    """Finds what the numbers of one pickle stand for.

    Parameters
    ----------
    names
        By number, what the stream's head says.
    copies
        The pickle of all of them; empty where there is none.
    python
        The version of Python that made the copies.
    inside
        Those names that nothing had when the value was stored.
    why
        Why there are no copies.
    tell
        Is given a line where a copy is used although the name means something else, or nothing.
    """

    def __init__(
        self,
        names: Sequence[Named],
        copies: bytes | memoryview,
        python: str,
        inside: Sequence[str],
        why: str,
        *,
        key: str,
        code: CodeReader,
        tell: Callable[[str], None],
    ) -> None:
        self._names = [(name, version) for name, version in names]
        self._copies = copies
        self._python = python
        self._inside = frozenset(inside)
        self._why = why
        self._key = key
        self._code = code
        self._tell = tell
        self._loaded: list[Any] | None = None
        self._unfinished: dict[int, Any] = {}
        self._at_home: set[int] = set()

    def globals(self) -> dict[tuple[str, str], Any]:
        """Return what stands for the names of `code_copies` in the pickles."""
        here = code_copies.__name__
        return {
            (here, code_copies.notebook_object.__name__): self._object,
            (here, code_copies.copied.__name__): self._copied,
            (here, code_copies.completed.__name__): self._completed,
        }

    def _object(self, number: int) -> Any:
        name, version = self._names[number]
        found = self._live(name, version)
        if found is not None:
            return found
        module, short = _split(name)
        there = at_name(module, short)
        if not self._copies:
            self._refuse(short, there, f"no copy is kept: {self._why}")
        if self._python != PYTHON:
            self._refuse(short, there, f"its copy was made by Python {self._python}, and this is Python {PYTHON}")
        if name not in self._inside:
            how = f"has another {short} now" if there is not None else f"has no {short}"
            self._tell(f"{self._key}: its stored copy of {short} is used, {_where(module)} {how}")
        if self._loaded is None:
            self._loaded = self._load_copies()
        return self._loaded[number]

    def _load_copies(self) -> list[Any]:
        with _loading:
            try:
                found: list[Any] = structure.Unpickler(self._copies, (), self.globals(), check=False).load()
            except BaseException:
                for named, cls in list(_classes.items()):
                    if id(cls) in self._unfinished:
                        del _classes[named]
                raise
        return found

    def _live(self, name: str, version: str) -> Any:
        if "<" in name or version == UNKNOWN:
            return None
        found = at_name(*_split(name))
        if not (isinstance(found, type | FunctionType)):
            return None
        return found if not version or self._code.version_of(found) == version else None

    def _refuse(self, short: str, there: Any, why: str) -> None:
        what = (
            f"was made with another {short} than the one defined now"
            if there is not None
            else f"needs {short}, which is not defined here"
        )
        raise ValueUnavailableError(
            f"the stored value of {self._key!r} {what}",
            where=why,
            remedy=f"run the cell that defines {short}{' as it was' if there is not None else ''}, or materialize {self._key!r} again",
        )

    def _copied(
        self,
        name: str,
        version: str,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        reads: Mapping[str, str] | None = None,
    ) -> Any:
        found = self._live(name, version)
        if found is None and version and version != UNKNOWN:
            found = _classes.get((name, version))
        if found is None:
            notebook = _notebook() if reads is not None and self._has_all(reads) else None
            if notebook is not None:
                code, _, *rest = arguments
                found = FunctionType(code, notebook, *rest)
                self._at_home.add(id(found))
            else:
                found = make(*arguments)
            self._unfinished[id(found)] = found
            if isinstance(found, type) and version and version != UNKNOWN:
                _classes[name, version] = found
                if self._code.made is not None:
                    self._code.made(found, version)
        return found

    def _has_all(self, reads: Mapping[str, str]) -> bool:
        """Whether the notebook has what a function reads: each name, with the code version of what is code."""
        notebook = _notebook()
        return all(
            name in notebook and (not version or self._code.version_of(notebook[name]) == version)
            for name, version in reads.items()
        )

    def _completed(self, found: Any, rest: tuple[Callable[[Any, Any], None], Any]) -> None:
        complete, state = rest
        if self._unfinished.pop(id(found), None) is None:
            return
        notebook = _notebook()
        if id(found) in self._at_home:
            # What is stored of the notebook's variables is not needed, and cloudpickle sets the builtins of any namespace.
            state[1]["__globals__"] = {}
            before = {name: notebook[name] for name in ("__builtins__",) if name in notebook}
            complete(found, state)
            notebook.update(before)
            return
        complete(found, state)
        if isinstance(found, FunctionType) and found.__globals__.get("__name__") == "__main__":
            own = found.__globals__
            for name in found.__code__.co_names:
                if name not in own and name in notebook:
                    own[name] = notebook[name]


def _notebook() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def load_with(
    resolver: Resolver, stream: bytes | memoryview, buffers: Sequence[Any], *, check: bool, link: Link | None = None
) -> Any:
    """Return the value of a pickle whose classes and functions of the notebook are numbers."""
    return structure.Unpickler(stream, buffers, resolver.globals(), check=check, link=link).load()


def _split(name: str) -> tuple[str, str]:
    """Return module and qualified name; modules are the longest part that is imported."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if module in sys.modules:
            return module, ".".join(parts[count:])
    return parts[0], ".".join(parts[1:])


def _where(module: str) -> str:
    return "the notebook" if module == "__main__" else module
