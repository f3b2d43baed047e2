"""Exceptions, with everything that they hold but the traceback.

Pickle makes an exception anew from ``args``: that calls a user's ``__init__`` with other arguments than the ones it was given, and loses the
cause and the fields that the interpreter keeps beside ``args``. Here the object is made without ``__init__`` and gets the fields that it had.
The functions that rebuild it are named by stored values: they keep their names and arguments.
"""

from __future__ import annotations

import builtins
import copyreg
import inspect
import pickle
from collections.abc import Callable
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
_LEFT_OUT = frozenset({"__class__", "__dict__", "__weakref__", "__traceback__", "message", "exceptions"})
"""What goes another way (the parts of a group cannot be set), or cannot be stored."""
_WORD = 8
_NAMESPACE: Any = vars(BaseException)["__dict__"]
_PARTS: Any = (vars(BaseExceptionGroup)["message"], vars(BaseExceptionGroup)["exceptions"])


def reducer(kind: type) -> Callable[[Any], Any] | None:
    """Return what reduces exceptions of a type, or None where their class says how, or is not written in Python."""
    mro = type.__dict__["__mro__"].__get__(kind)
    base = _builtin_base(kind)
    room = base.__basicsize__ + 2 * _WORD
    for cls in mro:
        if _is_builtin(cls):
            continue
        own = type.__dict__["__dict__"].__get__(cls)
        room += _WORD * sum(type(each) is MemberDescriptorType for each in own.values())
        made_by = own.get("__new__")
        made_by = made_by.__func__ if type(made_by) is staticmethod else made_by
        if any(name in own for name in _HOOKS) or type(made_by) not in {type(None), FunctionType}:
            return None
    if kind in copyreg.dispatch_table or kind.__basicsize__ > room:
        return None
    return _reduced


def check_arguments(value: BaseException) -> None:
    """Raise PicklingError for an exception that pickle, by which values travel to other processes, cannot make again from its ``args``."""
    init = type(value).__init__
    own = any(vars(cls).keys() & set(_HOOKS) for cls in type(value).__mro__ if not _is_builtin(cls))
    if own or type(init) is not FunctionType:
        return
    try:
        inspect.signature(init).bind(value, *value.args)
    except TypeError as error:
        raise pickle.PicklingError(
            f"{type(value).__qualname__}(*args) does not make it again: {error}; give all arguments to super().__init__()"
        ) from error


def _builtin_base(kind: type) -> type[BaseException]:
    mro: tuple[Any, ...] = type.__dict__["__mro__"].__get__(kind)
    found: type[BaseException] = next(cls for cls in mro if _is_builtin(cls))
    return found


def _is_builtin(cls: type) -> bool:
    return vars(builtins).get(cls.__name__) is cls


def _reduced(value: BaseException) -> tuple[Any, ...]:
    kind = type(value)
    parts = tuple([part.__get__(value) for part in _PARTS]) if issubclass(kind, BaseExceptionGroup) else ()
    fields: dict[str, Any] = {}
    for cls in reversed(type.__dict__["__mro__"].__get__(kind)):
        for name, descriptor in type.__dict__["__dict__"].__get__(cls).items():
            if type(descriptor) not in {MemberDescriptorType, GetSetDescriptorType} or name in _LEFT_OUT:
                continue
            if cls is AttributeError and name == "obj":
                continue  # as for pickle: the object may be anything, such as a module
            try:
                found = descriptor.__get__(value, kind)
            except (AttributeError, TypeError):
                continue  # it has no value
            if found is not None:
                fields[name] = found
    state = (fields, dict(_NAMESPACE.__get__(value)))
    return exception_of, (kind, *parts), state, None, None, set_exception


def exception_of(kind: type[BaseException], *parts: Any) -> BaseException:
    """Return an exception of a type whose fields are not set yet.

    Parameters
    ----------
    parts
        Of a group, its message and its exceptions.
    """
    made: BaseException = _builtin_base(kind).__new__(kind, *parts)
    return made


def set_exception(made: BaseException, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Set the fields and the attributes of an exception."""
    fields, attributes = state
    by_name: dict[str, Any] = {}
    for cls in type.__dict__["__mro__"].__get__(type(made)):
        for name, descriptor in type.__dict__["__dict__"].__get__(cls).items():
            if name in fields and type(descriptor) in {MemberDescriptorType, GetSetDescriptorType}:
                by_name.setdefault(name, descriptor)
    # A cause suppresses the context when it is set.
    for name in sorted(by_name, key=lambda each: each == "__suppress_context__"):
        by_name[name].__set__(made, fields[name])
    _NAMESPACE.__get__(made).update(attributes)
