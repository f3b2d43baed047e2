"""What a function declares: the place where it is defined, and its parameters and annotations as context, inputs, config and types.

Parameters are read from the code object where that is possible, at a tenth of the cost of `inspect.signature`: a notebook may define
thousands of steps. A place is written ``cell 9`` in a notebook and ``helpers.py:12`` in a module.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from stepwell.kernel_runtime.definitions.declarations import UNSET
from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.records.bulk import quick

_cells: Callable[[str], str | None] | None = None
_names: Callable[[str], str] | None = None


def set_cell_names(names: Callable[[str], str | None] | None) -> None:
    """Say how a notebook cell's file name is turned into words; the notebook's face knows."""
    global _cells  # noqa: PLW0603 - one per process, like the notebook
    _cells = names


def set_name_places(places: Callable[[str], str] | None) -> None:
    """Set what returns the cell that bound a variable of the notebook last, empty if none is known; the notebook's face knows."""
    global _names  # noqa: PLW0603 - one per process, like the notebook
    _names = places


def place_of_name(name: str) -> str:
    """Return the cell that bound a variable of the notebook last, ``cell 5``; empty if it is not known."""
    return _names(name) if _names is not None else ""


def place(filename: str, line: int) -> str:
    """Return a place in words."""
    cell = _cells(filename) if _cells is not None else None
    if cell is not None:
        return f"{cell}, line {line}"
    # No Path: it costs ten times as much, and a notebook may define thousands of steps.
    return filename if filename.startswith("<") else f"{filename.rpartition(os.sep)[2]}:{line}"


def place_of_function(function: Any) -> str:
    """Return where a function, or what it wraps, was written, in words; empty for a callable without code."""
    if hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    return place_of(getattr(function, "__code__", None))


def place_of(code: CodeType | None) -> str:
    """Return where a code object was written, in words."""
    return place(code.co_filename, code.co_firstlineno) if code is not None else ""


@quick
@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a step's function."""

    name: str
    default: Any
    annotation: Any
    keyword_only: bool


@quick
@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes and returns."""

    context: str | None
    """The name of the context's parameter, or None."""
    parameters: tuple[Parameter, ...]
    """All others, in order."""
    returns: Any
    """The return annotation; `UNSET` where there is none."""


def read_signature(function: Callable[..., Any], *, where: str) -> Signature:
    """Read a step's function.

    Raises
    ------
    InvalidDefinitionError
        If it takes ``*args`` or ``**kwargs``, whose inputs would have no names.
    """
    hints = _hints(function)
    if type(function) is FunctionType and not hasattr(function, "__wrapped__"):
        found = _from_code(function, hints, where)
    else:
        found = _from_inspect(function, hints, where)
    context = None
    if found and (found[0].name == "context" or _is_context(found[0].annotation)):
        context = found.pop(0).name
    return Signature(context, tuple(found), hints.get("return", UNSET))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    annotations = annotations_of(function) or {}
    if not any(type(hint) in {str, typing.ForwardRef} for hint in annotations.values()):
        return annotations
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that only a type checker knows: its parameter goes unchecked
        return {
            name: UNSET if isinstance(hint, (str, typing.ForwardRef)) else hint for name, hint in annotations.items()
        }


def annotations_of(item: Any) -> dict[str, Any] | None:
    """Return the annotations of a function or class, evaluated; None for none. A name that is not bound is a forward reference.

    Since Python 3.14 annotations are evaluated at first use, and kept. Those of a class are evaluated here without being kept: a
    name in them may be bound to something else before the program uses them.
    """
    try:
        if not isinstance(item, type):
            return getattr(item, "__annotations__", None) or None
        held = vars(item)
        kept: dict[str, Any] | None = held.get("__annotations__", held.get("__annotations_cache__"))
        annotate = held.get("__annotate_func__")
        if kept is None and annotate is not None:
            # The format of values.
            kept = annotate(1)
    except Exception:
        # An annotation may raise anything when it is evaluated.
        import annotationlib

        kept = annotationlib.get_annotations(item, format=annotationlib.Format.FORWARDREF)
    return kept or None


def _from_code(function: FunctionType, hints: dict[str, Any], where: str) -> list[Parameter]:
    code = function.__code__
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        raise _variadic(function.__name__, where)
    count, only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = function.__defaults__ or ()
    first = count - len(defaults)
    found = [
        Parameter(name, defaults[i - first] if i >= first else UNSET, hints.get(name, UNSET), keyword_only=False)
        for i, name in enumerate(names[:count])
    ]
    if only:
        keyword = function.__kwdefaults__ or {}
        found += [
            Parameter(name, keyword.get(name, UNSET), hints.get(name, UNSET), keyword_only=True)
            for name in names[count : count + only]
        ]
    return found


def _from_inspect(function: Callable[..., Any], hints: dict[str, Any], where: str) -> list[Parameter]:
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _variadic(getattr(function, "__name__", repr(function)), where)
        default = UNSET if parameter.default is parameter.empty else parameter.default
        found.append(Parameter(name, default, hints.get(name, UNSET), parameter.kind is parameter.KEYWORD_ONLY))
    return found


def _is_context(annotation: Any) -> bool:
    return bool(getattr(annotation, "__stepwell_context__", False))


def _variadic(name: str, where: str) -> InvalidDefinitionError:
    return InvalidDefinitionError(
        f"{name!r} takes *args or **kwargs: its inputs have no names",
        where=where,
        remedy="name each input; a list of values is one parameter (fan-in)",
    )
