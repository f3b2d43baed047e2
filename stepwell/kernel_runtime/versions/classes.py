"""The parts of classes and instances that are digested.

For a class, these are the entries of its namespace. For an instance, they are its class and the state that pickle would store. A class that a
library compiles (pydantic, attrs, SQLAlchemy, msgspec) is represented by its declaration, not by its compiled members.
"""

from __future__ import annotations

import copyreg
import enum
import sys
import weakref
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from functools import cached_property
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import FunctionType, GetSetDescriptorType
from typing import Any, ForwardRef

from stepwell.kernel_runtime.definitions.bodies import annotations_of
from stepwell.kernel_runtime.versions.encode import Form, Undigestible
from stepwell.kernel_runtime.versions.ownership import is_local

_SKIPPED = frozenset((
    "__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "_abc_impl", "__abstractmethods__", "__slotnames__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__", "__classdictcell__",
))  # fmt: skip
_MADE_BY_ENUM = frozenset(("__new__", "__format__", "__reduce_ex__", "__repr__", "__str__", "__hash__"))


def class_parts(cls: type) -> list[tuple[str, Any]]:
    """Return the entries of a class's namespace that are digested, sorted by name, so that their order in the class makes no difference.

    An entry with a name in parentheses is not an attribute of the class. For example, ``(members)`` stands for the members of an enumeration, and
    ``(fields)`` for the fields that the user declared in a pydantic class.
    """
    namespace = vars(cls)
    if isinstance(cls, enum.EnumMeta):
        enum_members: dict[str, Any] = dict(cls.__members__)
        members = [(name, member._value_) for name, member in enum_members.items()]
        names = {name for name, _ in members}
        others = [
            (name, value)
            for name, value in namespace.items()
            if name not in names and name not in _SKIPPED and not (name.startswith("_") and not name.startswith("__") and name.endswith("_"))
            and not (name in _MADE_BY_ENUM and getattr(value, "__module__", "enum") in {"enum", None})
            and not name.startswith("_unhashable") and not name.startswith("_hashable")
        ]  # fmt: skip
        return [("(members)", tuple(members)), *sorted(others, key=_name)]
    if "__pydantic_decorators__" in namespace:
        parts = _pydantic(cls, namespace)
    elif _is_mapped(namespace):
        parts = _sqlalchemy(namespace)
    else:
        parts = [*namespace.items()]
        if "__attrs_attrs__" in namespace:
            # The attributes determine the methods that attrs generates, and the generated `__hash__` contains a number that differs
            # between processes.
            parts = [(name, "made by attrs" if _made_by_attrs(value) else value) for name, value in parts]
        if type(cls).__module__ == "msgspec._core":
            parts.append(("(struct)", _struct(cls)))
        elif getattr(cls, "_is_protocol", None) is not None:
            # When a class that derives from a protocol is first instantiated, Python copies the `__init__` of another base into the class.
            held = namespace.get("__init__")
            if any([vars(base).get("__init__") is held for base in cls.__mro__[1:]]):  # noqa: C419 - a list is quicker for a few
                parts = [(name, value) for name, value in parts if name != "__init__"]
    parts = [(name, value) for name, value in parts if name not in _SKIPPED and type(value) is not GetSetDescriptorType]
    annotations = annotations_of(cls)
    if annotations:
        parts.append(("__annotations__", annotations))
    return sorted(parts, key=_name)


def _name(entry: tuple[str, Any]) -> str:
    return entry[0]


# -- classes that a library compiles: their declarations are digested


def _pydantic(cls: type, namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the declaration of a pydantic class: its fields, the arguments of its decorators, its configuration, methods and attributes."""
    if namespace.get("__pydantic_complete__") is False:
        # Resolve the annotations that name classes defined later. Otherwise, pydantic would do so for the first instance and change the class.
        rebuild = getattr(cls, "model_rebuild", None)
        if rebuild is not None:
            rebuild(raise_errors=False)
    attributes = [
        (name, value)
        for name, value in namespace.items()
        if not name.startswith("__pydantic_")
        and name not in {"__signature__", "__class_vars__", "__dataclass_fields__"}
        and not (name in _MADE_BY_PYDANTIC and str(getattr(value, "__module__", "")).partition(".")[0] == "pydantic")
    ]
    decorators = {
        kind: {name: decorator.info for name, decorator in defined.items()}
        for kind in ("validators", "field_validators", "root_validators", "field_serializers", "model_serializers", "model_validators")
        if (defined := getattr(namespace["__pydantic_decorators__"], kind, None))
    }  # fmt: skip
    generic = namespace.get("__pydantic_generic_metadata__") or {}
    return [
        *attributes,
        ("(fields)", list((namespace.get("__pydantic_fields__") or {}).items())),
        ("(decorators)", decorators),
        ("(computed)", list((namespace.get("__pydantic_computed_fields__") or {}).items())),
        ("(generic)", (generic.get("origin"), generic.get("args"))),
        ("(config)", namespace.get("__pydantic_config__")),
    ]


_MADE_BY_PYDANTIC = frozenset(("__hash__", "__init__", "__repr__", "__eq__", "__replace__", "__setattr__", "__delattr__", "__signature__"))  # fmt: skip


def _made_by_attrs(value: Any) -> bool:
    return type(value) is FunctionType and value.__code__.co_filename.startswith("<attrs generated")


def _is_mapped(namespace: Mapping[str, Any]) -> bool:
    return "_sa_class_manager" in namespace or "_sa_registry" in namespace


_BY_MAPPER = frozenset(("_sa_class_manager", "_sa_registry", "registry", "metadata", "__mapper__", "__table__"))


def is_kept_by_library(cls: type, name: str) -> bool:
    """Return True if the attribute `name` of a class contains data that SQLAlchemy compiles from the declaration of the class."""
    return name in _BY_MAPPER and any(_is_mapped(vars(base)) for base in cls.__mro__)


def is_data(cls: type, name: str, value: Any) -> bool:
    """Return True if an attribute of a class holds data, which code may replace at any time.

    The result is False for methods and other descriptors, nested classes, names that begin with ``__`` or ``_abc_``, and data for which
    `is_kept_by_library` is True.
    """
    kind = type(value)
    return (
        not name.startswith(("__", "_abc_"))
        and not issubclass(kind, type)
        and not hasattr(kind, "__get__")
        and not is_kept_by_library(cls, name)
    )


def _sqlalchemy(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the declaration of a mapped class of SQLAlchemy: its table, columns and relationships.

    The data that SQLAlchemy's mapper adds to the class are left out.
    """
    properties = getattr(namespace.get("__mapper__"), "_props", {})
    parts: list[tuple[str, Any]] = []
    for name, value in namespace.items():
        if name in {"_sa_class_manager", "_sa_registry", "registry", "__mapper__", "__parameters__"}:
            continue
        if name == "__init__":
            value = getattr(value, "_sa_original_init", value)  # noqa: PLW2901 - the method of the declaration
        if type(value).__module__ == "sqlalchemy.orm.attributes" and name in properties:
            value = _property(properties[name])  # noqa: PLW2901 - as above
        parts.append((name, value))
    return parts


def _property(item: Any) -> Any:
    columns = getattr(item, "columns", None)
    if columns:
        return ["column", *columns]
    declared = getattr(item, "_init_args", None)
    if declared is None:
        return [type(item).__name__]
    arguments = [getattr(arg, "argument", arg) for arg in declared]
    return [
        type(item).__name__,
        *[arg if arg is None or isinstance(arg, (str, type, FunctionType)) else str(arg) for arg in arguments],
        *[str(getattr(item, name, None)) for name in _RELATION],
    ]


_RELATION = ("lazy", "back_populates", "cascade", "passive_deletes", "passive_updates", "post_update", "viewonly", "single_parent", "innerjoin")  # fmt: skip


def _struct(cls: Any) -> tuple[Any, ...]:
    """Return the fields, defaults and configuration in the declaration of a msgspec struct. Annotations and methods are left out."""
    config = cls.__struct_config__
    return (
        cls.__struct_fields__,
        cls.__struct_encode_fields__,
        [("factory", item.factory) if hasattr(item, "factory") else item for item in cls.__struct_defaults__],
        {name: getattr(config, name) for name in sorted(dir(config)) if not name.startswith("_")},
    )


_copies: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def remember_copy(cls: type, version: str) -> None:
    """Record the code version of a class that was restored from a copy. The store keeps such a copy with an instance of the class.

    From then on, code versions contain `version` in place of a digest of this class.
    """
    _copies[cls] = version


def version_of_copy(cls: type) -> str | None:
    """Return the version that `remember_copy` recorded for a class; None for a class that was not restored from a copy."""
    return _copies.get(cls) if _copies else None


MOCK = "{} cannot be digested: it makes its attributes when they are read"
"""The reason why a mock and its class have no digest. Each read of an attribute may add another mock, without end."""


def is_of_a_mock(cls: type) -> bool:
    """Return True for the class that `unittest.mock` makes for each mock, because mocks may have different methods."""
    return vars(cls).get("__module__") == "unittest.mock" and getattr(sys.modules["unittest.mock"], cls.__name__, None) is not cls


# -- instances

_NOTHING = frozenset(compile(f"def f(self, state): {body}", "", "exec").co_consts[0].co_code for body in ("pass", "'documented'"))
"""Bytecode of methods that do nothing, with and without a docstring."""
_PATHS = frozenset((PurePosixPath, PureWindowsPath, PosixPath, WindowsPath))


def reduced(item: Any) -> Form:
    """Return the form of an instance for `encode`: its class, and the items of the tuple that `__reduce_ex__` returns.

    Members of enumerations, paths, context variables, weak references and some objects of libraries have other forms.

    Raises
    ------
    Undigestible
        If pickle cannot store the instance. Examples are connections, locks and generators.
    """
    kind = type(item)
    if is_of_a_mock(kind):
        raise Undigestible(MOCK.format(kind.__name__))
    if issubclass(kind, enum.Enum):
        return Form("enum", (kind, item.name))
    held = _readable_form(item, kind)
    if held is not None:
        return held
    try:
        reduce = copyreg.dispatch_table.get(kind)
        result: Any = reduce(item) if reduce is not None else item.__reduce_ex__(4)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Undigestible(f"{kind.__module__}.{kind.__qualname__} cannot be digested: {first_line(error)}") from error
    if issubclass(type(result), str):
        for module in (getattr(item, "__module__", None), kind.__module__, "numpy", "scipy.special"):
            if getattr(sys.modules.get(str(module)), result, None) is item:
                return Form("named", (kind, module, result))
        if kind.__module__ == "typing":
            # A type variable that is defined inside a function is not an attribute of its module.
            return Form("typing", (kind, result, getattr(item, "__bound__", None), getattr(item, "__constraints__", ())))
        raise Undigestible(
            f"{kind.__module__}.{kind.__qualname__} cannot be digested: its __reduce__ returns the name {result!r}, "
            f"which its module does not define"
        )
    if not issubclass(type(result), tuple) or len(result) < 2:
        raise Undigestible(f"{kind.__module__}.{kind.__qualname__} cannot be digested: its __reduce__ does not return a tuple")
    parts: list[Any] = [kind, result[0], tuple(result[1])]
    state = result[2] if len(result) > 2 else None
    if type(state) is dict:
        if cached := cached_names(kind):
            state = {name: value for name, value in state.items() if name not in cached}
        # An empty `__dict__` is not digested, because an access to an attribute may create it.
        state = state or None
    parts.append(None if state is not None and _forgets(kind) else state)
    parts.append(list(result[3]) if len(result) > 3 and result[3] is not None else None)
    parts.append([pair for item in result[4] for pair in item] if len(result) > 4 and result[4] is not None else None)
    if len(result) > 5:
        parts.append(result[5])
    return Form("instance", tuple(parts))


_cached_names: dict[type, frozenset[str]] = {}


def cached_names(kind: type) -> frozenset[str]:
    """Return the attributes in which an instance of a library's class keeps values that a property has computed.

    They depend on the other attributes, and an access to the property creates them. For a class of the user, the result is empty.
    """
    module = kind.__module__
    if type(module) is not str or is_local(module):
        return frozenset()
    names = _cached_names.get(kind)
    if names is None:
        found = {name for base in kind.__mro__ for name, value in vars(base).items() if type(value) is cached_property}
        # The properties of pandas keep their values in this dict.
        names = frozenset(found | {"_cache"} if module.partition(".")[0] == "pandas" else found)
        _cached_names[kind] = names
    return names


def _forgets(kind: type) -> bool:
    """Return True if ``__setstate__`` of a type does nothing. Pickle then does not restore the state, so the state is not digested."""
    method = getattr(kind, "__setstate__", None)
    return type(method) is FunctionType and method.__code__.co_code in _NOTHING and not method.__code__.co_names


def _readable_form(item: Any, kind: type) -> Form | None:
    """Return the form of an object whose content is read without pickle; None for any other object."""
    if kind is ContextVar:
        return Form("ContextVar", (item.name, *_context_value(item.get), *Context().run(_context_value, item.get)))
    if kind in {weakref.WeakKeyDictionary, weakref.WeakValueDictionary}:
        return Form(kind.__name__, (dict(item.items()),))
    if kind is weakref.WeakSet:
        return Form(kind.__name__, (set(item),))
    if kind is weakref.ref:
        return Form("weak reference", (item(),))
    if kind in _PATHS:
        # The state of a path also contains its unjoined parts and cached properties.
        return Form("path", (kind, str(item)))
    if kind is ForwardRef:
        return Form("forward reference", (item.__forward_arg__,))
    declared = _DECLARED.get((kind.__module__, kind.__name__))
    return Form(kind.__name__, (kind, *declared(item))) if declared is not None else None


# -- declarations that libraries keep, without the data that they add later


def _slot_values(item: Any) -> tuple[Any, ...]:
    names = [name for kind in type(item).__mro__ for name in vars(kind).get("__slots__", ())]
    return tuple((name, getattr(item, name)) for name in names if not name.startswith("_") and hasattr(item, name))


def _attributes(item: Any) -> tuple[Any, ...]:
    return tuple((name, getattr(item, name)) for name in dir(item) if not name.startswith("_"))


def _declared_column(item: Any) -> tuple[Any, ...]:
    keys = sorted(f"{getattr(key, '_colspec', key)} {key.ondelete} {key.onupdate}" for key in item.foreign_keys)
    return (
        item.name, item.key, type(item.type), repr(item.type), item.primary_key, item.nullable, item.unique, item.index, keys,
        getattr(item.default, "arg", item.default), getattr(item.onupdate, "arg", item.onupdate),
        str(getattr(item.server_default, "arg", item.server_default)), str(item.autoincrement), item.comment, dict(item.info),
    )  # fmt: skip


def _declared_table(item: Any) -> tuple[Any, ...]:
    def named(part: Any) -> str:
        columns = [column.name for column in getattr(part, "columns", ())]
        return f"{type(part).__name__} {part.name} {columns} {getattr(part, 'sqltext', '')} {getattr(part, 'unique', '')}"

    return (item.name, item.schema, list(item.columns), sorted(map(named, (*item.constraints, *item.indexes))), item.comment)  # fmt: skip


_DECLARED: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("pydantic.fields", "FieldInfo"): _slot_values,
    ("pydantic.fields", "ModelPrivateAttr"): _slot_values,
    ("msgspec", "Meta"): _attributes,
    ("sqlalchemy.sql.schema", "Column"): _declared_column,
    ("sqlalchemy.sql.schema", "Table"): _declared_table,
    ("sqlalchemy.sql.schema", "MetaData"): lambda item: (item.schema, dict(item.naming_convention)),
    ("sqlalchemy.orm.properties", "MappedColumn"): lambda item: (item.column,),
    # SQLAlchemy's state of an instance contains data of a session; only the primary key of the table row is digested.
    ("sqlalchemy.orm.state", "InstanceState"): lambda item: (item.key[1:] if item.key else None,),
}
"""Maps the module and the name of a type of a library to a function that returns the declared parts of an object of this type."""


def _context_value(get: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, get()
    except LookupError:
        return False, None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, at most 120 characters.

    If the message is empty or cannot be read, return the name of the exception's type.
    """
    try:
        return (str(error).splitlines() or [type(error).__name__])[0][:120]
    except KeyboardInterrupt:
        raise
    except BaseException:
        return type(error).__name__
