"""Pickle, protocol 5, with large buffers out of band; what is of ``__main__`` goes by name.

A class or function of the notebook is stored as its name, with its code version beside the value: at load it must be there and
be the same, otherwise the value counts as missing. What pickle would take although it comes back as something else (a
query that is not executed yet) is refused like what it cannot take.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store.arrays import in_stream, reduced
from stepwell.kernel_runtime.store.describing import type_name

ClassVersion = Callable[[Any], str]

_LAZY = {
    "polars.LazyFrame": "end the cell with .collect(), so that the value is a DataFrame",
    "duckdb.DuckDBPyRelation": "end the cell with .df(), .pl() or .to_arrow_table(), so that the value is a frame",
}
POLARS_REMEDY = "cast columns of Python objects (pl.Object) to a type of polars' own"
_REMEDIES = {
    **_LAZY,
    "generator": "return list(...) of it: a generator can be read only once",
    "async_generator": "collect what it yields into a list and return that",
    "coroutine": "await it, and return what it gives",
    "module": "return what you need of the module, not the module",
    "io.TextIOWrapper": "return what the file contains, or its path",
    "io.BufferedReader": "return what the file contains, or its path",
    "io.BufferedWriter": "return the path of the file",
    "io.BufferedRandom": "return the path of the file",
    "io.FileIO": "return what the file contains, or its path",
    "socket.socket": "return what was received; open the connection in the step that uses it",
    "polars.DataFrame": POLARS_REMEDY,
    "polars.Series": POLARS_REMEDY,
    "sqlite3.Connection": "return what was queried; open the connection in the step that uses it",
    "duckdb.DuckDBPyConnection": "return what was queried; open the connection in the step that uses it",
}
_LOCKS = frozenset(
    {
        "_thread.lock",
        "_thread.RLock",
        "threading.Condition",
        "threading.Event",
        "threading.Semaphore",
        "threading.Thread",
    }
)
_OTHERWISE = "return plain data, arrays or frames; or give its class __getstate__ and __setstate__ that leave out what cannot be kept"


class _RefusedError(Exception):
    """Something that pickle would take, but that would not come back as it is."""


class _Pickler(pickle.Pickler):
    """The C pickler; `reducer_override` is not called for plain data."""

    def __init__(self, stream: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(stream, 5, buffer_callback=self._keep)
        self._buffers = buffers
        self._array = getattr(sys.modules.get("numpy"), "ndarray", None)
        self.named: dict[str, Any] = {}
        self.last: Any = None

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Tell whether a buffer goes into the stream; else it is kept beside it."""
        if in_stream(buffer):
            return True
        self._buffers.append(buffer)
        return False

    def reducer_override(self, value: Any) -> Any:
        self.last = value
        kind = type(value)
        if kind is self._array:
            return reduced(value)
        if kind is FunctionType or isinstance(value, type):
            if value.__module__ == "__main__":
                self.named[value.__qualname__] = value
        elif kind.__module__[:6] in {"polars", "duckdb", "_duckd"} and type_name(value) in _LAZY:
            raise _RefusedError(f"cannot store {type_name(value)}")
        return NotImplemented


def dump(
    value: Any, *, key: str, class_version: ClassVersion | None
) -> tuple[bytes, list[memoryview], tuple[tuple[str, str], ...]]:
    """Return the stream, the buffers, and what of ``__main__`` the value names.

    Raises
    ------
    UnstorableValueError
        If something in the value cannot be stored.
    """
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    pickler = _Pickler(stream, buffers)
    try:
        pickler.dump(value)
        raw = [buffer.raw() for buffer in buffers]
    except Exception as error:
        raise _unstorable(value, pickler.last, error, key) from error
    if not pickler.named:
        return stream.getvalue(), raw, ()
    classes = tuple(
        (f"__main__.{name}", class_version(found) if class_version else "")
        for name, found in sorted(pickler.named.items())
    )
    return stream.getvalue(), raw, classes


def load(stream: bytes | memoryview, buffers: Sequence[Any], *, key: str) -> Any:
    """Return the value; the stream must be trusted.

    Raises
    ------
    ValueUnavailableError
        If it cannot be loaded: a module is not installed, a class changed.
    """
    try:
        return pickle.loads(stream, buffers=buffers)
    except Exception as error:
        raise ValueUnavailableError(
            f"the stored value of {key!r} cannot be loaded",
            where=f"{type(error).__name__}: {error}",
            remedy="make importable what it names, or materialize it again",
        ) from error


def check_names(classes: Sequence[tuple[str, str]], *, key: str, class_version: ClassVersion | None) -> None:
    """Check that what a stored value names of ``__main__`` is there and the same.

    Raises
    ------
    ValueUnavailableError
        If one is missing or has another code version.
    """
    for name, version in classes:
        found: Any = sys.modules.get("__main__")
        short = name.removeprefix("__main__.")
        for part in short.split("."):
            found = getattr(found, part, None)
        if found is None:
            raise ValueUnavailableError(
                f"the stored value of {key!r} needs {short}, which is not defined here",
                remedy=f"run the cell that defines {short}, or materialize {key!r} again",
            )
        if class_version is not None and version and class_version(found) != version:
            raise ValueUnavailableError(
                f"the stored value of {key!r} was made with another {short} than the one defined now",
                remedy=f"run the cell that defines {short} as it was, or materialize {key!r} again",
            )


def _unstorable(value: Any, inner: Any, error: Exception, key: str) -> UnstorableValueError:
    outer = type_name(value)
    offender = value if inner is None else inner
    name = type_name(offender)
    if offender is value:
        what = f"the value of {key!r} cannot be stored: it is {_called(offender, name)}"
    else:
        what = f"the value of {key!r} cannot be stored: it is a {outer} that holds {_called(offender, name)}"
    text = " ".join(str(error).split())
    return UnstorableValueError(
        what, where=f"{type(error).__name__}: {text[:300]}", remedy=_remedy(offender, name, text)
    )


def _called(offender: Any, name: str) -> str:
    if isinstance(offender, FunctionType):
        return "a lambda" if offender.__name__ == "<lambda>" else f"the function {offender.__qualname__}"
    if isinstance(offender, type):
        return f"an instance of, or the class, {offender.__qualname__}"
    return f"the module {offender.__name__}" if isinstance(offender, ModuleType) else f"a {name}"


def _remedy(offender: Any, name: str, text: str) -> str:
    if isinstance(offender, FunctionType | type):
        if "not the same object" in text:
            return f"{offender.__qualname__} was defined again after the value was made: run the step again"
        kind = "class" if isinstance(offender, type) else "function with def"
        return f"define the {kind} at the top of a cell of its own or in a module: it is stored by its name"
    if name in _LOCKS:
        return "keep it out of the value: make it in the step that uses it"
    return _REMEDIES.get(name, _OTHERWISE)
