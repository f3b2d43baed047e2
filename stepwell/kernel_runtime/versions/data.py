"""Data versions: digests of values.

Two values have the same data version exactly if they have the same types, the same content, and the same order of items except in sets. All
NaNs are equal. The memory layout of arrays makes no difference. An instance is digested as its class and the state that pickle would store. A
class of the user is digested with its code, because a downstream step may call methods of an instance without naming the class. A function
or lambda is digested as its code, defaults and closure. A path to a file or folder is digested as its name and the content of the file or
folder.

Together with an instance, the store keeps a copy of the code of the instance's class. `definition_version` returns the version of such a copy,
and `hides` decides which values must not be in the copy because they are secret.
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
    """Return the digest of a value. It is the same in every process.

    Parameters
    ----------
    value
        Any object.
    budget
        Limits the number of instances, classes and functions in this value and in all other values that are digested with the same budget.
        If None, only the limit of `encode` for a single value applies.

    Returns
    -------
    str or None
        32 hexadecimal digits. None if the value has no canonical encoding or exceeds the budget; callers then use the digest of the stored
        bytes.
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
        # `__reduce__` of a part of a figure creates new objects each time, so the encoding would not end.
        raise Undigestible(f"{type(item).__name__} of matplotlib has no canonical form")
    return reduced(item)


class Budget:
    """A limit for `data_version` on the number of instances, classes and functions that several values contain together.

    Parameters
    ----------
    count
        The maximum number.
    """

    def __init__(self, count: int) -> None:
        self.items_left = count

    def __call__(self, item: Any, path: Callable[[], str]) -> bytes | Form:
        """Return the form of a foreign object; raise `Undigestible` if the limit is exceeded. `encode` calls this as its `foreign`."""
        self.items_left -= 1
        if self.items_left < 0:
            raise Undigestible("the value contains too many instances", path())
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
    # A function that is not an attribute of its module is identified only by its code and closure, so both need a digest.
    version = exact_class_version(function)
    if version is None:
        raise Undigestible(f"the function {function.__qualname__} reaches an object without a digest")
    return (module, function.__qualname__, version)


# -- the code of classes and functions in values


def class_version(item: object) -> str:
    """Return the code version of a class or function of the user, as 32 hexadecimal digits."""
    return _digested(item)[0]


def definition_version(item: object) -> str:
    """Return the code version of a class or function, computed from code only.

    Globals that hold data, class attributes that hold data, and options are left out.

    The store keeps this version with an instance of a class. When the instance is loaded, this version is compared with the version of the
    class in the notebook. Data are left out, because data of the class, such as a counter of its instances, may have changed since the instance
    was stored.
    """
    return _digested(item, data=False)[0]


def exact_class_version(item: object) -> str | None:
    """Return the code version of a class or function, or None if its code reaches an object that cannot be digested."""
    version, exact = _digested(item)
    return version if exact else None


def _digested(item: object, *, data: bool = True) -> tuple[str, bool]:
    node = CodeWalk(ignored=NOTHING if data else DATA).node(item)
    return digest_of(node).hex(), not node.flags & UNVERIFIABLE and not untested()


def hides(name: str, value: Any) -> bool:
    """Return True if a value must not be stored with a copy of code, because it is or contains a secret.

    A value is secret if its name or its text looks like a secret, or if it equals or contains the value of an environment variable. A function or
    class is secret if its source code contains a secret. A function is also secret if a value in its defaults or closure is secret.

    Parameters
    ----------
    name
        The name of the variable or attribute that holds the value; empty if there is none.
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
    if type(value) in {str, bytes, list, tuple, dict, set, frozenset}:
        return holds_secret(name, value, environment=environment_now())
    if type(value) in {int, float, bool, type(None)}:
        return False
    state = getattr(value, "__dict__", None)
    return looks_secret(name) or (type(state) is dict and holds_secret("", state, environment=environment_now()))


def _held_values(function: FunctionType) -> list[tuple[str, Any]]:
    """Return the values in the defaults and the closure of a function, each in a pair with the name of its parameter or variable.

    Functions, classes and None are left out.
    """
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
    """Return True if a constant of a code object may be a secret.

    `hides` uses this for a lambda, and for a function whose source code cannot be read.
    """
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
                texts.append(constant if isinstance(constant, str) else constant.decode("utf-8", "surrogateescape"))
    # As in the source code of a function, only long values of environment variables are hidden.
    hide_values = environment_now().hide_values
    if any(hide_values(text) != text for text in [*texts, *names]):
        return True
    return any(holds_secret("", text) for text in texts) or (
        any(map(looks_generated, texts)) and any(map(names_secret, [*names, *texts]))
    )
