"""Fast creation of thousands of small records, without repeated passes of the garbage collector over them.

The collector visits young objects after every few hundred allocations, and all objects from time to time. While ten thousand records
are created, its passes cost as much as the creation and free nothing.
"""

from __future__ import annotations

import gc
from dataclasses import MISSING, fields
from typing import Any, Self, TypeVar

T = TypeVar("T")


def quick_init(cls: type[T]) -> type[T]:
    """Replace the ``__init__`` of a frozen dataclass with slots by a faster one with the same signature.

    Raises
    ------
    TypeError
        If the class has ``__post_init__``, or a field that is keyword-only or not a parameter.
    """
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} has a __post_init__")
    space: dict[str, Any] = {"_MISSING": MISSING}
    parameters, lines = ["self"], []
    for field in fields(cls):  # type: ignore[arg-type]  # a dataclass, by its contract
        name = field.name
        if field.kw_only or not field.init:
            raise TypeError(f"{cls.__name__}.{name} is keyword-only or not a parameter")
        # Call the slot's descriptor directly: `object.__setattr__` would look the slot up by name.
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
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *lines]), space)  # noqa: S102 - made of field names, as in dataclasses
    init = space["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = dict(cls.__init__.__annotations__)
    setattr(cls, "__init__", init)  # noqa: B010 - mypy rejects an assignment
    return cls


class no_collection:  # noqa: N801 - used as a function
    """Disable the garbage collector for a block. Between `resume` and `suspend`, the user's setting applies to the user's code."""

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
        """Restore the user's setting of the collector."""
        if self.was_on:
            gc.enable()

    def suspend(self) -> None:
        """Disable the collector again, and save the setting that the user's code left."""
        self.was_on = gc.isenabled()
        gc.disable()


_open_blocks: list[no_collection] = []


def collector_enabled() -> bool:
    """Return True if the collector is enabled by the user's setting, even while `no_collection` disables it."""
    return gc.isenabled() or any(block.was_on for block in _open_blocks)
