"""The code of classes: what of a class's namespace counts, and what the store asks of it: the version it keeps beside an instance, secrets."""

from __future__ import annotations

import enum
import inspect
import weakref
from collections.abc import Mapping
from types import CodeType, FunctionType, GetSetDescriptorType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import annotations_of

_SKIPPED = frozenset((
    "__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "_abc_impl", "__abstractmethods__", "__slotnames__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__", "__classdictcell__",
))  # fmt: skip
_MADE_BY_ENUM = frozenset(("__new__", "__format__", "__reduce_ex__", "__repr__", "__str__", "__hash__"))


def class_parts(cls: type) -> list[tuple[str, Any]]:
    """Return the entries of a class's own namespace that count, by name; their order in the class does not."""
    namespace = vars(cls)
    if isinstance(cls, enum.EnumMeta):
        found: dict[str, Any] = dict(cls.__members__)
        members = [(name, member._value_) for name, member in found.items()]
        names = {name for name, _ in members}
        kept = [
            (name, value)
            for name, value in namespace.items()
            if name not in names and name not in _SKIPPED and not (name.startswith("_") and not name.startswith("__") and name.endswith("_"))
            and not (name in _MADE_BY_ENUM and getattr(value, "__module__", "enum") in {"enum", None})
            and not name.startswith("_unhashable") and not name.startswith("_hashable")
        ]  # fmt: skip
        return [("(members)", tuple(members)), *sorted(kept, key=_name)]
    if "__pydantic_decorators__" in namespace:
        parts = _pydantic(cls, namespace)
    elif _is_mapped(namespace):
        parts = _sqlalchemy(namespace)
    else:
        parts = [*namespace.items()]
        if "__attrs_attrs__" in namespace:
            # Made from the attributes; `__hash__` contains a number that differs between processes.
            parts = [(name, "made by attrs" if _made_by_attrs(value) else value) for name, value in parts]
        if type(cls).__module__ == "msgspec._core":
            parts.append(("(struct)", _struct(cls)))
        elif getattr(cls, "_is_protocol", None) is not None:
            # The first instance of a class with a protocol among its bases gives it the `__init__` of another base.
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


# -- classes that a library compiles: what they were compiled from counts


def _pydantic(cls: type, namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what a pydantic class was made from: fields, what its decorators were told, config; methods are in the namespace."""
    if namespace.get("__pydantic_complete__") is False:
        # As its first instance would: annotations that were names of later classes become these.
        rebuild = getattr(cls, "model_rebuild", None)
        if rebuild is not None:
            rebuild(raise_errors=False)
    kept = [
        (name, value)
        for name, value in namespace.items()
        if not name.startswith("__pydantic_")
        and name not in {"__signature__", "__class_vars__", "__dataclass_fields__"}
        and not (name in _MADE_BY_PYDANTIC and str(getattr(value, "__module__", "")).partition(".")[0] == "pydantic")
    ]
    told = {
        kind: {name: decorator.info for name, decorator in found.items()}
        for kind in ("validators", "field_validators", "root_validators", "field_serializers", "model_serializers", "model_validators")
        if (found := getattr(namespace["__pydantic_decorators__"], kind, None))
    }  # fmt: skip
    generic = namespace.get("__pydantic_generic_metadata__") or {}
    return [
        *kept,
        ("(fields)", list((namespace.get("__pydantic_fields__") or {}).items())),
        ("(decorators)", told),
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
    """Return True for an attribute in which a library keeps what it made of a class: what becomes of it is no change of the class."""
    return name in _BY_MAPPER and any(_is_mapped(vars(base)) for base in cls.__mro__)


def is_data(cls: type, name: str, value: Any) -> bool:
    """Return True for an attribute of a class that holds data: what methods and cells assign to it."""
    kind = type(value)
    return (
        not name.startswith(("__", "_abc_"))
        and not issubclass(kind, type)
        and not hasattr(kind, "__get__")
        and not is_kept_by_library(cls, name)
    )


def _sqlalchemy(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what a mapped class was made from: its table, columns and relationships; what the mapper keeps is left out."""
    properties = getattr(namespace.get("__mapper__"), "_props", {})
    parts: list[tuple[str, Any]] = []
    for name, value in namespace.items():
        if name in {"_sa_class_manager", "_sa_registry", "registry", "__mapper__", "__parameters__"}:
            continue
        if name == "__init__":
            value = getattr(value, "_sa_original_init", value)  # noqa: PLW2901 - what the class was given
        if type(value).__module__ == "sqlalchemy.orm.attributes" and name in properties:
            value = _property(properties[name])  # noqa: PLW2901 - as above
        parts.append((name, value))
    return parts


def _property(item: Any) -> Any:
    columns = getattr(item, "columns", None)
    if columns:
        return ["column", *columns]
    told = getattr(item, "_init_args", None)
    if told is None:
        return [type(item).__name__]
    arguments = [getattr(each, "argument", each) for each in told]
    return [
        type(item).__name__,
        *[each if each is None or isinstance(each, (str, type, FunctionType)) else str(each) for each in arguments],
        *[str(getattr(item, name, None)) for name in _RELATION],
    ]


_RELATION = ("lazy", "back_populates", "cascade", "passive_deletes", "passive_updates", "post_update", "viewonly", "single_parent", "innerjoin")  # fmt: skip


def _struct(cls: Any) -> tuple[Any, ...]:
    """Return what a struct of msgspec was made from, beside annotations and methods."""
    config = cls.__struct_config__
    return (
        cls.__struct_fields__,
        cls.__struct_encode_fields__,
        [("factory", each.factory) if hasattr(each, "factory") else each for each in cls.__struct_defaults__],
        {name: getattr(config, name) for name in sorted(dir(config)) if not name.startswith("_")},
    )


_copies: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def remember_copy(cls: type, version: str) -> None:
    """Note that a class was made from the stored copy of one of this code version: it has that version, however it was put together."""
    _copies[cls] = version


def version_of_copy(cls: type) -> str | None:
    """Return the code version of a class that was made from a stored copy; None for any other."""
    return _copies.get(cls) if _copies else None


def class_version(item: object) -> str:
    """Return the code version of a class or function of the notebook, 32 hexadecimal digits."""
    return _digested(item)[0]


def definition_version(item: object) -> str:
    """Return the code version of a class or function without the data that it reads or holds: counters of instances, registries, options.

    The store keeps it with an instance. A load compares it with that of the notebook's class, which may have counted on since.
    """
    return _digested(item, data=False)[0]


def exact_class_version(item: object) -> str | None:
    """Return the code version of a class or function, or None where something that it reaches cannot be digested."""
    version, exact = _digested(item)
    return version if exact else None


def _digested(item: object, *, data: bool = True) -> tuple[str, bool]:
    from stepwell.kernel_runtime.versions.graph import UNVERIFIABLE, digest_of
    from stepwell.kernel_runtime.versions.left_out import DATA, NOTHING
    from stepwell.kernel_runtime.versions.opcodes import untested
    from stepwell.kernel_runtime.versions.walk import CodeWalk

    node = CodeWalk(ignored=NOTHING if data else DATA).node(item)
    return digest_of(node).hex(), not node.flags & UNVERIFIABLE and not untested()


def hides(name: str, value: Any) -> bool:
    """Whether the store must not keep a value as part of a copy of code, or the source of a class or function has a secret in it.

    What is named like a secret, and what comes from the environment, is never stored as text.
    """
    from stepwell.kernel_runtime.versions.secrets import environment_now, hidden_source, holds_secret, looks_secret

    if isinstance(value, (type, FunctionType)):
        if type(value) is FunctionType and any(hides(label, each) for label, each in _held(value)):
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


def _held(function: FunctionType) -> list[tuple[str, Any]]:
    """Return the plain values that a function holds beside its code, each with its name: defaults and what its closure has."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][len(code.co_varnames[: code.co_argcount]) - len(defaults) :]
    found = [*zip(names, defaults, strict=False), *(function.__kwdefaults__ or {}).items()]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:
            continue
    return [(name, value) for name, value in found if not isinstance(value, (type, FunctionType)) and value is not None]


def _constants_hide(code: CodeType) -> bool:
    """Whether the constants of code whose source is not known, or is a part of another's, may be secrets."""
    from stepwell.kernel_runtime.versions.secret_forms import looks_generated, names_secret
    from stepwell.kernel_runtime.versions.secrets import holds_secret

    stack, texts, names = [code], list[str](), list[str]()
    while stack:
        each = stack.pop()
        names += [*each.co_names, *each.co_varnames, *each.co_cellvars]
        for constant in each.co_consts:
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
