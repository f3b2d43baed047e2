"""What an instance is made of: its class, and the state that pickling would keep."""

from __future__ import annotations

import copyreg
import enum
import sys
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import FunctionType
from typing import Any, ForwardRef

from stepwell.kernel_runtime.versions.encode import Form, Undigestible

_NOTHING = frozenset(
    compile(f"def f(self, state): {body}", "", "exec").co_consts[0].co_code for body in ("pass", "'documented'")
)
"""Bytecode of functions that do nothing."""
_PATHS = frozenset((PurePosixPath, PureWindowsPath, PosixPath, WindowsPath))


def reduced(item: Any) -> Form:
    """Return an instance as its class and what it reduces to.

    Raises
    ------
    Undigestible
        If it cannot be reduced: a connection, a lock, a generator.
    """
    kind = type(item)
    if issubclass(kind, enum.Enum):
        return Form("enum", (kind, item.name))
    held = _held(item, kind)
    if held is not None:
        return held
    try:
        reduce = copyreg.dispatch_table.get(kind)
        found: Any = reduce(item) if reduce is not None else item.__reduce_ex__(4)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Undigestible(f"{kind.__module__}.{kind.__qualname__} cannot be digested: {first_line(error)}") from error
    if issubclass(type(found), str):
        for module in (getattr(item, "__module__", None), kind.__module__, "numpy", "scipy.special"):
            if getattr(sys.modules.get(str(module)), found, None) is item:
                return Form("named", (kind, module, found))
        if kind.__module__ == "typing":
            # A type variable is found by its name only in the module that made it.
            return Form("typing", (kind, found, getattr(item, "__bound__", None), getattr(item, "__constraints__", ())))
        raise Undigestible(
            f"{kind.__module__}.{kind.__qualname__} cannot be digested: it is not found by its name {found!r}"
        )
    if not issubclass(type(found), tuple) or len(found) < 2:
        raise Undigestible(f"{kind.__module__}.{kind.__qualname__} cannot be digested: its __reduce__ gives no tuple")
    parts: list[Any] = [kind, found[0], tuple(found[1])]
    # An instance gets an empty __dict__ when it is looked at.
    state = found[2] if len(found) > 2 and not (type(found[2]) is dict and not found[2]) else None
    parts.append(None if state is not None and _forgets(kind) else state)
    parts.append(list(found[3]) if len(found) > 3 and found[3] is not None else None)
    parts.append([pair for item in found[4] for pair in item] if len(found) > 4 and found[4] is not None else None)
    if len(found) > 5:
        parts.append(found[5])
    return Form("instance", tuple(parts))


def _forgets(kind: type) -> bool:
    """Return whether a type's ``__setstate__`` does nothing: a loaded instance has no such state, and is equal all the same."""
    found = getattr(kind, "__setstate__", None)
    return type(found) is FunctionType and found.__code__.co_code in _NOTHING and not found.__code__.co_names


def _held(item: Any, kind: type) -> Form | None:
    """Return the form of what cannot be pickled but tells all that it holds."""
    if kind is ContextVar:
        return Form("ContextVar", (item.name, *_context_value(item.get), *Context().run(_context_value, item.get)))
    if kind in {weakref.WeakKeyDictionary, weakref.WeakValueDictionary}:
        return Form(kind.__name__, (dict(item.items()),))
    if kind is weakref.WeakSet:
        return Form(kind.__name__, (set(item),))
    if kind is weakref.ref:
        return Form("weak reference", (item(),))
    if kind in _PATHS:
        # How it was put together, and what was asked of it, is kept too.
        return Form("path", (kind, str(item)))
    if kind is ForwardRef:
        return Form("forward reference", (item.__forward_arg__,))
    declared = _DECLARED.get((kind.__module__, kind.__name__))
    return Form(kind.__name__, (kind, *declared(item))) if declared is not None else None


# -- what libraries keep of a declaration: as it was declared, without what they found out since


def _slots(item: Any) -> tuple[Any, ...]:
    names = [name for kind in type(item).__mro__ for name in vars(kind).get("__slots__", ())]
    return tuple((name, getattr(item, name)) for name in names if not name.startswith("_") and hasattr(item, name))


def _attributes(item: Any) -> tuple[Any, ...]:
    return tuple((name, getattr(item, name)) for name in dir(item) if not name.startswith("_"))


def _column(item: Any) -> tuple[Any, ...]:
    keys = sorted(f"{getattr(each, '_colspec', each)} {each.ondelete} {each.onupdate}" for each in item.foreign_keys)
    return (
        item.name, item.key, type(item.type), repr(item.type), item.primary_key, item.nullable, item.unique, item.index, keys,
        getattr(item.default, "arg", item.default), getattr(item.onupdate, "arg", item.onupdate),
        str(getattr(item.server_default, "arg", item.server_default)), str(item.autoincrement), item.comment, dict(item.info),
    )  # fmt: skip


def _table(item: Any) -> tuple[Any, ...]:
    def named(each: Any) -> str:
        columns = [column.name for column in getattr(each, "columns", ())]
        return (
            f"{type(each).__name__} {each.name} {columns} {getattr(each, 'sqltext', '')} {getattr(each, 'unique', '')}"
        )

    return (item.name, item.schema, list(item.columns), sorted(map(named, (*item.constraints, *item.indexes))), item.comment)  # fmt: skip


_DECLARED: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("pydantic.fields", "FieldInfo"): _slots,
    ("pydantic.fields", "ModelPrivateAttr"): _slots,
    ("msgspec", "Meta"): _attributes,
    ("sqlalchemy.sql.schema", "Column"): _column,
    ("sqlalchemy.sql.schema", "Table"): _table,
    ("sqlalchemy.sql.schema", "MetaData"): lambda item: (item.schema, dict(item.naming_convention)),
    ("sqlalchemy.orm.properties", "MappedColumn"): lambda item: (item.column,),
    # What a session keeps beside the attributes; which row an object is of counts.
    ("sqlalchemy.orm.state", "InstanceState"): lambda item: (item.key[1:] if item.key else None,),
}
"""By module and name of a type."""


def _context_value(get: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, get()
    except LookupError:
        return False, None


def first_line(error: BaseException) -> str:
    """Return the beginning of an exception's message; its class may raise anything when it is asked for it."""
    try:
        return (str(error).splitlines() or [type(error).__name__])[0][:120]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return type(error).__name__
