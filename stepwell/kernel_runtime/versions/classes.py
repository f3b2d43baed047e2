"""The code of classes: what of a class's namespace counts, and what the store asks of it: the version it keeps beside an instance, secrets."""

from __future__ import annotations

import enum
import inspect
from types import FunctionType, GetSetDescriptorType
from typing import Any

from stepwell.kernel_runtime.definitions.signatures import annotations_of

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
    parts = [
        (name, value)
        for name, value in namespace.items()
        if name not in _SKIPPED and type(value) is not GetSetDescriptorType
    ]
    annotations = annotations_of(cls)
    if annotations:
        parts.append(("__annotations__", annotations))
    return sorted(parts, key=_name)


def _name(entry: tuple[str, Any]) -> str:
    return entry[0]


def class_version(item: object) -> str:
    """Return the code version of a class or function of the notebook, 32 hexadecimal digits.

    The store keeps it beside an instance, and compares it when it loads the instance.
    """
    return _digested(item)[0]


def exact_class_version(item: object) -> str | None:
    """Return the code version of a class or function, or None where something that it reaches cannot be digested."""
    version, exact = _digested(item)
    return version if exact else None


def _digested(item: object) -> tuple[str, bool]:
    from stepwell.kernel_runtime.versions.graph import UNVERIFIABLE, digest_of
    from stepwell.kernel_runtime.versions.walk import CodeWalk

    node = CodeWalk().node(item)
    return digest_of(node).hex(), not node.flags & UNVERIFIABLE


def hides(name: str, value: Any) -> bool:
    """Whether the store must not keep a value as part of a copy of code, or the source of a class or function has a secret in it.

    What is named like a secret, and what comes from the environment, is never stored as text.
    """
    from stepwell.kernel_runtime.versions.secrets import Environment, hidden_source, looks_secret

    if isinstance(value, (type, FunctionType)):
        if type(value) is FunctionType and (value.__name__ == "<lambda>" or not value.__code__.co_consts):
            return any(looks_secret("", each) for each in value.__code__.co_consts if type(each) is str)
        try:
            source = inspect.getsource(value)
        except (OSError, TypeError):
            return False
        return hidden_source(source) != source
    if type(value) in {str, bytes}:
        text = value if type(value) is str else value.decode("utf-8", "replace")
        return looks_secret(name, text) or Environment().has(text, text)
    return looks_secret(name) and type(value) not in {int, float, bool, type(None)}
