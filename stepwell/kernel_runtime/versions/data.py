"""Data versions: digests of values.

Two values have the same data version exactly if they have the same types, the same content, and the same order except in sets. All NaNs are
equal; the memory layout does not count. An instance is digested as its class and its reduced form. A class of the user includes its code,
because a consumer may call methods of an instance without naming the class. A function or lambda is digested as its code, defaults and
closure; a path to a file or folder as its name and content.

The store keeps copies of the user's classes and functions together with instances. `definition_version` returns the version of such a copy,
and `hides` keeps secrets out of the copy.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from stepwell.kernel_runtime.path_contents import PATH, contents_of
from stepwell.kernel_runtime.versions.classes import reduced
from stepwell.kernel_runtime.versions.encode import ATOMS, Form, Undigestible, atom, encode, hexdigest
from stepwell.kernel_runtime.versions.graph import UNVERIFIABLE, digest_of
from stepwell.kernel_runtime.versions.left_out import DATA, NOTHING
from stepwell.kernel_runtime.versions.opcodes import untested
from stepwell.kernel_runtime.versions.ownership import owner
from stepwell.kernel_runtime.versions.references import is_module_attribute
from stepwell.kernel_runtime.versions.secret_forms import looks_generated, names_secret
from stepwell.kernel_runtime.versions.secrets import environment_now, hidden_source, holds_secret, looks_secret
from stepwell.kernel_runtime.versions.walk import CodeWalk


def data_version(value: Any, budget: Budget | None = None) -> str | None:
    """Return the digest of a value, 32 hexadecimal digits, the same in every process.

    Parameters
    ----------
    value
        Anything.
    budget
        The number of instances that may still be reduced; the number for this value is subtracted.

    Returns
    -------
    str or None
        None for a value without a canonical digest; callers then use the digest of the stored bytes.
    """
    kind = type(value)
    if kind in ATOMS:
        return hexdigest(atom(value))
    try:
        if kind is PATH:
            contents = contents_of(value)
            if contents.kind != "nothing":
                return hexdigest(atom(("contents of a path", contents.kind, value.name, contents.digest)))
        return hexdigest(encode(value, budget or _foreign))
    except (Undigestible, RecursionError):
        return None
    except KeyboardInterrupt:
        raise
    except BaseException:
        # A `__reduce__` of the user or a rare kind of array may raise any exception. Callers then digest the stored bytes.
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
        # Each reduction of a part of a figure creates new objects, so the encoding would not end.
        raise Undigestible(f"a {type(item).__name__} of matplotlib has no canonical form")
    return reduced(item)


class Budget:
    """The number of instances that may be reduced for the digests of several values.

    Parameters
    ----------
    count
        The number of instances.
    """

    def __init__(self, count: int) -> None:
        self.items_left = count

    def __call__(self, item: Any, path: Callable[[], str]) -> bytes | Form:
        """Return the form of an instance; raise `Undigestible` after too many instances."""
        self.items_left -= 1
        if self.items_left < 0:
            raise Undigestible("it holds too many instances", path())
        return _foreign(item, path)


def _class(cls: type) -> tuple[str | None, ...]:
    library = owner(cls.__module__) if is_module_attribute(cls) else None
    return (cls.__module__, cls.__qualname__, library if library is not None else class_version(cls))


def _function(function: FunctionType | BuiltinFunctionType) -> tuple[Any, ...]:
    module = function.__module__
    if (
        isinstance(function, BuiltinFunctionType)
        and function.__self__ is not None
        and not isinstance(function.__self__, ModuleType)
    ):
        return (function.__name__, function.__self__)
    named_object: Any = sys.modules.get(module or "builtins")
    for part in function.__qualname__.split("."):
        named_object = getattr(named_object, part, None)
    if named_object is function:
        library = owner(module)
        return (module, function.__qualname__, library if library is not None else class_version(function))
    # A function that is not an attribute of its module is identified by its code and closure only, so both need a digest.
    version = exact_class_version(function)
    if version is None:
        raise Undigestible(f"the function {function.__qualname__} reaches an object without a digest")
    return (module, function.__qualname__, version)


# -- the code of classes and functions in values


def class_version(item: object) -> str:
    """Return the code version of a class or function of the user, 32 hexadecimal digits."""
    return _digested(item)[0]


def definition_version(item: object) -> str:
    """Return the code version of a class or function without the data that it reads or holds (counters of instances, registries, options).

    The store keeps this version with an instance. A load compares it with the version of the notebook's class, whose data may have changed
    since.
    """
    return _digested(item, data=False)[0]


def exact_class_version(item: object) -> str | None:
    """Return the code version of a class or function, or None if it reaches an object that cannot be digested."""
    version, exact = _digested(item)
    return version if exact else None


def _digested(item: object, *, data: bool = True) -> tuple[str, bool]:
    node = CodeWalk(ignored=NOTHING if data else DATA).node(item)
    return digest_of(node).hex(), not node.flags & UNVERIFIABLE and not untested()


def hides(name: str, value: Any) -> bool:
    """Return True if the store must not keep a value in a copy of code, because the value or its source contains a secret.

    Values with names of secrets, and values of the environment, are never stored as text.
    """
    if isinstance(value, (type, FunctionType)):
        if type(value) is FunctionType and any(hides(label, held) for label, held in _held_values(value)):
            return True
        if type(value) is FunctionType and value.__name__ == "<lambda>":
            return _constants_hide(value.__code__)
        try:
            source = inspect.getsource(value)
        except (OSError, TypeError):
            return type(value) is FunctionType and _constants_hide(value.__code__)
        return hidden_source(source) != source
    if type(value) in {str, bytes}:
        text = value if type(value) is str else value.decode("utf-8", "replace")
        return looks_secret(name, text) or environment_now().has(text, text)
    if type(value) in {list, tuple, dict, set, frozenset}:
        return holds_secret(name, value)
    if type(value) in {int, float, bool, type(None)}:
        return False
    state = getattr(value, "__dict__", None)
    return looks_secret(name) or (type(state) is dict and holds_secret("", state))


def _held_values(function: FunctionType) -> list[tuple[str, Any]]:
    """Return the plain values in the defaults and the closure of a function, each with its name."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][len(code.co_varnames[: code.co_argcount]) - len(defaults) :]
    items = [*zip(names, defaults, strict=False), *(function.__kwdefaults__ or {}).items()]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            items.append((name, cell.cell_contents))
        except ValueError:
            continue
    return [(name, value) for name, value in items if not isinstance(value, (type, FunctionType)) and value is not None]


def _constants_hide(code: CodeType) -> bool:
    """Return True if constants of code may be secrets; used for code without source."""
    stack, texts, names = [code], list[str](), list[str]()
    while stack:
        current = stack.pop()
        names += [*current.co_names, *current.co_varnames, *current.co_cellvars]
        for constant in current.co_consts:
            if isinstance(constant, CodeType):
                stack.append(constant)
            elif isinstance(constant, tuple):
                if holds_secret("", constant):
                    return True
                names += [item for item in constant if type(item) is str]
            elif isinstance(constant, str | bytes):
                texts.append(constant if isinstance(constant, str) else constant.decode("latin-1"))
    return any(holds_secret("", text) for text in texts) or (
        any(map(looks_generated, texts)) and any(map(names_secret, [*names, *texts]))
    )
