"""Fast creation of thousands of small records: a faster constructor, and creation without Python's cyclic garbage collector.

The collector examines young objects after every few hundred allocations, and all objects from time to time. While ten thousand records
are created, these examinations take as long as the creation itself and free nothing.
"""

from __future__ import annotations

import gc
from dataclasses import MISSING, fields
from typing import Any, Self, TypeVar

T = TypeVar("T")


def quick_init(cls: type[T]) -> type[T]:
    """Decorate a frozen dataclass with slots: replace its ``__init__`` by a faster one with the same parameters.

    Raises
    ------
    TypeError
        If the class has a method ``__post_init__``, or a field that is keyword-only or has ``init=False``.
    """
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"@quick_init cannot be used for {cls.__name__}, because this class has a method __post_init__")
    space: dict[str, Any] = {"_MISSING": MISSING}
    parameters, lines = ["self"], []
    for field in fields(cls):  # type: ignore[arg-type]  # `cls` is a dataclass
        name = field.name
        if field.kw_only or not field.init:
            raise TypeError(f"@quick_init cannot be used for {cls.__name__}: its field {name} is keyword-only or has init=False")
        # The slot's descriptor is called directly, because `object.__setattr__` would look the slot up by name.
        space[f"_fill_{name}"] = vars(cls)[name].__set__
        value = name
        if field.default is not MISSING:
            space[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        elif field.default_factory is not MISSING:
            space[f"_make_{name}"] = field.default_factory
            parameters.append(f"{name}=_MISSING")
            value = f"_make_{name}() if {name} is _MISSING else {name}"
        else:
            parameters.append(name)
        lines.append(f"    _fill_{name}(self, {value})")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *lines]), space)  # noqa: S102 - the code consists of names of fields, as in `dataclasses`
    init = space["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = dict(cls.__init__.__annotations__)
    setattr(cls, "__init__", init)  # noqa: B010 - mypy rejects an assignment
    return cls


class no_collection:  # noqa: N801 - used as a function
    """Disable Python's cyclic garbage collector during a ``with`` block.

    Inside the block, call `resume` before code of the user runs and `suspend` after it, so that this code runs with the collector as the
    user has set it.
    """

    __slots__ = ("was_on",)

    def __enter__(self) -> Self:
        self.was_on = gc.isenabled()
        gc.disable()
        _open_blocks.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        _open_blocks.remove(self)

    def resume(self) -> None:
        """Enable the collector again, unless the user has disabled it."""
        if self.was_on:
            gc.enable()

    def suspend(self) -> None:
        """Note whether the user's code has left the collector enabled, and disable the collector again."""
        self.was_on = gc.isenabled()
        gc.disable()


_open_blocks: list[no_collection] = []
"""The ``with`` blocks of `no_collection` that are being executed."""


def collector_enabled() -> bool:
    """Return True if the user has left the garbage collector enabled. The result ignores that `no_collection` disables the collector."""
    return gc.isenabled() or any(block.was_on for block in _open_blocks)
