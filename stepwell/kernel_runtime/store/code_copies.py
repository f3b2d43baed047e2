"""Classes and functions of the notebook: stored by their name, with a copy by value beside it.

A value that holds an instance of a notebook's class is a pickle in which the class is a number; the stream's head has the names and code
versions of what is numbered, and a second pickle has all of it by value (cloudpickle). At load each name is looked up where the class was
defined: what is there is used if its code version is the stored one, otherwise the copy. Copies refer to each other, and to what is
there, by the same rule, so that a copied class has the notebook's own base class if that did not change. A class without a name that could be
looked up (of a function, of an asset's cell, a lambda) always is its copy. Copies of one version of a class are one class in a process.

A copy holds what its code reads: other functions and classes, imported modules by name, small plain values. Left out are globals that are
large, that cannot be pickled, and what is named like a secret or comes from the environment: a copied function that reads one raises NameError.
Where a source itself has a secret written in it there is no copy, and the name has to be found. Copies hold bytecode: another
minor version of Python cannot use them.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.errors import ValueUnavailableError
from stepwell.kernel_runtime.store.libraries import Owner, by_its_word

MOST_OF_A_GLOBAL = 64 * 1024
"""Bytes up to which the value of a global is part of a copy."""
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_HEAP_TYPE = 1 << 9
_KEPT = 32
_UNKNOWN = "?"
"""The version of code that has none: it equals nothing."""


@dataclass(frozen=True, slots=True)
class CodeReader:
    """What the store is told of code by who can read it."""

    version: Callable[[Any], str] | None = None
    """Returns the code version of a class or function; without it names alone decide."""
    owner: Owner = by_its_word

    is_secret: Callable[[str, Any], bool] | None = None
    """Tells whether a value must not be stored as part of a copy, or whether a class or function has a secret in its source."""

    def version_of(self, found: Any) -> str:
        """Return a code version, empty where none can be told."""
        if self.version is None:
            return ""
        try:
            return self.version(found)
        except Exception:
            # A class may raise anything when it is looked at; it is its copy then.
            return _UNKNOWN

    def hides(self, name: str, value: Any) -> bool:
        """Whether a value, or the source of a class or function, must not be stored."""
        return self.is_secret is not None and self.is_secret(name, value)


Named = tuple[str, str]
"""Where a class or function was defined, ``__main__.Point``, and its code version."""


class NoCopyError(Exception):
    """What is in a value cannot be copied, or must not be."""


def name_of(found: Any) -> str:
    """Return module and qualified name of a class or function."""
    return f"{found.__module__}.{found.__qualname__}"


def goes_by_copy(found: Any) -> bool:
    """Whether a class or function has to go with a copy: it is the notebook's, or it is not what its name means.

    What a library made without a name is not ours to take apart unless it is written in Python.
    """
    module = found.__module__
    if module == "__main__":
        return True
    if type(module) is not str:
        return False
    if module == "builtins" or (isinstance(found, type) and not found.__flags__ & _HEAP_TYPE):
        return False
    return module in sys.modules and at_name(module, found.__qualname__) is not found


def at_name(module: str, qualname: str) -> Any:
    """Return what a module has under a qualified name, or None; nothing is imported."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


# -- storing ----------------------------------------------------------------------------------------------------------


def notebook_object(number: int) -> Any:
    """Stand in a pickle for the class or function of a number; only what loads such a pickle knows which it is."""
    raise pickle.UnpicklingError(f"number {number} of a pickle that was taken out of its frame")


def copied(*parts: Any) -> Any:
    """Stand in a pickle of copies for the making of one, as `notebook_object`."""
    del parts
    raise pickle.UnpicklingError("a copy that was taken out of its frame")


def completed(*parts: Any) -> None:
    """Stand in a pickle of copies for the completing of one, as `notebook_object`."""
    del parts
    raise pickle.UnpicklingError("a copy that was taken out of its frame")


_dumped: OrderedDict[tuple[Any, ...], tuple[bytes, tuple[Any, ...]]] = OrderedDict()
_dumped_lock = threading.Lock()


def dump_copies(found: Sequence[Any], names: Sequence[Named], code: CodeReader) -> bytes:
    """Return the pickle of copies of classes and functions; remembered as long as their code versions are the same.

    Raises
    ------
    NoCopyError
        If one cannot be copied or has a secret in its source.
    """
    key = tuple([(id(each), version) for each, (_, version) in zip(found, names, strict=True)])
    versioned = all(version and version != _UNKNOWN for _, version in names)
    if versioned:
        with _dumped_lock:
            kept = _dumped.get(key)
            if kept is not None:
                _dumped.move_to_end(key)
                return kept[0]
    stream = io.BytesIO()
    try:
        _pickler(stream, code).dump(list(found))
    except NoCopyError:
        raise
    except Exception as error:
        raise NoCopyError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
    if versioned:
        with _dumped_lock:
            _dumped[key] = stream.getvalue(), tuple(found)
            if len(_dumped) > _KEPT:
                _dumped.popitem(last=False)
    return stream.getvalue()


def _pickler(stream: io.BytesIO, code: CodeReader) -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Marks each class and function that goes by value with its name and code version."""

        def reducer_override(self, value: Any) -> Any:
            found = super().reducer_override(value)
            if type(found) is not tuple or len(found) != 6:
                return found
            if code.hides(value.__qualname__, value):
                raise NoCopyError(f"the source of {value.__qualname__} holds what looks like a secret")
            make, arguments, state, _, _, complete = found
            if isinstance(value, type):
                # The identity that cloudpickle gives a class is drawn by chance; ours is its name and code version.
                arguments = tuple(None if _is_drawn(each) else each for each in arguments)
                kept, slots = state
                state = ({name: each for name, each in kept.items() if not _is_secret_text(code, name, each)}, slots)
            else:
                kept, slots = state
                home = _home(value)
                if home:
                    # Written in a module: there it finds its globals again.
                    arguments = (arguments[0], _GlobalsOf(home), *arguments[2:])
                    slots["__globals__"] = {}
                else:
                    arguments[1].pop("__file__", None)
                    seen = slots["__globals__"]
                    slots["__globals__"] = {name: each for name, each in seen.items() if _belongs(code, name, each)}
            named = (name_of(value), code.version_of(value))
            return copied, (*named, make, arguments), (complete, state), None, None, completed

    return Pickler(stream, 5)


def _home(function: FunctionType) -> str:
    """Return the module, not the notebook, whose globals are those of a function; empty if it has others."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str and name != "__main__" else None
    return str(name) if module is not None and vars(module) is function.__globals__ else ""


class _GlobalsOf:
    """Stands in a pickle of copies for the globals of a module."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return globals_of, (self.module,)


def globals_of(module: str) -> dict[str, Any]:
    """Return the globals of a module, imported if need be."""
    return vars(import_module(module))


def _is_drawn(argument: Any) -> bool:
    return type(argument) is str and len(argument) == 32 and all(each in "0123456789abcdef" for each in argument)


def _is_secret_text(code: CodeReader, name: str, value: Any) -> bool:
    return type(value) in {str, bytes} and not name.startswith("__") and code.hides(name, value)


def _belongs(code: CodeReader, name: str, value: Any) -> bool:
    """Whether the value of a global is part of a copy."""
    if isinstance(value, ModuleType | FunctionType | type):
        return True
    if type(value).__module__.partition(".")[0] == "stepwell" or code.hides(name, value):
        return False
    try:
        return len(pickle.dumps(value, 5)) <= MOST_OF_A_GLOBAL
    except Exception:
        # A connection, a lock: what cannot be pickled is made anew where the code runs.
        return False


# -- loading ----------------------------------------------------------------------------------------------------------

_classes: weakref.WeakValueDictionary[Named, type] = weakref.WeakValueDictionary()
"""Copies of classes, so that two loads of a value give instances of one class."""
_loading = threading.RLock()


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
    tell
        Is given a line where a copy is used although the name means something else, or nothing.
    """

    def __init__(
        self,
        names: Sequence[Named],
        copies: bytes | memoryview,
        python: str,
        inside: Sequence[str],
        *,
        key: str,
        code: CodeReader,
        tell: Callable[[str], None],
    ) -> None:
        self._names = [(name, version) for name, version in names]
        self._copies = copies
        self._python = python
        self._inside = frozenset(inside)
        self._key = key
        self._code = code
        self._tell = tell
        self._loaded: list[Any] | None = None
        self._unfinished: dict[int, Any] = {}

    def globals(self) -> dict[tuple[str, str], Any]:
        """Return what stands for the names of this module in the pickles."""
        here = __name__
        return {
            (here, notebook_object.__name__): self._object,
            (here, copied.__name__): self._copied,
            (here, completed.__name__): self._completed,
        }

    def _object(self, number: int) -> Any:
        name, version = self._names[number]
        found = self._live(name, version)
        if found is not None:
            return found
        module, short = _split(name)
        there = at_name(module, short)
        if not self._copies:
            self._refuse(short, there, "its source holds what looks like a secret, so that no copy is kept")
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
                found: list[Any] = _Unpickler(io.BytesIO(self._copies), (), self.globals()).load()
            except BaseException:
                for named, cls in list(_classes.items()):
                    if id(cls) in self._unfinished:
                        del _classes[named]
                raise
        return found

    def _live(self, name: str, version: str) -> Any:
        if "<" in name or version == _UNKNOWN:
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

    def _copied(self, name: str, version: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        found = self._live(name, version)
        if found is None and version and version != _UNKNOWN:
            found = _classes.get((name, version))
        if found is None:
            found = make(*arguments)
            self._unfinished[id(found)] = found
            if isinstance(found, type) and version and version != _UNKNOWN:
                _classes[name, version] = found
        return found

    def _completed(self, found: Any, rest: tuple[Callable[[Any, Any], None], Any]) -> None:
        complete, state = rest
        if self._unfinished.pop(id(found), None) is not None:
            complete(found, state)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, buffers: Sequence[Any], known: dict[tuple[str, str], Any]) -> None:
        super().__init__(stream, buffers=buffers)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        found = self._known.get((module, name))
        return found if found is not None else super().find_class(module, name)


def load_with(resolver: Resolver, stream: bytes | memoryview, buffers: Sequence[Any]) -> Any:
    """Return the value of a pickle whose classes and functions of the notebook are numbers."""
    return _Unpickler(io.BytesIO(stream), buffers, resolver.globals()).load()


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
