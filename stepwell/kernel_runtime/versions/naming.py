"""What counts by its name: builtins, and the functions, classes and modules of libraries.

A library's own function is told by module, qualified name and version. One that a library *made* for the user (a wrapper with a closure, a
class from a factory) is not found under its name, and is taken apart like the user's own.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from stepwell.kernel_runtime.versions.atoms import atom
from stepwell.kernel_runtime.versions.graph import MISSING
from stepwell.kernel_runtime.versions.ownership import owner

LAZY: type = getattr(types, "LazyImportType", type(MISSING))
"""The type of what ``lazy import`` binds until it is used, since Python 3.15."""
_C_DESCRIPTORS = (
    WrapperDescriptorType,
    MethodDescriptorType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
)
_HEAP_TYPE = 1 << 9
_names: dict[tuple[str | None, str, str], bytes] = {}


def token(item: Any, kind: type) -> bytes | None:
    """Return the encoding of what counts by its name: builtins, and functions, classes and modules of libraries."""
    if kind is BuiltinFunctionType:
        holder = item.__self__
        if holder is None or type(holder) is ModuleType:
            return named(item.__module__, item.__qualname__, owner(item.__module__) or "")
        return None
    if kind is FunctionType:
        module = item.__globals__.get("__name__")
        who = owner(module) if type(module) is str else None
        return named(module, item.__qualname__, who) if who is not None and is_its_own(item, module) else None
    # By the real type: an object may lie about its class, or raise when it is asked.
    if issubclass(kind, type):
        module = item.__module__
        who = owner(module) if type(module) is str else None
        return named(module, item.__qualname__, who) if who is not None and is_found(item) else None
    if issubclass(kind, ModuleType):
        who = owner(item.__name__)
        return named(item.__name__, "", who) if who is not None else None
    if issubclass(kind, _C_DESCRIPTORS):
        holder = item.__objclass__
        who = owner(holder.__module__)
        return named(holder.__module__, item.__qualname__, who) if who is not None else atom(item.__name__)
    if kind.__name__ == "cython_function_or_method":
        who = owner(item.__module__)
        return named(item.__module__, item.__qualname__, who) if who is not None else None
    return None


def bound(scope: Mapping[str, Any], name: str) -> Any:
    """Return what a name is bound to, MISSING for nothing; what a lazy import binds is imported."""
    value = scope.get(name, MISSING)
    return resolved(value) if type(value) is LAZY else value


def resolved(value: Any) -> Any:
    """Return what a lazy import stands for; MISSING where it fails."""
    if value is MISSING:
        return MISSING
    try:
        return value.resolve()
    except Exception:
        # The import runs any code.
        return MISSING


def getattr_static(item: Any, name: str) -> Any:
    """Return an attribute that the object's class or the object itself has, without running `__getattr__`."""
    for cls in type(item).__mro__:
        if name in vars(cls):
            return getattr(item, name, None)
    held = getattr(type(item), "__dict__", {}).get("__dict__")
    if held is not None:
        try:
            return vars(item).get(name)
        except TypeError:
            return None
    return None


def is_found(cls: type) -> bool:
    """Whether a class is what its module has by its name; one that a library made for the user is not."""
    if not cls.__flags__ & _HEAP_TYPE:
        return True
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def named(module: str | None, name: str, who: str) -> bytes:
    """Return the encoding of what counts by its name and by who owns it."""
    key = (module, name, who)
    found = _names.get(key)
    if found is None:
        found = _names[key] = b"\xc7" + atom(key)
    return found


def is_its_own(function: FunctionType, module: str) -> bool:
    """Whether a library's function is found where its name says, so that name and version tell all."""
    holder = sys.modules.get(module)
    if (
        function.__closure__ is None
        and not function.__dict__
        and getattr(holder, "__dict__", None) is function.__globals__
    ):
        # What a function of a library made may hold values of the user in its defaults.
        return "<locals>" not in function.__qualname__ or not function.__defaults__
    if function.__module__ != module:
        return False
    found: Any = holder
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
        if found is None:
            return False
    return found is function or getattr(found, "__func__", None) is function
