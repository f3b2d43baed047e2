"""The code of a step: what runs, where it was written, and what its parameters and annotations declare.

A body is a function, the text of a notebook cell, or one SELECT. A cell's body is executed as module-level code in a namespace of its
own, never as the body of a function: closures, class bodies, recursion, ``global`` and top-level ``await`` behave as they do in a cell.
The namespace holds the inputs, the notebook's names that analysis found, and builtins.

The parameters of a function are its context, inputs and config. They are read from the code object where that is possible, at a tenth of
the cost of `inspect.signature`: a notebook may define thousands of steps. A place is written ``cell 9`` in a notebook and
``helpers.py:12`` in a module.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from stepwell.kernel_runtime.definitions.declarations import UNSET
from stepwell.kernel_runtime.errors import CellValueError, InvalidDefinitionError
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
    """The parameters and the result of a function."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """An import, function or class that a cell's body defines, or a magic that sets the kernel up: executed again after a hit."""

    names: tuple[str, ...]
    """Names that it binds; none for a magic."""
    code: CodeType
    line: int
    """The line of ``def`` or ``class`` in the cell, or of its first decorator, as `co_firstlineno` has it."""
    end: int
    """Its last line."""
    is_import: bool
    always: bool
    """True if it is a top-level statement, so it is executed whenever the body runs to its end."""
    sources: tuple[tuple[str, str], ...] = ()
    """Of an import, for each name the module, and the attribute of the module or nothing; empty for a relative import."""
    is_call: bool = False
    """True if it assigns the result of a call, which may be a class: ``P = namedtuple("P", "x y")``."""


@dataclass(frozen=True, slots=True, eq=False)
class CellBody:
    """The compiled body of a magic's cell.

    `run` is given the inputs and returns one value per name in `outputs`, or the single value.
    """

    name: str
    """The first name that the cell defines, for messages."""
    source: str
    """The body as typed, without the magic's line."""
    where: str
    """``cell 9``: for messages."""
    code: CodeType | None
    """The statements before the last expression, compiled as a module; None if there are none."""
    tail: CodeType | None
    """The last expression, compiled to be evaluated; None if the cell ends in a statement."""
    parameters: tuple[str, ...]
    """Names that are bound to inputs: assets by their names, an op's parameters and config."""
    outputs: tuple[str, ...]
    """Variables that are the value; empty where the last expression is."""
    reads: frozenset[str]
    """Names of the notebook that the body may read as globals, inputs and builtins not among them."""
    globals: dict[str, Any]
    """The notebook's namespace, live."""
    sees_all: bool = False
    """True if the body looks names up in ways that cannot be seen (``globals()``, ``eval``): the step is unverifiable then, and
    runs with every name of the notebook."""
    is_async: bool = False
    """True if the body awaits at its top level."""
    display: Callable[[Any], None] | None = None
    """Called with the value of the last expression where that is to be displayed; None for nothing displayed."""
    finish: Callable[[Any, bool], Any] | None = None
    """Called with the last expression's value (and whether there is one) where that is the value: a figure for None."""
    settle: Callable[[tuple[Any, ...]], None] | None = None
    """Called with the values where variables are the value: open figures are shown and closed."""
    missing: Callable[[NameError], BaseException | None] | None = None
    """Explains a NameError of the pruned namespace."""
    live: bool = False
    """True if the body runs in the notebook's own namespace, as a plain cell does: asset cells. Else it runs in a separate one: ops."""
    variables: tuple[str, ...] = ()
    """For each output of the step the variable of the notebook that is bound to its value."""
    definitions: tuple[Definition, ...] = ()
    """Imports, functions, classes and setup magics at the top level of the body, in order."""
    sure: frozenset[str] = frozenset()
    """Names that the body assigns on every path."""
    stored: frozenset[str] = frozenset()
    """Names that the body assigns otherwise than by a definition."""
    changes: frozenset[str] | None = None
    """Names whose objects the body itself may change in place; None if that is not known."""
    changed: tuple[tuple[str, str], ...] = ()
    """Variables that were values of assets and that plain cells have changed or bound again, each with the label of the last such cell."""
    earlier: Callable[[], Mapping[str, Any]] = dict
    """Returns names that the cell may read and bound itself when it ran in this kernel, each with the value from before; `MISSING` of `versions` for none."""
    result: str | None = None
    """The result that the shell keeps: a variable's name, empty for the value of the last expression, None if the cell has no result."""
    unseen: tuple[str, ...] = ()
    """Why the step is unverifiable although its code does not show it: it runs commands of the shell."""
    kept: frozenset[str] = frozenset()
    """Secondary variables that must be stored, whatever that costs: ``--keep``."""
    dropped: frozenset[str] = frozenset()
    """Secondary variables that must not be stored: ``--drop``."""
    must_be_stored: bool = False
    """True if a value that cannot be stored is a failure in a kernel too: ``--stored``."""

    def defined(self, numbers: Iterable[int]) -> list[str]:
        """Return the names that some of the definitions bind, given by their places."""
        return [name for number in numbers if number < len(self.definitions) for name in self.definitions[number].names]

    @property
    def bound(self) -> set[str]:
        """Names that the body may bind at its top level."""
        return {*self.stored, *[name for definition in self.definitions for name in definition.names]}

    def namespace(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the pruned namespace that the body runs in."""
        notebook = self.globals
        names = notebook if self.sees_all else self.reads
        space = {name: notebook[name] for name in names if name in notebook}
        for name in ("__builtins__", "__name__", "__file__", "__doc__"):
            if name in notebook:
                space[name] = notebook[name]
        space.update(inputs)
        return space

    def value(self, space: Mapping[str, Any], tail: Any) -> Any:
        """Return the cell's value from the namespace after it ran and the value of its last expression.

        Raises
        ------
        CellValueError
            If a variable that is to be the value was not assigned.
        """
        if not self.outputs:
            return self.finish(tail, self.tail is not None) if self.finish else tail
        found = []
        for name in self.outputs:
            if name not in space:
                raise CellValueError(
                    f"the cell of {self.name!r} ended without assigning {name!r}",
                    where=self.where,
                    remedy=f"assign {name} on every path through the cell",
                )
            found.append(space[name])
        if self.settle is not None:
            self.settle(tuple(found))
        return found[0] if len(found) == 1 else tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class SqlBody:
    """One SELECT over assets; executed by the session's SQL instance."""

    name: str
    text: str
    """The statement as typed, without the semicolon."""
    where: str
    inputs: tuple[str, ...]
    """The tables that it names, which are assets, in the order of the text, written as keys: ``raw/flights`` for ``raw.flights``. Of
    spellings that differ in capitals only the first."""
    parameters: tuple[str, ...]
    """Names of ``$name`` parameters: variables of the notebook."""
    globals: dict[str, Any]
    """Where its parameters are looked up when it runs: the notebook's namespace, live, or given values."""
    frame: str
    """The type of the result: ``pandas``, ``pyarrow`` or ``polars``; counts in the code version."""
    canonical: str = ""
    """The statement as the parser understands it: what the code version digests."""


def source_of(body: object) -> str:
    """Return the source of a body as a reader wants it; empty where there is none."""
    if isinstance(body, CellBody):
        return body.source
    if isinstance(body, SqlBody):
        return body.text
    try:
        return inspect.getsource(inspect.unwrap(body))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
