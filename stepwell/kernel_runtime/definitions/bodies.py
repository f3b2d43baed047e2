"""The code of a step: its body, its location in the source, and its signature.

A body is a function, a notebook cell, or one SELECT. The body of a cell is executed as module-level code, not as the body of a function,
so closures, class bodies, recursion, ``global`` and top-level ``await`` behave as in a plain cell. An op's cell runs in a separate namespace
that holds the inputs, the notebook's names that the body may read, and builtins; an asset's cell runs in the notebook's namespace.

The parameters of a function are its context, inputs and config. A notebook may define thousands of steps, so parameters are read from the code
object if possible, at a tenth of the cost of `inspect.signature`. Locations are written ``cell 9`` in a notebook and ``helpers.py:12`` in a module.
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
from stepwell.kernel_runtime.records.bulk import quick_init

_label_of_file: Callable[[str], str | None] | None = None
_label_of_variable: Callable[[str], str] | None = None


def set_cell_labels(
    label_of_file: Callable[[str], str | None] | None = None, label_of_variable: Callable[[str], str] | None = None
) -> None:
    """Set the functions that return the labels of the notebook's cells; without arguments, there is no notebook.

    Parameters
    ----------
    label_of_file
        Returns the label of the cell with a filename, or None if the file is not a cell.
    label_of_variable
        Returns the label of the last cell that bound a variable; empty if the cell is unknown.
    """
    global _label_of_file, _label_of_variable
    _label_of_file, _label_of_variable = label_of_file, label_of_variable


def place_of_name(name: str) -> str:
    """Return the label of the last cell that bound a variable of the notebook, such as ``cell 5``; empty if the cell is unknown."""
    return _label_of_variable(name) if _label_of_variable is not None else ""


def place(filename: str, line: int) -> str:
    """Return a source location for messages: ``cell 9``, ``helpers.py:12`` or ``<stdin>``."""
    cell = _label_of_file(filename) if _label_of_file is not None else None
    if cell is not None:
        return f"{cell}, line {line}"
    # A Path would cost ten times as much, and a notebook may define thousands of steps.
    return filename if filename.startswith("<") else f"{filename.rpartition(os.sep)[2]}:{line}"


def place_of_function(function: Any) -> str:
    """Return the source location of a function or, for a wrapper, of the wrapped function; empty for a callable without code."""
    if hasattr(function, "__wrapped__"):
        function = inspect.unwrap(function)
    return place_of(getattr(function, "__code__", None))


def place_of(code: CodeType | None) -> str:
    """Return the source location of a code object; empty for None."""
    return place(code.co_filename, code.co_firstlineno) if code is not None else ""


@quick_init
@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a step's function."""

    name: str
    default: Any
    annotation: Any
    keyword_only: bool


@quick_init
@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters and the return annotation of a function."""

    context: str | None
    """The name of the parameter that receives the context, or None."""
    parameters: tuple[Parameter, ...]
    """All other parameters, in order."""
    returns: Any
    """The return annotation, or `UNSET`."""


def read_signature(function: Callable[..., Any], *, where: str) -> Signature:
    """Return the signature of a step's function.

    Raises
    ------
    InvalidDefinitionError
        If the function takes ``*args`` or ``**kwargs``: their inputs would have no names.
    """
    hints = _hints(function)
    if type(function) is FunctionType and not hasattr(function, "__wrapped__"):
        parameters = _from_code(function, hints, where)
    else:
        parameters = _from_inspect(function, hints, where)
    context = None
    if parameters and (parameters[0].name == "context" or _is_context(parameters[0].annotation)):
        context = parameters.pop(0).name
    return Signature(context, tuple(parameters), hints.get("return", UNSET))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    annotations = annotations_of(function) or {}
    if not any(type(hint) in {str, typing.ForwardRef} for hint in annotations.values()):
        return annotations
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation may use a name that only type checkers import; such a parameter is not checked
        return {
            name: UNSET if isinstance(hint, (str, typing.ForwardRef)) else hint for name, hint in annotations.items()
        }


def annotations_of(item: Any) -> dict[str, Any] | None:
    """Return the evaluated annotations of a function or class, or None. An unbound name becomes a forward reference.

    Since Python 3.14, annotations are evaluated at first use and then cached. This function does not fill the cache of a class, because the
    program may rebind a name in an annotation before it uses the annotations.
    """
    try:
        if not isinstance(item, type):
            return getattr(item, "__annotations__", None) or None
        attributes = vars(item)
        annotations: dict[str, Any] | None = attributes.get("__annotations__", attributes.get("__annotations_cache__"))
        annotate = attributes.get("__annotate_func__")
        if annotations is None and annotate is not None:
            # 1 is `annotationlib.Format.VALUE`; the module exists on Python 3.14 only.
            annotations = annotate(1)
    except Exception:
        # An annotation may raise anything when it is evaluated.
        import annotationlib

        annotations = annotationlib.get_annotations(item, format=annotationlib.Format.FORWARDREF)
    return annotations or None


def _from_code(function: FunctionType, hints: dict[str, Any], where: str) -> list[Parameter]:
    code = function.__code__
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        raise _variadic(function.__name__, where)
    count, only = code.co_argcount, code.co_kwonlyargcount
    names = code.co_varnames
    defaults = function.__defaults__ or ()
    first = count - len(defaults)
    parameters = [
        Parameter(name, defaults[i - first] if i >= first else UNSET, hints.get(name, UNSET), keyword_only=False)
        for i, name in enumerate(names[:count])
    ]
    if only:
        keyword = function.__kwdefaults__ or {}
        parameters += [
            Parameter(name, keyword.get(name, UNSET), hints.get(name, UNSET), keyword_only=True)
            for name in names[count : count + only]
        ]
    return parameters


def _from_inspect(function: Callable[..., Any], hints: dict[str, Any], where: str) -> list[Parameter]:
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _variadic(getattr(function, "__name__", repr(function)), where)
        default = UNSET if parameter.default is parameter.empty else parameter.default
        parameters.append(Parameter(name, default, hints.get(name, UNSET), parameter.kind is parameter.KEYWORD_ONLY))
    return parameters


def _is_context(annotation: Any) -> bool:
    return bool(getattr(annotation, "__stepwell_context__", False))


def _variadic(name: str, where: str) -> InvalidDefinitionError:
    return InvalidDefinitionError(
        f"{name!r} takes *args or **kwargs, whose inputs have no names",
        where=where,
        remedy="name each input; to pass a list of values, use one parameter (fan-in)",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """A top-level statement of a cell that is executed again after a reuse: an import, function, class, or magic that configures the kernel."""

    names: tuple[str, ...]
    """Names that the statement binds; empty for a magic."""
    code: CodeType
    line: int
    """The first line in the cell, as in `co_firstlineno`: the line of the first decorator, else of ``def`` or ``class``."""
    end: int
    """The last line in the cell."""
    is_import: bool
    always: bool
    """True if the statement is not nested in another statement, so that every complete run of the body executes it."""
    sources: tuple[tuple[str, str], ...] = ()
    """For each name that an import binds, the module and its attribute (an empty string for the module itself). Empty for a relative import."""
    is_call: bool = False
    """True for an assignment of a call's result, which may be a class: ``P = namedtuple("P", "x y")``."""


@dataclass(frozen=True, slots=True, eq=False)
class CellBody:
    """The compiled body of a cell with a cell magic."""

    name: str
    """The first name that the cell defines; used in messages."""
    source: str
    """The body as typed, without the line of the magic."""
    where: str
    """The label of the cell for messages: ``cell 9``."""
    code: CodeType | None
    """The statements before the last expression, compiled as a module; None if there are none."""
    tail: CodeType | None
    """The last expression, compiled for evaluation; None if the cell ends in a statement."""
    parameters: tuple[str, ...]
    """Names that are bound to inputs: names of assets, or the parameters and config of an op."""
    outputs: tuple[str, ...]
    """Variables whose values are the cell's value; empty if the last expression is the value."""
    reads: frozenset[str]
    """Names of the notebook that the body may read as globals, without inputs and builtins."""
    globals: dict[str, Any]
    """The namespace of the notebook itself, not a copy."""
    sees_all: bool = False
    """True if the body may look up names that static analysis cannot find (``globals()``, ``eval``). The step is then unverifiable and
    runs with all names of the notebook."""
    is_async: bool = False
    """True if the body contains a top-level ``await``."""
    display: Callable[[Any], None] | None = None
    """Called with the value of the last expression to display it; None if it is not displayed."""
    finish: Callable[[Any, bool], Any] | None = None
    """Returns the cell's value, such as a figure in place of None. The arguments are the value of the last expression and a bool, False if
    there is no last expression."""
    settle: Callable[[tuple[Any, ...]], None] | None = None
    """Shows and closes open figures. Called with the values of the output variables, if the cell has any."""
    explain_name_error: Callable[[NameError], BaseException | None] | None = None
    """Returns an error that explains a NameError in the pruned namespace, or None."""
    runs_in_notebook: bool = False
    """True for asset cells, which run in the notebook's namespace like plain cells; False for ops, which run in a separate namespace."""
    variables: tuple[str, ...] = ()
    """For each output of the step, the variable of the notebook that is bound to its value."""
    definitions: tuple[Definition, ...] = ()
    """Imports, functions, classes and setup magics at the top level of the body, in order."""
    always_assigned: frozenset[str] = frozenset()
    """Names that the body assigns on every path through it."""
    assigned_values: frozenset[str] = frozenset()
    """Names that the body assigns in a statement that is not a definition."""
    changes: frozenset[str] | None = None
    """Names whose objects the body itself may change in place; None if the names are unknown."""
    changed_variables: tuple[tuple[str, str], ...] = ()
    """Variables that held the values of assets until plain cells changed or rebound them, each with the label of the last such cell."""
    earlier: Callable[[], Mapping[str, Any]] = dict
    """Returns the names that the cell may read and that its last run in this kernel bound. Each name has its value before that run, or
    `MISSING` (in `versions`)."""
    result: str | None = None
    """The variable that the shell's ``Out`` keeps as the result; empty for the last expression, None if the cell has no result."""
    unseen: tuple[str, ...] = ()
    """Reasons why the step is unverifiable that an analysis of its code objects cannot find, such as shell commands."""
    kept_variables: frozenset[str] = frozenset()
    """Secondary variables that are stored even if this is expensive (``--keep``)."""
    dropped_variables: frozenset[str] = frozenset()
    """Secondary variables that are not stored (``--drop``)."""
    must_be_stored: bool = False
    """True if a value that cannot be stored makes the step fail even in an interactive kernel (``--stored``)."""

    def defined_names(self, numbers: Iterable[int]) -> list[str]:
        """Return the names bound by the definitions with these indices."""
        return [name for number in numbers if number < len(self.definitions) for name in self.definitions[number].names]

    @property
    def bound_names(self) -> set[str]:
        """Names that the body may bind at its top level."""
        return {*self.assigned_values, *[name for definition in self.definitions for name in definition.names]}

    def namespace(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the pruned namespace in which the body runs."""
        notebook = self.globals
        names = notebook if self.sees_all else self.reads
        space = {name: notebook[name] for name in names if name in notebook}
        for name in ("__builtins__", "__name__", "__file__", "__doc__"):
            if name in notebook:
                space[name] = notebook[name]
        space.update(inputs)
        return space

    def value(self, space: Mapping[str, Any], tail: Any) -> Any:
        """Return the cell's value from the namespace after the run and the value of the last expression.

        Raises
        ------
        CellValueError
            If a variable in `outputs` was not assigned.
        """
        if not self.outputs:
            return self.finish(tail, self.tail is not None) if self.finish else tail
        values = []
        for name in self.outputs:
            if name not in space:
                raise CellValueError(
                    f"the cell of {self.name!r} ended without assigning {name!r}",
                    where=self.where,
                    remedy=f"assign {name} on every path through the cell",
                )
            values.append(space[name])
        if self.settle is not None:
            self.settle(tuple(values))
        return values[0] if len(values) == 1 else tuple(values)


@dataclass(frozen=True, slots=True, eq=False)
class SqlBody:
    """One SELECT over assets, executed by the SQL instance of the session."""

    name: str
    text: str
    """The statement as typed, without the semicolon."""
    where: str
    inputs: tuple[str, ...]
    """The keys of the assets that the statement names as tables, in their order of appearance: ``raw/flights`` for ``raw.flights``. Of
    spellings that differ only in case, the first is used."""
    parameters: tuple[str, ...]
    """Names of ``$name`` parameters, which are variables of the notebook."""
    globals: dict[str, Any]
    """The namespace in which parameters are looked up at run time: the notebook's namespace, not a copy, or a dict of values."""
    frame: str
    """The type of the result, which is part of the code version: ``pandas``, ``pyarrow`` or ``polars``."""
    canonical: str = ""
    """The statement in the parser's normal form, which the code version digests."""


def source_of(body: object) -> str:
    """Return the source of a body as typed; empty if it is not available."""
    if isinstance(body, CellBody):
        return body.source
    if isinstance(body, SqlBody):
        return body.text
    try:
        return inspect.getsource(inspect.unwrap(body))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
