"""Data versions: digests of values.

Two values have the same data version exactly if they are equal in the store's sense: the same types, the same order except in sets, every NaN
the same, however they lie in memory. An instance counts by its class and by what it reduces to; a class of the user's counts
by its code as well, because a consumer may call its methods without naming it; a function, also one without a name, by its code, defaults and closure.
A path to a file or folder counts by its name and what is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.path_contents import PATH, contents_of
from stepwell.kernel_runtime.versions.atoms import ATOMS, atom, hexdigest
from stepwell.kernel_runtime.versions.classes import class_version, exact_class_version
from stepwell.kernel_runtime.versions.encode import Form, Undigestible, encode
from stepwell.kernel_runtime.versions.graph import is_found
from stepwell.kernel_runtime.versions.ownership import owner
from stepwell.kernel_runtime.versions.reduction import reduced


def data_version(value: Any, budget: Budget | None = None) -> str | None:
    """Return the digest of a value, 32 hexadecimal digits, the same in every process.

    Parameters
    ----------
    value
        Anything.
    budget
        How many instances may be taken apart; they are subtracted.

    Returns
    -------
    str or None
        None for a value with no canonical digest: the digest of its stored bytes takes its place.
    """
    kind = type(value)
    if kind in ATOMS:
        return hexdigest(atom(value))
    try:
        if kind is PATH:
            found = contents_of(value)
            if found.kind != "nothing":
                return hexdigest(atom(("contents of a path", found.kind, value.name, found.digest)))
        return hexdigest(encode(value, budget or _foreign))
    except (Undigestible, RecursionError):
        return None
    except KeyboardInterrupt:
        raise
    except BaseException:
        # A class's own __reduce__ or an exotic array may raise anything; the stored bytes still have a digest.
        return None


def _foreign(item: Any, path: Callable[[], str]) -> bytes | Form:  # noqa: ARG001 - a `Foreign`
    if issubclass(type(item), type):
        return Form("class", _class(item))
    if issubclass(type(item), ModuleType):
        return Form("module", (item.__name__, owner(item.__name__)))
    if issubclass(type(item), (FunctionType, BuiltinFunctionType)):
        return Form("function", _function(item))
    matplotlib = sys.modules.get("matplotlib.artist")
    if matplotlib is not None and issubclass(type(item), matplotlib.Artist):
        # Parts of figures give new objects each time they are taken apart, without end.
        raise Undigestible(f"a {type(item).__name__} of matplotlib has no canonical form")
    return reduced(item)


class Budget:
    """How many instances may be taken apart for the digests of several values.

    Parameters
    ----------
    left
        The number.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, item: Any, path: Callable[[], str]) -> bytes | Form:
        """Return the form of an instance; raises `Undigestible` if too many were taken apart."""
        self.left -= 1
        if self.left < 0:
            raise Undigestible("it holds too many instances", path())
        return _foreign(item, path)


def _class(cls: type) -> tuple[str | None, ...]:
    who = owner(cls.__module__) if is_found(cls) else None
    return (cls.__module__, cls.__qualname__, who if who is not None else class_version(cls))


def _function(function: FunctionType | BuiltinFunctionType) -> tuple[Any, ...]:
    module = function.__module__
    if (
        isinstance(function, BuiltinFunctionType)
        and function.__self__ is not None
        and not isinstance(function.__self__, ModuleType)
    ):
        return (function.__name__, function.__self__)
    found: Any = sys.modules.get(module or "builtins")
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is function:
        who = owner(module)
        return (module, function.__qualname__, who if who is not None else class_version(function))
    # One without a name is made anew by the code that gives it: what it holds must all be digested.
    version = exact_class_version(function)
    if version is None:
        raise Undigestible(f"the function {function.__qualname__} reaches what has no digest")
    return (module, function.__qualname__, version)
