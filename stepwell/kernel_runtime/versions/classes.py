"""The code of classes: what of a class's namespace counts, and the code version that the store keeps beside an instance."""

from __future__ import annotations

import enum
from types import GetSetDescriptorType
from typing import Any

_SKIPPED = frozenset((
    "__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__firstlineno__", "__static_attributes__",
    "_abc_impl", "__abstractmethods__", "__slotnames__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__classdictcell__",
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
    return sorted(
        [
            (name, value)
            for name, value in namespace.items()
            if name not in _SKIPPED and type(value) is not GetSetDescriptorType
        ],
        key=_name,
    )


def _name(entry: tuple[str, Any]) -> str:
    return entry[0]


def class_version(item: object) -> str:
    """Return the code version of a class or function of the notebook, 32 hexadecimal digits.

    The store keeps it beside an instance, and compares it when it loads the instance.
    """
    from stepwell.kernel_runtime.versions.graph import digest_of
    from stepwell.kernel_runtime.versions.walk import CodeWalk

    return digest_of(CodeWalk().node(item)).hex()
