"""Thousands of small records: made quickly, and without the garbage collector walking them again and again.

The collector looks at young objects whenever some hundred more were made, and at all objects now and then. While ten thousand records
are read or planned that costs as much as making them, and frees nothing.
"""

from __future__ import annotations

import gc
from dataclasses import MISSING, fields
from typing import Any, Self, TypeVar

T = TypeVar("T")


def quick(cls: type[T]) -> type[T]:
    """Give a frozen dataclass with slots an ``__init__`` that takes the same arguments and is quicker.

    Raises
    ------
    TypeError
        For a class with fields that are keywords only, or with ``__post_init__``.
    """
    if hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} has a __post_init__")
    space: dict[str, Any] = {"_MISSING": MISSING}
    parameters, lines = ["self"], []
    for each in fields(cls):  # type: ignore[arg-type]  # a dataclass, by its contract
        name = each.name
        if each.kw_only or not each.init:
            raise TypeError(f"{cls.__name__}.{name} is no plain field")
        space[f"_fill_{name}"] = vars(cls)[name].__set__
        value = name
        if each.default is not MISSING:
            space[f"_default_{name}"] = each.default
            parameters.append(f"{name}=_default_{name}")
        elif each.default_factory is not MISSING:
            space[f"_make_{name}"] = each.default_factory
            parameters.append(f"{name}=_MISSING")
            value = f"_make_{name}() if {name} is _MISSING else {name}"
        else:
            parameters.append(name)
        lines.append(f"    _fill_{name}(self, {value})")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *lines]), space)  # noqa: S102 - of names of fields, as dataclasses do
    made = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = dict(cls.__init__.__annotations__)
    setattr(cls, "__init__", made)  # noqa: B010 - a checker takes an assignment for an error
    return cls


class no_collection:  # noqa: N801 - used as a function
    """Keep the garbage collector off while the block runs, except where it is let work: while the user's code runs."""

    __slots__ = ("was_on",)

    def __enter__(self) -> Self:
        self.was_on = gc.isenabled()
        gc.disable()
        _holding.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.let()
        _holding.remove(self)

    def let(self) -> None:
        """Let the collector be as it was."""
        if self.was_on:
            gc.enable()

    def hold(self) -> None:
        """Keep it off again; if the user's code has turned it on or off meanwhile, that is how it is left."""
        self.was_on = gc.isenabled()
        gc.disable()


_holding: list[no_collection] = []


def is_on() -> bool:
    """Return True if the user has the collector on, whatever a block does meanwhile."""
    return gc.isenabled() or any(each.was_on for each in _holding)
